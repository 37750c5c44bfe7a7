"""The notebooks in examples/: kept with their outputs, small, and running from end to end."""

import json
import os
import pathlib
import re
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MOST_BYTES = 300_000


def code_cells(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}  # no error
    assert all("".join(output.get("data", {}).get("text/html", "-")) for output in outputs)  # no bar that went away
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 3
    assert path.stat().st_size < MOST_BYTES


def test_the_readme_names_all():
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    assert set(re.findall(r"\((\w+\.ipynb)\)", readme)) == {path.name for path in NOTEBOOKS}
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="pip install '.[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install '.[notebook]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": tmp_path}}).execute()
    assert list((tmp_path / "runs").rglob("*_int8.tflite"))
