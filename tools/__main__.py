"""`dcp-tf`: lists the programs, runs one, or prints what completes commands in a shell; also `python -m dcp_tf`."""

import ast
import difflib
import importlib
import os
import pathlib
import sys
import textwrap
from collections.abc import Sequence

import dcp_tf
from dcp_tf.tools.cli.typed_command import ALIASES, typed

PROGRAMS = (
    *("quickstart", "inspect_model", "prune", "finetune", "evaluate", "export", "benchmark", "compare"),
    *("train", "latency_table", "report", "setup"),
)
_SHORT = {program: alias for alias, program in ALIASES.items()}
_OK, _BAD_USAGE = 0, 2
_COMPLETION = "completion"


def listing() -> str:
    """The programs with the first sentence of what each does."""
    lines = [f"usage: {typed('NAME')} [FLAGS]", ""]
    for name in PROGRAMS:
        lines += _entry(_SHORT.get(name, name), about(name))
    lines += _entry(_COMPLETION, "Prints what completes commands and flags in a shell: bash, zsh or fish")
    return "\n".join([*lines, "", "NAME --help shows the flags that are used most, NAME --helpfull all of them."])


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=f"  {name:15}", subsequent_indent=" " * 17)


def about(name: str) -> str:
    """The first sentence of a program's docstring, read without importing the program, so that the list is instant."""
    source = pathlib.Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    paragraph = ast.get_docstring(ast.parse(source)).partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0]


def run(argv: Sequence[str] | None = None) -> int:
    """Prints the list, or runs the program that the first argument names with the others."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ("--help",)
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    program = ALIASES.get(name, name.replace("-", "_"))
    if program in PROGRAMS:
        return importlib.import_module(f"dcp_tf.tools.{program}").run(rest)
    if name.lstrip("-") in ("help", "h", "helpfull"):
        print(listing())
        return _OK
    if name == "--version":
        print(f"dcp_tf {dcp_tf.__version__}")
        return _OK
    if name == _COMPLETION:
        return _print_completion(rest)
    names = [*PROGRAMS, *ALIASES, _COMPLETION]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the programs are {', '.join(names)}"
    print(f"dcp-tf: there is no program {name!r}; {hint}", file=sys.stderr)
    return _BAD_USAGE


def _print_completion(shells: Sequence[str]) -> int:
    from dcp_tf.tools.cli.completion import SHELLS, script

    if len(shells) == 1 and shells[0] in SHELLS:
        programs = {name: importlib.import_module(f"dcp_tf.tools.{name}").PROGRAM for name in PROGRAMS}
        print(script(shells[0], {_SHORT.get(name, name): (program, about(name)) for name, program in programs.items()}))
        return _OK
    help_asked = bool(shells) and shells[0].lstrip("-") in ("help", "h")
    lines = [f"usage: dcp-tf {_COMPLETION} SHELL", "", *(f"  {shell:6}{where}" for shell, where in SHELLS.items())]
    print("\n".join(lines), file=sys.stdout if help_asked else sys.stderr)
    return _OK if help_asked else _BAD_USAGE


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
