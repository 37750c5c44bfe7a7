"""What editors and type checkers see of the package, and what is printed of its values."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
from keras import layers

import dcp_tf

ROOT = pathlib.Path(dcp_tf.__file__).parent
CHECKOUT = pathlib.Path(__file__).parents[1]


def test_no_module_hides_a_public_name_from_type_checkers():
    code = ast.parse((ROOT / "__init__.py").read_text())
    imports = [
        node for node in ast.walk(code) if isinstance(node, ast.ImportFrom) and node.module.startswith("dcp_tf.")
    ]
    names = [(node.module, alias.name) for node in imports for alias in node.names]
    assert ("dcp_tf.pruning.prune", "prune") in names
    for module, name in names:
        package = importlib.util.find_spec(module).submodule_search_locations is not None
        assert not (package and importlib.util.find_spec(f"{module}.{name}")), f"{module}.{name} is a module"
    assert {name for _, name in names} | {"tflite"} >= set(dcp_tf.__all__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "py.typed").is_file()
    assert re.search(r'"dcp_tf": \["py\.typed"\]', (CHECKOUT / "setup.py").read_text())


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
    command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path / 'lib'}"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    built = {str(path.relative_to(tmp_path / "lib")) for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    assert {"dcp_tf/py.typed", "dcp_tf/__main__.py", "dcp_tf/tools/__main__.py", "dcp_tf/report/page.html"} <= built
