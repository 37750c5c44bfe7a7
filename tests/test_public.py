"""What editors and type checkers see of the package, and what is printed of its values."""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf

ROOT = pathlib.Path(dcp_tf.__file__).parent
CHECKOUT = pathlib.Path(__file__).parents[1]
USER = """
from typing import assert_type

import numpy as np

import dcp_tf
from dcp_tf import DCP, Cost, ExportResult, Pruner, PruneResult, PruningPlan, TrainConfig, export, prune, tflite


def shrink(model: object, images: np.ndarray, labels: np.ndarray) -> None:
    config = TrainConfig(epochs=3, learning_rate=0.01)
    result = prune(model, (images, labels), DCP(rate=0.5), finetuning=config)
    assert_type(result, PruneResult)
    assert_type(PruningPlan.load("plan.json"), PruningPlan)
    assert_type(dcp_tf.pruning.prune(model, (images, labels), result.plan), PruneResult)
    assert_type(dcp_tf.count_cost(model), Cost)
    assert_type(export(result.model, "files", ["float32"]), ExportResult)
    assert_type(tflite.convert(result.model).content, bytes)
    Pruner(model, "dcp", rate=0.5)
    TrainConfig(epoch=3)  # wrong
    prune(model, (images, labels), 0.5)  # wrong
    prune(model, (images, labels), DCP(), finetunning=config)  # wrong
    DCP(ratio=0.5)  # wrong
    dcp_tf.prunee  # wrong
"""


def build(folder):
    """The package as it is installed."""
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={folder}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def bare_environment():
    """The environment without what chooses Keras' backend."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    environment.pop("KERAS_BACKEND", None)
    return environment


def test_no_module_hides_a_public_name_from_type_checkers():
    code = ast.parse((ROOT / "__init__.py").read_text())
    imports = [
        node for node in ast.walk(code) if isinstance(node, ast.ImportFrom) and node.module.startswith("dcp_tf.")
    ]
    names = [(node.module, alias.name) for node in imports for alias in node.names]
    assert ("dcp_tf.pruning", "prune") in names
    for module, name in names:
        package = importlib.util.find_spec(module).submodule_search_locations is not None
        assert not (package and importlib.util.find_spec(f"{module}.{name}")), f"{module}.{name} is a module"
    assert {name for _, name in names} | {"tflite"} >= set(dcp_tf.__all__)


def test_mypy_knows_what_the_public_functions_take_and_give(tmp_path):
    pytest.importorskip("mypy")
    build(tmp_path / "lib")
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(tmp_path / "lib")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    expected = [number for number, line in enumerate(USER.splitlines(), 1) if line.endswith("# wrong")]
    assert [int(number) for number in re.findall(r"^user\.py:(\d+): error", done.stdout, re.MULTILINE)] == expected
    assert len(expected) == 5


@pytest.mark.parametrize(
    ("before", "backend"),
    [("import os; os.environ['KERAS_BACKEND'] = 'jax'", "'jax'"), ("import keras; keras.config.backend = str", "''")],
)
def test_another_backend_is_one_line_that_says_what_to_do(before, backend):
    code = f"{before}\nimport dcp_tf\ntry:\n dcp_tf.prune\nexcept dcp_tf.UsageError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare_environment())
    (line,) = done.stdout.splitlines()
    assert f"here it is {backend}: set the environment variable KERAS_BACKEND=tensorflow" in line


def test_importing_sets_the_backend_only_where_keras_is_not_loaded_yet():
    for loaded, expected in ((True, "None"), (False, "tensorflow")):
        code = "import sys, types, os\n" + "sys.modules['keras'] = types.ModuleType('keras')\n" * loaded
        code += "import dcp_tf; print(os.environ.get('KERAS_BACKEND'))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=bare_environment())
        assert done.stdout.strip() == expected


def test_values_print_in_a_line():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, activation="relu")(layers.Conv2D(32, 3, activation="relu")(image))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)), name="chain")
    data = np.random.default_rng(0).random((32, 8, 8, 3)).astype("float32"), np.arange(32) % 4
    none = dcp_tf.TrainConfig(epochs=0)
    result = dcp_tf.prune(model, data, dcp_tf.L1(rate=0.5), validation_data=data, finetuning=none)
    cost = dcp_tf.count_cost(model)
    assert f"{cost.macs:,} MACs" in repr(cost)
    assert "2 groups keep 32 of 64 channels" in repr(result.plan)
    assert "16 of 32" in repr(result.plan.groups[0])
    assert repr(result.plan) in repr(result)
    assert "top1" in repr(result)
    for value in (cost, result, result.plan, result.plan.groups[0]):
        assert len(str(value)) < 250
        assert "\n" not in str(value)


def test_a_build_holds_nothing_of_an_earlier_one(tmp_path):
    stale = tmp_path / "lib" / "dcp_tf" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    build(tmp_path / "lib")
    assert not stale.exists()
    built = {str(path.relative_to(tmp_path / "lib")) for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    assert {"dcp_tf/py.typed", "dcp_tf/__main__.py", "dcp_tf/tools/__main__.py", "dcp_tf/report/page.html"} <= built
