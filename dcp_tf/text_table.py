"""Values as tables: of plain text for terminals and logs, of HTML for notebooks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

_GAP = "  "


def text_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Iterable[str] = ()) -> str:
    """A title, a line of headings, a line for each row, and notes.

    Args:
        title: the first line.
        columns: headings.
        rows: a value for each column; numbers get separators of thousands, None is "-".
        notes: lines below the table.

    Returns:
        Lines without a trailing space; columns of numbers stand on the right.
    """
    cells = [[_text(value) for value in row] for row in rows]
    lines = [list(columns), *cells]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    right = [
        bool(cells) and all(not row[k] or row[k][0] in "-+?0123456789" for row in cells) for k in range(len(columns))
    ]
    aligned = [
        _GAP.join(
            f"{cell:>{width}}" if is_number else f"{cell:<{width}}"
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = _GAP.join("-" * width for width in widths)
    return "\n".join([title, aligned[0], rule, *aligned[1:], *notes])


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class Table(NamedTuple):
    """A table that can be printed and shown.

    Attributes:
        title, columns, rows, notes: see `text_table`.
        fractions: of each row the length of a bar, 0 to 1, that a notebook shows beside it; None: no bar.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()
    fractions: Sequence[float | None] = ()

    def html(self) -> str:
        """The table as HTML with its styles in place, in the colors of the page around it, light or dark."""
        cell = "padding:.2em .8em;border:0;border-bottom:1px solid #8884;background:none;text-align:"
        lines = []
        for number, row in enumerate(self.rows):
            cells = [
                f'<td style="{cell}{"left" if isinstance(value, str) else "right"}">{escape(_text(value))}</td>'
                for value in row
            ]
            if self.fractions:
                cells.append(f'<td style="{cell}left">{_bar(self.fractions[number])}</td>')
            lines.append(f"<tr>{''.join(cells)}</tr>")
        headings = [*self.columns, *[""] * bool(self.fractions)]
        numbers = [not isinstance(value, str) for value in self.rows[0]] if self.rows else []
        head = "".join(
            f'<th style="{cell}{"right" if k < len(numbers) and numbers[k] else "left"}">{escape(heading)}</th>'
            for k, heading in enumerate(headings)
        )
        notes = "".join(f'<div style="opacity:.7">{escape(note)}</div>' for note in self.notes)
        return (
            f'<div style="margin:.5em 0 1em"><b>{escape(self.title)}</b>'
            f'<div style="max-height:30em;overflow:auto"><table style="border-collapse:collapse;margin:.3em 0">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{notes}</div>"
        )


class ShownAsTables:
    """A result that prints its tables with `summary()` and shows them as the last value of a notebook's cell."""

    def _tables(self) -> list[Table]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables())


def print_tables(tables: Iterable[Table], print_fn: Callable[[str], Any]) -> None:
    """Prints each table as text."""
    for table in tables:
        print_fn(text_table(table.title, table.columns, table.rows, table.notes))


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return ""
    fill = f'<div style="width:{100 * fraction:.1f}%;height:.7em;background:#2a9d94;border-radius:.2em"></div>'
    return f'<div style="width:8em;background:#8883;border-radius:.2em">{fill}</div>'


def settings_line(settings: Mapping[str, Any]) -> str:
    """Settings by name, without those that nobody stated and that nothing stands for."""
    return ", ".join(f"{name}={_text(value)}" for name, value in settings.items() if value not in (None, (), [], {}))


def reduction(before: float | None, after: float | None) -> str:
    """A change of a cost: "-48.2%"."""
    return "-" if not before or after is None else f"{100 * (after - before) / before:+.1f}%"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
