"""What `mkdocs build` does beyond its plugins: it lays out the package, and writes the tables of programs and flags."""

import dataclasses
import functools
import html
import importlib
import inspect
import pathlib
import pkgutil
import re
import shutil
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / ".cache" / "docs" / "dcp_tf"
BESIDE = ("tools", "tflite", "experiments")  # folders that installation moves into the package, see setup.py


def on_startup(**_):
    """Links all parts of the package into one folder, so that `dcp_tf.tflite` is found without installation."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    PACKAGE.mkdir(parents=True)
    parts = [path for path in (ROOT / "dcp_tf").iterdir() if path.name != "__pycache__"]
    for path in [*parts, *(ROOT / name for name in BESIDE)]:
        (PACKAGE / path.name).symlink_to(path)
    package = PACKAGE / "__init__.py"  # a package that imports one of its own packages confuses the static reader
    text = package.read_text("utf-8").replace("from dcp_tf import tflite\n", "pass\n")
    package.unlink()
    package.write_text(text, "utf-8")
    sys.path.insert(0, str(ROOT))


def on_page_markdown(markdown, **_):
    """Puts generated tables in place of `<!-- programs -->` and its like."""
    for name, make in (("programs", program_sections), ("flags", flag_tables), ("python", python_tables)):
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", make())
    return markdown


def on_page_content(html, **_):
    """Marks flags in the text, so that the style can keep them whole at the end of a line."""
    return re.sub(r"<code>(--[^<\s]{1,28})</code>", r'<code class="flag">\1</code>', html)


def programs():
    """The programs by name; no TensorFlow is imported."""
    names = importlib.import_module("dcp_tf.tools.__main__").PROGRAMS
    return {name: importlib.import_module(f"dcp_tf.tools.{name}").PROGRAM for name in names}


@functools.cache
def flags():
    """Every flag by name: the programs that have it, each with section, default and help."""
    found = {}
    for program in sorted(programs().values(), key=lambda program: program.name != "prune"):
        for section, names in program.sections:
            for name in names:
                flag = program.flags[name]
                about = re.sub(r"^<(.+)>: (.*)", lambda m: f"{m[2]} One of: {m[1].replace('|', ', ')}.", flag.help)
                found.setdefault(name, {})[program.name] = (section, _default(flag), about)
    return found


def program_sections():
    """A section for each program: its docstring, what --help prints, and all flags with links to the tables."""
    help_text = importlib.import_module("dcp_tf.tools.cli.help_text")
    texts = []
    for name, program in programs().items():
        lines = [f"## {name}", "", _as_markdown(program.about), ""]
        shown = f"```text\n{help_text.short(program)}\n```"
        lines += ['??? note "What --help prints"', "", textwrap.indent(shown, "    "), ""]
        lines += ['??? note "All flags"', ""]
        for section, names in program.sections:
            if names and section != "Flags":
                links = ", ".join(f"[`--{name}`](settings.md#flag-{name})" for name in names)
                lines.append(f"    * {section}: {links}")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def flag_tables():
    """A table for each section of flags; each flag stands in the first section that has it."""
    sections = {}
    for name, owners in flags().items():
        title = next(iter(owners.values()))[0]
        sections.setdefault("All programs" if title == "Flags" else title, []).append((name, owners))
    texts = []
    for title, rows in sections.items():
        lines = [f"### {title}", "", "| flag | default | |", "|---|---|---|"]
        lines += [_flag_row(name, owners) for name, owners in rows]
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _flag_row(name, owners):
    defaults, abouts = ({}, {})
    for program, (_, default, about) in owners.items():
        defaults.setdefault(default, []).append(program)
        abouts.setdefault(about, []).append(program)
    shown = _by_program(defaults, lambda value: f"`{value}`" if value else "none")
    about = _by_program(abouts, _escape)
    where = "all programs" if len(owners) == len(programs()) else ", ".join(owners)
    return f"| `--{name}`{{ #flag-{name} }} | {shown} | {about} *({where})* |"


def _by_program(values, show):
    """The value that most programs have, then those of the others behind their names."""
    first, *others = sorted(values, key=lambda value: -len(values[value]))
    return "<br>".join([show(first), *(f"{', '.join(values[other])}: {show(other)}" for other in others)])


def python_tables():
    """A table for each class of settings: its fields, their defaults, and the flags that set them."""
    from dcp_tf import settings
    from dcp_tf.settings.table import Settings, plain_text, rules

    texts = []
    for module in pkgutil.iter_modules(settings.__path__, f"{settings.__name__}."):
        for name, owner in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(owner) and issubclass(owner, Settings) and owner.__module__ == module.name
            fields = [f for f in dataclasses.fields(owner) if f.name in inspect.get_annotations(owner)] if own else []
            if not fields:
                continue
            lines = [f"### {name}", "", "| setting | default | flag | |", "|---|---|---|---|"]
            for field in fields:
                rule = rules(owner).get(field.name)
                if rule is not None:
                    flag = None if rule.python_only else rule.flag or field.name
                    link = f"[`--{flag}`](#flag-{flag})" if flag in flags() else "Python only"
                    default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
                    lines.append(f"| `{field.name}` | {default} | {link} | {_escape(plain_text(rule.about))} |")
            texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _default(flag):
    value = flag.default_as_str
    if flag.boolean:
        return "on" if flag.default is True else "off"
    return "" if value in (None, "''") else value.strip("'")


def _escape(text):
    """A help text inside of a table, with links from flags to their rows."""
    text = re.sub(r"([|*\\])", r"\\\1", html.escape(text, quote=False))
    known = flags()
    return re.sub(r"--(\w+)", lambda m: f"[`--{m[1]}`](#flag-{m[1]})" if m[1] in known else m[0], text)


def _as_markdown(about):
    """A program's docstring: indented commands become blocks of the shell."""
    paragraphs = inspect.cleandoc(about).split("\n\n")
    return "\n\n".join(
        f"```sh\n{inspect.cleandoc(text)}\n```" if text.startswith("    ") else html.escape(text, quote=False)
        for text in paragraphs
    )
