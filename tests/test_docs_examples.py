"""The examples of README.md and the site run: all blocks of Python behind `<!-- run -->`, a page in one namespace.

`<!-- run: slow -->` marks blocks that take long, `<!-- run: shared -->` the one whose names all pages use.
"""

import ast
import importlib
import json
import pathlib
import re
import shutil
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = [ROOT / "README.md", *(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions")]
BLOCK = re.compile(r"^<!-- run(?:: (\w+))? -->\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGES = ("graph", "pruning", "training", "data", "models", "evaluation", "report", "tflite")


def blocks(page):
    """(kind, first line, code) of each block that runs."""
    text = page.read_text("utf-8")
    return [(m[1], text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text)]


def run_block(page, line, code, names):
    exec(compile("\n" * line + code, str(page), "exec"), names)


def pages_with(slow):
    found = {page: {kind for kind, _, _ in blocks(page)} for page in PAGES}
    return [
        page for page, kinds in sorted(found.items()) if (("slow" in kinds) if slow else kinds - {"slow", "shared"})
    ]


@pytest.fixture(scope="module")
def shared():
    names = {"__name__": "example"}
    (only,) = [(page, line, code) for page in PAGES for kind, line, code in blocks(page) if kind == "shared"]
    run_block(*only, names)
    return names


@pytest.fixture(autouse=True)
def own_criteria(monkeypatch):
    """What a page registers is gone after it, and weights are recovered briefly."""
    from dcp_tf.pruning import METHODS

    monkeypatch.setattr("dcp_tf.pruning.recovery.block_outputs._LEAST_STEPS", 12)
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def names(shared, tmp_path, monkeypatch):
    """The shared names with a model of the page's own, in a folder with it, a finished run and a comparison."""
    monkeypatch.chdir(tmp_path)
    for name, saved in (("mine", "finished"), ("compare", "compared")):
        shutil.copytree(ROOT / "tests" / "saved_runs" / saved, tmp_path / "runs" / name)
    model = keras.models.clone_model(shared["model"])
    model.set_weights(shared["model"].get_weights())
    model.compile_from_config(shared["model"].get_compile_config())
    model.save("my_model.keras")
    model.save("my_model.keras")
    return {**shared, "model": model}


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A fake adb on PATH, and its `benchmark_model`."""
    android = ROOT / "tests" / "tflite" / "android"
    monkeypatch.syspath_prepend(str(android))
    logs = importlib.import_module("android_logs")
    adb = tmp_path / "bin" / "adb"
    adb.parent.mkdir()
    adb.write_text(f"#!{sys.executable}\n{(android / 'fake_adb.py').read_text()}")
    adb.chmod(0o755)
    (tmp_path / "benchmark_model").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00" + bytes(44))
    log = logs.HEAD + logs.CPU + logs.measured(123456789).replace("123456789", "{us}")
    scenario = {
        "devices": {"A1": "device"},
        "logs": {"--use_xnnpack": log},
        "microseconds": {},
        "profile": logs.PROFILE,
    }
    (adb.parent / "scenario.json").write_text(json.dumps(scenario))
    monkeypatch.setenv("PATH", str(adb.parent), prepend=":")


@pytest.mark.parametrize("page", pages_with(slow=False), ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, names, phone):
    for kind, line, code in blocks(page):
        if kind not in ("slow", "shared"):
            run_block(page, line, code, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(slow=True), ids=lambda page: page.stem)
def test_all_examples_of_a_page_run(page, names, phone):
    for kind, line, code in blocks(page):
        if kind != "shared":
            run_block(page, line, code, names)


@pytest.mark.slow
def test_the_figures_are_drawn_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    importlib.import_module("figures").draw_all(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "assets").glob("*.svg")} & drawn
    assert len(drawn) == 6


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_every_public_name_is_documented_and_in_an_example_that_runs(package):
    page = REFERENCE / "api" / f"{package}.md" if package else REFERENCE / "api.md"
    module = importlib.import_module(f"dcp_tf.{package}".rstrip("."))
    above = set(importlib.import_module("dcp_tf").__all__) if package else set()
    public = set(module.__all__) - above
    text = page.read_text("utf-8")
    # A module may have the name of its function, which the static reader finds inside of it then.
    documented = set(re.findall(rf"^::: {re.escape(module.__name__)}\.(?:\w+\.)?(\w+)$", text, re.MULTILINE))
    assert public - documented == set()
    used = set()
    for _, _, code in blocks(page):
        for node in ast.walk(ast.parse(code)):
            used |= {getattr(node, "id", ""), getattr(node, "attr", "")}
    assert public - used == set()
