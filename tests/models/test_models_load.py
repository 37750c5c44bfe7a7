import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras import layers

from dcp_tf import data, models
from dcp_tf.errors import UsageError


@keras.saving.register_keras_serializable("test_models_load")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@keras.saving.register_keras_serializable("test_models_load")
class Rectified(Subclassed):
    def call(self, inputs):
        return tf.nn.relu(self.dense(inputs))


class Doubling(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


def small(*more, classes=3):
    x = inputs = keras.Input((6, 6, 1))
    for layer in (*more, layers.Flatten(), layers.Dense(classes)):
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_comes_back(tmp_path, suffix):
    model, path = small(layers.Conv2D(2, 3)), str(tmp_path / f"model{suffix}")
    model.save(path)
    loaded = models.load(path)
    assert (loaded.normalization, loaded.source) == ("none", path)
    images = np.ones((2, 6, 6, 1), np.float32)
    np.testing.assert_allclose(loaded.model(images), model(images), rtol=1e-6)


def test_wishes_that_a_file_cannot_meet_are_refused(tmp_path):
    path = str(tmp_path / "model.keras")
    small().save(path)
    assert models.load(path, input_shape=(6, 6, 1), num_classes=3).model.output_shape == (None, 3)
    with pytest.raises(UsageError, match=r"takes inputs of shape \(6, 6, 1\), not \(8, 8, 1\)"):
        models.load(path, input_shape=(8, 8, 1))
    with pytest.raises(UsageError, match="has 3 outputs, not 10"):
        models.load(path, num_classes=10)
    with pytest.raises(UsageError, match="its own weights"):
        models.load(path, weights="imagenet")
    small(classes=1).save(path)
    models.load(path, num_classes=2)


def bad_files(folder):
    """Writes files that are no usable models: {name: what the error says}."""
    small().save(folder / "whole.keras")
    whole = (folder / "whole.keras").read_bytes()
    (folder / "text.keras").write_text("hello")
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "text.h5").write_text("hello")
    (folder / "model.pb").write_text("hello")
    (folder / "saved_model").mkdir()
    small(Doubling()).save(folder / "custom.keras")
    small(Doubling()).save(folder / "custom.h5")
    small(layers.Lambda(lambda x: x + 1, output_shape=(6, 6, 1))).save(folder / "lambda.keras")
    old = tf_keras.Sequential([tf_keras.Input((6, 6, 1)), tf_keras.layers.LocallyConnected2D(2, 3, name="local")])
    old.save(folder / "keras2.h5")
    old.save(folder / "keras2.keras")
    small().save_weights(folder / "only.weights.h5")
    subclassed = Rectified()
    subclassed(np.ones((1, 4), np.float32))
    subclassed.save(folder / "subclassed.keras")
    keras.Sequential([layers.Dense(3)]).save(folder / "unbuilt.keras")
    return {
        "missing.keras": "no model file .*missing.keras",
        "text.keras": "is no .keras file, or a damaged one",
        "cut.keras": "is no .keras file, or a damaged one",
        "text.h5": "is no .h5 file",
        "model.pb": "expected .keras or .h5",
        "saved_model": "is a folder",
        "custom.keras": "does not know the custom object 'Doubling': custom_objects=FILE.py .* in Python, give",
        "custom.h5": "does not know the custom object 'Doubling'",
        "lambda.keras": "cannot be loaded: it holds a Lambda layer",
        "keras2.h5": r"'local' \(LocallyConnected2D\)",
        "keras2.keras": r"'local' \(LocallyConnected2D\)",
        "only.weights.h5": "weights alone",
        "subclassed.keras": r"Rectified cannot be retraced: .*test_models_load.py:\d+: .* use keras.ops.relu",
        "unbuilt.keras": "has no input shape yet",
    }


def test_files_that_are_no_usable_models_get_one_clear_line(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(UsageError, match=message) as raised:
            models.load(str(tmp_path / name))
        assert "\n" not in str(raised.value), name
        assert len(str(raised.value)) < 500, name


def test_subclassed_models_in_files_are_retraced(tmp_path, capsys):
    subclassed, images = Subclassed(), np.ones((1, 4), np.float32)
    expected = subclassed(images)
    subclassed.save(tmp_path / "subclassed.keras")
    loaded = models.load(str(tmp_path / "subclassed.keras"), num_classes=3).model
    assert [type(layer).__name__ for layer in loaded.layers] == ["InputLayer", "Dense"]
    np.testing.assert_allclose(loaded(images), expected, rtol=1e-6)
    assert "holds the subclassed model Subclassed; its call was retraced" in capsys.readouterr().err


def test_subclassed_models_are_refused_by_name():
    with pytest.raises(UsageError, match=r"Subclassed is a subclassed model.* try dcp_tf.to_functional\(model"):
        models.check_functional(Subclassed())
    with pytest.raises(UsageError, match=r"expected a Keras 3 model, received builtins\.str"):
        models.check_functional("model.keras")


def test_a_functional_subclass_is_taken_unless_it_calls_something_else():
    class OwnTrainStep(keras.Model):
        def train_step(self, data):
            return {}

    class OwnCall(keras.Model):
        def call(self, inputs):
            return self.layers[-1](inputs) * 2

    inputs = keras.Input((4,))
    outputs = layers.Dense(3)(inputs)
    model = OwnTrainStep(inputs, outputs)
    assert models.check_functional(model) is model
    with pytest.raises(UsageError, match="OwnCall is a subclassed model"):
        models.check_functional(OwnCall(inputs, outputs))


def test_unbuilt_sequential_models_are_built_where_the_shape_is_known():
    model = keras.Sequential([layers.Flatten(), layers.Dense(3)])
    with pytest.raises(UsageError, match="no input shape"):
        models.check_functional(model)
    assert models.check_functional(model, (6, 6, 1)).output_shape == (None, 3)
    assert models.check_functional(model) is model
    with pytest.raises(UsageError, match="no input shape"):
        models.check_functional(keras.Sequential([]), (6, 6, 1))
    with pytest.raises(UsageError, match="cannot take"):
        models.check_functional(keras.Sequential([layers.Conv2D(2, 9)]), (6, 6, 1))


@pytest.mark.parametrize(("shape", "normalization"), [((8, 8, 1), "digits"), ((16, 16, 3), "cifar10")])
def test_zoo_networks_bring_their_normalization(shape, normalization):
    loaded = models.load("zoo:preresnet8", input_shape=shape, num_classes=4)
    assert loaded.normalization == normalization
    assert (loaded.model.input_shape, loaded.model.output_shape) == ((None, *shape), (None, 4))


@pytest.mark.parametrize(
    ("name", "normalization"), [("resnet18", "imagenet"), ("spherenet4", "face"), ("vgg16_cifar", "cifar10")]
)
def test_zoo_networks_bring_the_normalization_of_their_data_set(name, normalization):
    assert models.load(f"zoo:{name}", input_shape=(32, 32, 3)).normalization == normalization
    assert data.find_normalization(normalization)


def test_zoo_weights(tmp_path):
    trained = models.build("preresnet8", (8, 8, 1))
    path = str(tmp_path / "trained.weights.h5")
    trained.save_weights(path)
    loaded = models.load("zoo:preresnet8", weights=path, input_shape=(8, 8, 1)).model
    np.testing.assert_array_equal(loaded.get_layer("stem_conv").kernel, trained.get_layer("stem_conv").kernel)
    with pytest.raises(UsageError, match="do not fit preresnet14"):
        models.load("zoo:preresnet14", weights=path, input_shape=(8, 8, 1))
    with pytest.raises(UsageError, match="no weights file"):
        models.load("zoo:preresnet8", weights="none.weights.h5", input_shape=(8, 8, 1))


def test_every_network_of_keras_applications_has_a_normalization():
    public = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(models.APPLICATIONS) == public


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ResNet50", "resnet"),
        ("VGG16", "vgg16"),
        ("DenseNet121", "densenet"),
        ("MobileNetV2", "mobilenet_v2"),
        ("Xception", "xception"),
        ("ResNet50V2", "resnet_v2"),
        ("NASNetMobile", "nasnet"),
        ("EfficientNetB0", "efficientnet"),
        ("EfficientNetV2S", "efficientnet_v2"),
        ("MobileNetV3Small", "mobilenet_v3"),
        ("ConvNeXtTiny", "convnext"),
    ],
)
def test_the_normalization_of_a_network_is_the_one_that_keras_applies(name, module):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(pixels.copy())
    got = data.find_normalization(models.APPLICATIONS[name]).apply(pixels, white=255.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_network_of_keras_applications():
    loaded = models.load("keras:MobileNet", input_shape=(32, 32, 3), num_classes=5)
    assert (loaded.normalization, loaded.model.output_shape) == ("tf", (None, 5))
    assert models.outputs_kind(loaded.model) == "softmax"


def test_networks_that_leave_their_size_open_get_one():
    assert models.load("keras:MobileNetV3Small").model.input_shape == (None, 224, 224, 3)


@pytest.mark.parametrize(
    ("spec", "kwargs", "message"),
    [
        ("keras:MobileNetV9", {}, "no network 'MobileNetV9'.*MobileNetV2"),
        ("keras:MobileNet", {"weights": "imagenet", "num_classes": 10}, "has 1000 classes, not 10"),
        ("keras:MobileNet", {"weights": "none.h5"}, "no weights file none.h5"),
        ("keras:MobileNet", {"input_shape": (8, 8, 3)}, "cannot be built so.*at least 32x32"),
        ("zoo:nothing", {}, "unknown network 'nothing'"),
        ("resnet50", {}, "no model file resnet50; give a path, zoo:NAME or keras:NAME"),
        ("", {}, "model"),
    ],
)
def test_models_that_are_not_there_are_refused(spec, kwargs, message):
    with pytest.raises(UsageError, match=message):
        models.load(spec, **kwargs)


def test_a_download_that_fails_says_so(monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org/weights.h5: None -- no network")

    monkeypatch.setattr(keras.applications, "MobileNet", fail)
    with pytest.raises(UsageError, match=r"cannot be downloaded.*where there is a network"):
        models.load("keras:MobileNet", weights="imagenet")
