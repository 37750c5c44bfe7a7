"""Model files that need code of the user's own: from a Python file, and code that the file holds itself."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dcp_tf import models
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, copy_model
from dcp_tf.models.custom_objects import import_custom_objects, unknown_names

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
BLOCKS = """
import keras
class Block(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
    def call(self, x):
        return x * self.scale
"""


@pytest.fixture(autouse=True)
def as_in_a_new_process():
    registry, modules = keras.saving.get_custom_objects(), set(sys.modules)
    before = dict(registry)
    yield
    for name in set(registry) - set(before):
        del registry[name]
    for name in set(sys.modules) - modules:
        if not name.partition(".")[0].startswith(("keras", "tensorflow", "tf_keras")):
            del sys.modules[name]


def model_of(*front):
    return keras.Sequential([keras.Input((8, 8, 3)), *front, layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])


def forget(*names):
    for name in names:
        keras.saving.get_custom_objects().pop(name, None)
        keras.saving.get_custom_objects().pop(f"Custom>{name}", None)


@pytest.mark.parametrize(
    "imports", ["import blocks_beside", "from blocks_beside import Block", "from .blocks_beside import *"]
)
def test_what_lies_beside_the_file_can_be_imported(imports, tmp_path):
    (tmp_path / "blocks_beside.py").write_text(BLOCKS)
    file = tmp_path / "my_objects.py"
    file.write_text(f"{imports}\nimport json\ndef helper(x):\n    return x\n")
    found = import_custom_objects(str(file))
    assert "helper" in found
    assert ("Block" in found) == (imports != "import blocks_beside")
    assert not any(name.startswith("JSON") for name in found)


def test_classes_that_were_registered_in_a_package_are_found_without_it(tmp_path):
    file = tmp_path / "plain_blocks.py"
    file.write_text(BLOCKS)
    block = import_custom_objects(str(file))["Block"]
    keras.saving.register_keras_serializable("my_package")(block)
    model = model_of(block())
    model.save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("my_package>Block")
    del sys.modules["plain_blocks"]
    forget("Block")
    with pytest.raises(UsageError, match="does not know the custom object 'Block'"):
        models.load(str(tmp_path / "model.keras"))
    loaded = models.load(str(tmp_path / "model.keras"), custom_objects=str(file)).model
    np.testing.assert_array_equal(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)))


LAMBDAS = {
    "a factor": lambda x: x / 255.0,
    "with tf": lambda x: tf.image.resize(x, (4, 4)),
    "with keras": lambda x: keras.ops.relu(x),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", LAMBDAS)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_lambda_layers_load_where_their_code_may_run(kind, suffix, tmp_path, monkeypatch):
    from keras.src.utils import python_utils

    monkeypatch.delattr(python_utils, "tf", raising=False)
    monkeypatch.delattr(python_utils, "keras", raising=False)
    model = model_of(layers.Lambda(LAMBDAS[kind], name="code"))
    path = str(tmp_path / f"model{suffix}")
    model.save(path)
    with pytest.raises(UsageError, match="without allow_lambda=True"):
        models.load(path)
    if kind != "a factor":
        with pytest.raises(UsageError, match=r"no model file stores: custom_objects=FILE\.py with the imports"):
            models.load(path, allow_lambda=True)
    (tmp_path / "imports_for_lambdas.py").write_text("import tensorflow as tf\nimport keras\n")
    file = str(tmp_path / "imports_for_lambdas.py")
    loaded = models.load(path, allow_lambda=True, custom_objects=file).model
    np.testing.assert_array_equal(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)))
    copy = copy_model(ChannelGraph(loaded))
    np.testing.assert_array_equal(np.asarray(copy(IMAGES)), np.asarray(model(IMAGES)))


def test_unknown_names_are_those_of_no_module():
    assert unknown_names(layers.Lambda(lambda x: np.abs(len(x)))) == []
    assert unknown_names(layers.Lambda(lambda x: not_there.image(x))) == ["not_there"]  # noqa: F821
    assert unknown_names(layers.Lambda(np.abs)) == []
