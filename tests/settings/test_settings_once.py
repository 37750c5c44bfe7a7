"""A setting is stated once: no default, no list of choices and no help text of it stands anywhere else in the code."""

import ast
import dataclasses
import importlib
import pathlib
import re

import pytest

from dcp_tf import settings
from dcp_tf.settings.data import AUGMENTATIONS, LOSSES, MARGINS, PROTOCOLS, STRATEGIES
from dcp_tf.settings.importance import Choice
from dcp_tf.settings.selection import Search
from dcp_tf.settings.table import Settings, rules
from dcp_tf.tools.__main__ import PROGRAMS
from dcp_tf.tools.cli.program import FLAG_OF

ROOT = pathlib.Path(__file__).resolve().parents[2]
for _path in pathlib.Path(settings.__file__).parent.glob("[a-z]*.py"):
    importlib.import_module(f"dcp_tf.settings.{_path.stem}")
TABLES = [table for table in Settings.__subclasses__() if table.__module__.startswith("dcp_tf.settings")]
TABLES += [deeper for table in TABLES for deeper in table.__subclasses__() if deeper.__module__ == table.__module__]
FLAGS = {name: set(importlib.import_module(f"dcp_tf.tools.{name}").PROGRAM.flags) for name in PROGRAMS}
FIELDS = [(table, field) for table in TABLES for field in dataclasses.fields(table) if "rule" in field.metadata]
# Numbers and texts that say something; 0, 1, True and the like stand everywhere.
DEFAULTS = {
    (name, field.default)
    for _, field in FIELDS
    for name in (field.name, field.metadata["rule"].flag)
    if isinstance(field.default, float | int | str) and field.default not in (0, 1)
}
CHOICES = [frozenset(field.metadata["rule"].choices) for _, field in FIELDS]
CHOICES += [frozenset(names) for names in (AUGMENTATIONS, LOSSES, MARGINS, PROTOCOLS, STRATEGIES)]
HELP = [field.metadata["rule"].about for _, field in FIELDS]


def texts(node):
    """The texts that a literal collection, or the keys of a literal mapping, consists of; None for all else."""
    elements = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", None)
    if elements is None:
        return None
    inner = [texts(e.value) if isinstance(e, ast.Starred) else getattr(e, "value", None) for e in elements]
    flat = [text for value in inner for text in (value if isinstance(value, list) else [value])]
    return flat if all(isinstance(text, str) for text in flat) else None


def default_values(node):
    """Pairs of a name and the literal that it has by default: in a function, a class, or a flag defined by hand."""
    pairs = []
    if isinstance(node, ast.FunctionDef):
        names, given = [*node.args.posonlyargs, *node.args.args], node.args.defaults
        pairs = [*zip(names[len(names) - len(given) :], given, strict=True)]
        pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        pairs = [(argument.arg, value) for argument, value in pairs]
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        pairs = [(node.target.id, node.value)]
    elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[0], ast.Constant):
        pairs = [(node.args[0].value, node.args[1])]
    return [(name, value.value) for name, value in pairs if isinstance(value, ast.Constant)]


def repeated(code):
    """Lines that state again what a setting states."""
    for node in ast.walk(ast.parse(code)):
        words = texts(node)
        if words and len(words) > 1 and frozenset(words) in CHOICES and not isinstance(node, ast.Dict):
            yield f"line {node.lineno}: choices {words}"
        for pair in default_values(node):
            if pair in DEFAULTS:
                yield f"line {node.lineno}: the default {pair}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (f"line {node.lineno}: help {text!r}" for text in HELP if len(text) > 30 and text in node.value)


@pytest.mark.parametrize("folder", ["dcp_tf", "tools", "tflite", "experiments"])
def test_nothing_is_stated_again(folder):
    files = [path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "settings"]
    assert files
    again = [f"{path.relative_to(ROOT)} {line}" for path in files for line in repeated(path.read_text("utf-8"))]
    assert not again


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("def f(round_to: int = 16): pass", 1),
        ("class A:\n    selection: str = 'fast'", 1),
        ('program.integer("selection_samples", 4096, "Images.")', 1),
        ('SCHEDULES = ("cosine", "step", "constant")', 1),
        ('LOSSES = ["auto", "softmax", "sigmoid", "multilabel", "mse", "arcface", "cosface", "asoftmax"]', 1),
        ('help = "Fewest channels that a group keeps, at least."', 0),
        ('help = "Largest: Share of the labels that is spread over all classes, such as 0.1."', 1),
        ("def f(round_to: int = 8, seed: int = 0): pass", 0),
    ],
)
def test_what_is_stated_again_is_found(code, count):
    assert len(list(repeated(code))) == count


@pytest.mark.parametrize(("table", "field"), FIELDS, ids=lambda value: getattr(value, "__name__", None) or value.name)
def test_every_setting_has_help_and_one_flag_or_a_reason_why_it_has_none(table, field):
    rule = field.metadata["rule"]
    assert rule.about
    if rule.python_only is not None:
        assert len(rule.python_only) > 10
        assert table.PART + field.name not in FLAG_OF
    elif field.name == "target":
        assert {"target_macs", "target_params", "target_bytes"} <= FLAGS["prune"]
    else:
        flag = FLAG_OF[table.PART + field.name]
        assert flag == (rule.flag or field.name)
        assert any(flag in flags for flags in FLAGS.values())


def messages(code):
    """The texts of a module, f-strings in one piece, without docstrings."""
    tree = ast.parse(code)
    skipped = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(part.value for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


@pytest.mark.parametrize("folder", ["dcp_tf", "tflite"])
def test_the_library_names_settings_and_no_flags(folder):
    # What names the program, or a command of TensorFlow Datasets, is meant for the command line.
    commands = re.compile(rf"\b({'|'.join(PROGRAMS)}|tfds|dcp-tf)\b")
    flags = set().union(*FLAGS.values())
    named = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in (ROOT / folder).rglob("*.py")
        for text in messages(path.read_text("utf-8"))
        if not commands.search(text) and flags & set(re.findall(r"(?<![\w-])--(\w+)", text))
    ]
    assert not named


def test_the_names_are_those_that_the_library_knows():
    from dcp_tf import pruning
    from dcp_tf.data.faces import pair_lists
    from dcp_tf.pruning.problem import scores
    from dcp_tf.training import embeddings

    words = re.split(r"\W+", rules(Choice)["method"].about)
    assert set(pruning.METHODS) <= set(words)
    assert set(rules(Search)["score"].choices) == set(scores.SCORES)
    assert set(PROTOCOLS) == set(pair_lists.PROTOCOLS)
    assert set(MARGINS) == set(embeddings.MARGINS)
