"""Keras 3 models rebuilt in tf_keras compute the same and hold the same weights."""

import os

import keras
import numpy as np
import pytest
from keras import layers, ops
from tflite_models import NETWORKS, SIZE, images, settle

from dcp_tf.errors import UsageError
from dcp_tf.models.zoo import build
from dcp_tf.tflite.qat.bridge import copy_back, to_tf_keras

TOLERANCE = 1e-5


def error(model, bridged, count=8):
    inputs = images(count, model.inputs[0].shape[1])[..., : model.inputs[0].shape[-1]]
    expected, found = np.asarray(model(inputs, training=False)), np.asarray(bridged(inputs, training=False))
    return np.abs(expected - found).max() / np.abs(expected).max()


def assert_equal(model):
    bridged = to_tf_keras(model)
    assert error(model, bridged) < TOLERANCE
    assert bridged.count_params() == model.count_params() - sum(
        layer.count_params() for layer in model.layers if isinstance(layer, layers.Normalization)
    )
    return bridged


def with_head(make, shape=(SIZE, SIZE, 3)):
    """A model around one layer or function."""
    image = keras.Input(shape)
    x = make(layers.Conv2D(8, 3, padding="same", name="first")(image))
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return settle(keras.Model(image, layers.Dense(4, name="last")(x)))


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks(name):
    assert_equal(NETWORKS[name]())


@pytest.mark.parametrize("name", ["preresnet20", "resnet20", "mobilenet_v1_cifar", "mobilenet_v2_small", "spherenet4"])
def test_networks_of_the_zoo(name):
    face = name == "spherenet4"
    model = build(name, (32, 32, 3), None if face else 10)
    assert_equal(settle(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2", "VGG16", "DenseNet121"),
        *("EfficientNetB0", "EfficientNetV2B0", "InceptionV3", "Xception", "NASNetMobile", "InceptionResNetV2"),
    ],
)
def test_networks_of_keras(name):
    assert_equal(settle(getattr(keras.applications, name)(weights=None, classes=10, input_shape=(96, 96, 3))))


LAYERS = {
    "depthwise with two": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x),
    "groups, dilated": lambda x: layers.Conv2D(8, 3, groups=2, dilation_rate=2)(x),
    "transposed": lambda x: layers.Conv2DTranspose(4, 3, strides=2, output_padding=1, padding="same")(x),
    "separable": lambda x: layers.SeparableConv2D(6, 3, strides=2, padding="same")(x),
    "bilinear": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "resizing": lambda x: layers.Resizing(7, 9)(x),
    "normalization": lambda x: layers.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)(x),
    "rescaling by channel": lambda x: layers.Rescaling(list(range(1, 9)), 0.5)(x),
    "relu with a slope": lambda x: layers.ReLU(3.0, negative_slope=0.1, threshold=0.2)(x),
    "leaky": lambda x: layers.LeakyReLU(0.3)(x),
    "prelu": lambda x: layers.PReLU(shared_axes=[1, 2])(x),
    "norm without scale": lambda x: layers.BatchNormalization(scale=False, epsilon=0.1)(x),
    "layer norm": lambda x: layers.LayerNormalization()(x),
    "kept axes": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "padding": lambda x: layers.ZeroPadding2D(((1, 0), (2, 3)))(x),
    "average of three": lambda x: layers.Average()([x, x * 2.0, x + 1.0]),
    "strided slice and pad": lambda x: ops.pad(x[:, ::2, ::2, :], [[0, 0], [0, 0], [0, 0], [2, 2]]),
    "split": lambda x: layers.Concatenate()(ops.split(x, 2, axis=-1)[::-1]),
    "arithmetic": lambda x: ops.relu6((x - 1.0) / 3.0) * ops.mean(x, axis=(1, 2), keepdims=True),
    "max and min": lambda x: ops.minimum(ops.maximum(x, -0.5), 0.5),
    "lambda": lambda x: layers.Lambda(lambda t: t * t)(x),
    "dense over channels": lambda x: layers.Dense(5, activation="tanh")(x),
}
ACTIVATIONS = ("hard_sigmoid", "hard_silu", "silu", "gelu", "elu", "selu", "softplus", "mish", "relu6", "softmax")


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_operations(name):
    assert_equal(with_head(LAYERS[name]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    assert_equal(with_head(lambda x: layers.Activation(name)(layers.Conv2D(4, 1, activation=name)(x))))


def test_shared_layers_stay_shared():
    conv = layers.Conv2D(8, 3, padding="same", name="shared")
    bridged = assert_equal(with_head(lambda x: conv(layers.ReLU()(conv(x)))))
    assert sum(layer.name == "shared" for layer in bridged.layers) == 1


def test_a_nested_model_that_is_called_twice():
    inner_input = keras.Input((SIZE, SIZE, 8))
    inner = keras.Model(inner_input, layers.Conv2D(8, 3, padding="same", name="a")(inner_input), name="inner")
    bridged = assert_equal(with_head(lambda x: layers.Add()([inner(x), inner(inner(x))])))
    assert "inner_a" in [layer.name for layer in bridged.layers]


def test_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    model = keras.Model({"x": a, "y": b}, {"sum": layers.Add()([a, b]), "twice": layers.Dense(2)(b)})
    bridged = to_tf_keras(model)
    values = [np.full((2, 4), 1.0, np.float32), np.full((2, 4), 3.0, np.float32)]
    expected = model({"x": values[0], "y": values[1]})
    for found, name in zip(bridged(values), ("sum", "twice"), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=TOLERANCE)


def test_weights_come_back():
    model = NETWORKS["mobile"]()
    bridged, before = to_tf_keras(model), model.get_weights()
    for weight in model.weights:
        weight.assign(weight * 0.0 + 7.0)
    copy_back(bridged, model)
    for weight, value in zip(model.weights, before, strict=True):
        assert np.array_equal(weight, value)


def test_weights_of_another_network_are_refused():
    with pytest.raises(UsageError, match="another"):
        copy_back(to_tf_keras(NETWORKS["mobile"]()), NETWORKS["residual"]())


def test_a_layer_with_weights_that_tf_keras_does_not_have_is_named():
    class Conv2D(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x):
            return x * self.scale

    with pytest.raises(UsageError, match=r"'mine' \(Conv2D\) has weights and no counterpart"):
        to_tf_keras(with_head(lambda x: Conv2D(name="mine")(x)))


def test_a_model_with_open_sizes_is_refused():
    image = keras.Input((None, None, 3))
    with pytest.raises(UsageError, match="fixed"):
        to_tf_keras(keras.Model(image, layers.Conv2D(2, 3)(image)))


def test_tfmot_leaves_the_process_as_it_was():
    import tensorflow as tf

    from dcp_tf.tflite.qat import quantizers

    assert quantizers.tfmot.__name__ == "tensorflow_model_optimization"
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert tf.keras.__name__ == "keras.api._tf_keras.keras" or "tf_keras.layers" not in str(tf.keras.layers)
    assert issubclass(tf.keras.layers.Dense, keras.layers.Layer)


RANDOM_LAYERS = sorted(
    {name for name in dir(layers) if name.startswith("Random")} | {"AugMix", "CutMix", "MixUp", "RandAugment"}
)


def random_layer(name):
    """A layer that changes a lot; each takes other arguments."""
    for arguments in ((), (0.4,), (0.4, 0.4), (4,)) if name != "RandomCrop" else [(6, 6)]:
        try:
            return getattr(layers, name)(*arguments)
        except (TypeError, ValueError):
            continue
    raise AssertionError(f"{name} takes other arguments")


@pytest.mark.parametrize("name", RANDOM_LAYERS)
def test_layers_that_change_images_at_random_do_nothing_in_a_bridged_model(name):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.Conv2D(2, 3)(random_layer(name)(image)))
    pixels = images(4, 8)
    expected = np.asarray(model(pixels, training=False))
    bridged = to_tf_keras(model)
    for training in (False, True):
        np.testing.assert_allclose(bridged(pixels, training=training), expected, rtol=1e-4, atol=1e-5)


def test_augmentation_inside_of_other_models_does_nothing_either():
    image = keras.Input((8, 8, 3))
    x = keras.Sequential([layers.RandomFlip(), keras.Sequential([layers.RandomRotation(0.4)])])(image)
    x = layers.Pipeline([layers.RandomZoom(0.4), layers.RandomContrast(0.5)])(x)
    model = keras.Model(image, layers.Conv2D(2, 3)(x))
    pixels = images(4, 8)
    expected = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(to_tf_keras(model)(pixels, training=True), expected, rtol=1e-4, atol=1e-5)
