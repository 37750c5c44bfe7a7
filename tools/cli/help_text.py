"""The texts of `--help` and `--helpfull`, at most 80 columns wide."""

import re
import textwrap
from collections.abc import Iterable
from typing import Any

from absl import flags as absl_flags

from dcp_tf.tools.cli.typed_command import as_typed, typed

WIDTH = 80
# What --help shows of programs that have more flags; --helpfull shows all.
MOST_USED = {
    "Model and data": ("model", "dataset", "normalization", "loss", "custom_objects", "image_size", "outputs", "pairs"),
    "How much is removed": (
        *("rate", "target_macs", "target_params", "target_bytes", "target_latency", "target_file"),
        *("round_to", "exclude", "prune_residual"),
    ),
    "What is removed": ("method", "plan", "methods", "seeds"),
    "Training": (
        *("epochs", "teacher", "finetune_epochs", "batch_size", "learning_rate", "finetune_lr", "distillation"),
        *("schedule", "optimizer"),
    ),
    "TFLite files": ("quantization", "int8_io", "calibration_samples", "bias_correction", "strict", "baseline", "name"),
    "The run": ("output_dir", "seed", "resume", "overwrite", "json"),
}
LIMIT = 25
_NOT_OF_PRUNE = (
    *("outputs", "pairs", "image_size", "schedule", "optimizer"),
    *("int8_io", "calibration_samples", "bias_correction"),
)
_COLUMN = 26  # of the texts of --help


def full(program: Any) -> str:
    """All flags in their sections, each with its whole text."""
    (_, everywhere), *sections = program.sections
    return _text(program, [*sections, ("Other", everywhere)], _long_entry, "")


def short(program: Any) -> str:
    """The flags that are used most, each with one sentence."""
    (_, everywhere), *sections = program.sections
    own = [name for _, names in sections for name in names]
    if len(own) > LIMIT:
        left_out = _NOT_OF_PRUNE if "method" in own or "methods" in own else ()
        sections = [
            (title, [name for name in names if name in own and name not in left_out])
            for title, names in MOST_USED.items()
        ]
    shown = sum(len(names) for _, names in sections)
    rest = f"--helpfull shows {len(own)} flags, {len(own) - shown} of them not here." if shown < len(own) else ""
    return _text(program, [*sections, ("Other", everywhere)], _short_entry, rest)


def _text(program: Any, sections: Iterable[tuple[str, list[str]]], entry: Any, end: str) -> str:
    lines = [f"usage: {typed(program.name)} [FLAGS]"]
    for paragraph in as_typed(textwrap.dedent(program.about).strip()).split("\n\n"):
        lines += ["", *(_commands(paragraph) if paragraph.startswith("    ") else _wrapped(paragraph, ""))]
    for title, names in sections:
        lines += ["", f"{title}:"] if names else []
        for name in names:
            lines += entry(program.flags[name])
    return "\n".join([*lines, *(["", end] if end else [])])


def _commands(paragraph: str) -> list[str]:
    """Commands, each on as many lines as it takes."""
    lines = []
    for command in re.sub(r"\s*\\\n\s*", " ", paragraph).split("\n"):
        *others, last = _wrapped(command.strip(), " " * 8, WIDTH - 2)
        first, *rest = [*(f"{line} \\" for line in others), last]
        lines += [first[4:], *rest]
    return lines


def head(flag: absl_flags.Flag) -> str:
    """A flag as it is typed, with its default or else what it takes."""
    if flag.boolean:
        return f"--no{flag.name}" if flag.default is True else f"--{flag.name}"
    value = (flag.default_as_str or "").strip("'")
    return f"--{flag.name}={value or _placeholder(flag)}"


def table(about: str) -> tuple[str, list[tuple[str, str]], str]:
    """A help text of the form "What it is. a: text; b, c: text. The rest." as its three parts.

    Returns:
        The first sentence, the names with their texts, and the rest; all of it in the first where there is no list.
    """
    first, _, rest = about.partition(". ")
    rows = [row.partition(": ") for row in rest.split("; ")]
    if len(rows) < 3 or not all(re.fullmatch(r"\w+(, \w+)*", name) and text for name, _, text in rows):
        return about, [], ""
    rows[-1], tail = (rows[-1][0], ": ", rows[-1][2].partition(". ")[0]), rows[-1][2].partition(". ")[2]
    return f"{first}.", [(name, text.removesuffix(".")) for name, _, text in rows], tail


def choices(flag: absl_flags.Flag) -> list[str]:
    """The words that a flag takes, if they are known."""
    named = [name for names, _ in table(_about(flag))[1] for name in names.split(", ")]
    return [value for value in getattr(flag.parser, "enum_values", None) or named if value]


def _about(flag: absl_flags.Flag) -> str:
    return re.sub(r"^<.+?>: ", "", flag.help)


def _placeholder(flag: absl_flags.Flag) -> str:
    words = getattr(flag.parser, "enum_values", None)
    if flag.name.startswith("target_"):
        return "LIMIT"
    if words:
        return "|".join(words) if len("|".join(words)) <= 30 else "NAME"
    kinds = {"path": "PATH", "string": "TEXT", "int": "N", "float": "NUMBER", "share": "SHARE"}
    kind = flag.flag_type()
    return "A,B,..." if "list" in kind else kinds.get(kind, "VALUE")


def _long_entry(flag: absl_flags.Flag) -> list[str]:
    lead, rows, tail = table(_about(flag))
    indent = " " * 6
    lines = [f"  {head(flag)}", *_wrapped(as_typed(lead + _one_of(flag, rows)), indent)]
    return [*lines, *_rows(rows, indent), *(_wrapped(as_typed(tail), indent) if tail else [])]


def _short_entry(flag: absl_flags.Flag) -> list[str]:
    lead, rows, _ = table(_about(flag))
    sentence = re.split(r"(?<=[^.])[.] (?=[A-Z])", lead)[0].rstrip(".") + "."
    indent = " " * _COLUMN
    first, *others = _wrapped(as_typed(sentence + _one_of(flag, rows)), indent)
    start = f"  {head(flag)}"
    lines = [f"{start:{_COLUMN}}{first.strip()}"] if len(start) < _COLUMN - 1 else [start, first]
    return [*lines, *others, *_rows(rows, " " * 6)]


def _one_of(flag: absl_flags.Flag, rows: list[tuple[str, str]]) -> str:
    values = [] if rows else [value for value in getattr(flag.parser, "enum_values", None) or () if value]
    return f" One of: {', '.join(values)}." if values else ""


def _rows(rows: list[tuple[str, str]], indent: str) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0) + 2
    wrapped = {name: _wrapped(text, indent + " " * width) for name, text in rows}
    return [
        line
        for name, (first, *others) in wrapped.items()
        for line in (f"{indent}{name:{width}}{first.strip()}", *others)
    ]


def _wrapped(text: str, indent: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
