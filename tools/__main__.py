"""Lists the programs, or runs one: `python -m dcp_tf.tools`, `python -m dcp_tf.tools prune --help`."""

import ast
import difflib
import importlib
import os
import pathlib
import sys
import textwrap
from collections.abc import Sequence

PROGRAMS = (
    *("quickstart", "inspect_model", "prune", "finetune", "evaluate", "export", "benchmark", "compare"),
    *("train", "latency_table", "report"),
)
_OK, _BAD_USAGE = 0, 2


def listing() -> str:
    """The programs with the first sentence of what each does."""
    lines = ["usage: python -m dcp_tf.tools.NAME [--help] [FLAGS]", ""]
    for name in PROGRAMS:
        lines += textwrap.wrap(_about(name), 80, initial_indent=f"  {name:15}", subsequent_indent=" " * 17)
    return "\n".join(lines)


def _about(name: str) -> str:
    """The first sentence of a program's docstring, read without importing the program, so that the list is instant."""
    source = pathlib.Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    paragraph = ast.get_docstring(ast.parse(source)).partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0]


def run(argv: Sequence[str] | None = None) -> int:
    """Prints the list, or runs the program that the first argument names with the others."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ("--help",)
    if name in PROGRAMS:
        return importlib.import_module(f"dcp_tf.tools.{name}").run(rest)
    if name.lstrip("-") in ("help", "h"):
        print(listing())
        return _OK
    near = difflib.get_close_matches(name, PROGRAMS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    print(f"dcp_tf: there is no program {name!r}{hint}; the programs are {', '.join(PROGRAMS)}", file=sys.stderr)
    return _BAD_USAGE


def main() -> int:
    """The entry point; ends quietly if the reader of its output, such as `head`, closes the pipe."""
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _OK
    return code


if __name__ == "__main__":
    sys.exit(main())
