"""`--method` takes a criterion that the file of `--custom_objects` registers."""

import copy
import sys

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.pruning import METHODS
from dcp_tf.tools import compare, prune
from dcp_tf.tools.app.plain_keras import run_in_plain_keras
from dcp_tf.tools.cli import method_specs, pruning_flags

CODE = """
import dcp_tf

@dcp_tf.register_importance
class LastChannels(dcp_tf.Criterion):
    name = "last_channels"

    def score_channels(self, context, groups):
        return {group.name: range(group.size) for group in groups}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file; what it registers is forgotten at the end."""
    path = tmp_path / "criterion_of_a_test.py"
    path.write_text(CODE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(METHODS)
    yield path
    METHODS.clear()
    METHODS.update(before)


def parsed(program, *flags):
    values = copy.deepcopy(program.PROGRAM.flags)
    values([program.__name__, *flags])
    return values


def test_a_program_takes_it_by_name(file):
    flags = parsed(prune, "--method=last_channels", "--rate=0.25", f"--custom_objects={file}")
    method = pruning_flags.read_method(flags)
    assert (method.name, method.rate) == ("last_channels", 0.25)
    again = parsed(prune, "--method=last_channels", f"--custom_objects={file}")
    assert type(pruning_flags.read_method(again)) is type(method) is METHODS["last_channels"]


def test_a_comparison_takes_it_with_options(file):
    flags = parsed(compare, f"--custom_objects={file}")
    plain, updated = method_specs.read_variants(["last_channels", "last_channels:update"], flags)
    assert (plain.method.update, updated.method.update) == (False, True)


@pytest.fixture
def twice(file, tmp_path):
    """A model with a layer that the file defines beside the criterion."""
    layer = "import keras\n\n@dcp_tf.register_rule(keras.layers.Layer)\ndef rule(call):\n    return call.inputs[0]\n"
    layer += "\nclass Twice(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n"
    file.write_text(CODE + layer)
    names = {"dcp_tf": dcp_tf, "keras": keras}
    exec(layer.replace("@dcp_tf.register_rule(keras.layers.Layer)", ""), names)
    image = keras.Input((3,))
    keras.Model(image, names["Twice"]()(image)).save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_the_file_loads_beside_layers_in_plain_keras(file, twice):
    outputs = run_in_plain_keras(np.ones((2, 3), "float32"), [twice], str(file))
    np.testing.assert_array_equal(outputs[0][0], np.full((2, 3), 2.0))


@pytest.mark.slow
def test_without_the_file_its_layers_are_unknown_in_plain_keras(twice):
    assert run_in_plain_keras(np.ones((2, 3)), [twice])[0].startswith("TypeError")


def test_without_its_file_the_name_is_unknown(file):
    for flags in ([], [f"--custom_objects={file.with_name('other.py')}"]):
        with pytest.raises(UsageError, match=r"unknown method 'last_channels'; choose among dcp, |no Python file"):
            pruning_flags.read_method(parsed(prune, "--method=last_channels", *flags))
