"""Values as tables of plain text, for terminals, logs and notebooks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
