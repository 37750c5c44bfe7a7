"""Keras 2 models, in memory and in files, compute the same in Keras 3."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras2_nets import assert_same, model_of, randomized
from tf_keras import layers

from dcp_tf import models
from dcp_tf.errors import UsageError
from dcp_tf.models.keras2 import operations


def sequence(x):
    return layers.Reshape((-1, 4))(x)


LAYERS = {
    "conv": lambda x: layers.Conv2D(4, 3, padding="same", activation="relu", kernel_regularizer="l2")(x),
    "grouped conv": lambda x: layers.Conv2D(4, 3, groups=2, use_bias=False)(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, activation=tf.nn.relu6)(x),
    "separable": lambda x: layers.SeparableConv2D(6, 3, dilation_rate=2)(x),
    "transposed": lambda x: layers.Conv2DTranspose(6, 3, strides=2, padding="same", output_padding=1)(x),
    "conv1d": lambda x: layers.Conv1D(3, 3, padding="causal")(sequence(x)),
    "conv3d": lambda x: layers.Conv3D(3, 1)(layers.Reshape((1, 8, 8, 4))(x)),
    "dense": lambda x: layers.Dense(5, activation="softmax")(layers.Flatten()(x)),
    "einsum dense": lambda x: layers.EinsumDense("abc,cd->abd", output_shape=(64, 6))(sequence(x)),
    "embedding": lambda x: layers.Embedding(9, 3)(layers.Flatten()(x)),
    "batch normalization": lambda x: layers.BatchNormalization()(x),
    "layer normalization": lambda x: layers.LayerNormalization()(x),
    "group normalization": lambda x: layers.GroupNormalization(2)(x),
    "unit normalization": lambda x: layers.UnitNormalization()(x),
    "normalization, given": lambda x: layers.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4])(x),
    "normalization, learnt": lambda x: layers.Normalization()(x),
    "rescaling": lambda x: layers.Rescaling(1 / 255, offset=[1.0, 2, 3, 4])(x),
    "resizing": lambda x: layers.Resizing(4, 6)(x),
    "random flip": lambda x: layers.RandomFlip()(x),
    "leaky relu": lambda x: layers.LeakyReLU(0.1)(x - 0.5),
    "prelu": lambda x: layers.PReLU(shared_axes=[1, 2])(x - 0.5),
    "thresholded relu": lambda x: layers.ThresholdedReLU(0.5)(x),
    "relu": lambda x: layers.ReLU(max_value=0.9, negative_slope=0.1, threshold=0.2)(x),
    "softmax": lambda x: layers.Softmax(axis=-1)(x),
    "swish": lambda x: layers.Activation("swish")(x),
    "hard sigmoid": lambda x: layers.Activation("hard_sigmoid")(x * 6 - 3),
    "max pooling": lambda x: layers.MaxPool2D()(x),
    "average pooling": lambda x: layers.AveragePooling2D(3, 2, "same")(x),
    "global pooling": lambda x: layers.GlobalAveragePooling2D(keepdims=True)(x),
    "concatenation": lambda x: layers.Concatenate()([x, x]),
    "squeeze and excitation": lambda x: layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),
    "subtraction": lambda x: layers.Subtract()([x, layers.ReLU(0.5)(x)]),
    "dot": lambda x: layers.Dot(axes=1)([layers.Flatten()(x), layers.Flatten()(x)]),
    "upsampling": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
    "padding, cropping": lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(((0, 1), (2, 1)))(x)),
    "permutation": lambda x: layers.Permute((3, 1, 2))(x),
    "dropout": lambda x: layers.SpatialDropout2D(0.5)(layers.Dropout(0.5)(layers.GaussianNoise(0.1)(x))),
    "lstm": lambda x: layers.LSTM(5)(sequence(x)),
    "gru": lambda x: layers.GRU(5, return_sequences=True)(sequence(x)),
    "bidirectional": lambda x: layers.Bidirectional(layers.LSTM(3))(sequence(x)),
    "time distributed": lambda x: layers.TimeDistributed(layers.Dense(3))(sequence(x)),
    "attention": lambda x: layers.MultiHeadAttention(2, 3)(sequence(x), sequence(x)),
    "training=False": lambda x: layers.BatchNormalization()(x, training=False),
}

OPERATIONS = {
    "+": lambda x: 1.0 + x + x,
    "-": lambda x: 1.0 - x - x * 2,
    "/": lambda x: 1 / (x + 3.0),
    "**": lambda x: -(x**2),
    "constant": lambda x: x * tf.constant([1.0, 2, 3, 4]),
    "slices": lambda x: x[:, ::2, 1:, 0] + x[:, ::2, 1:][..., 1],
    "activations": lambda x: tf.nn.relu6(x * 9) + tf.nn.relu(x - 0.5) + tf.sigmoid(x) + tf.tanh(x) + tf.nn.swish(x),
    "more activations": lambda x: tf.nn.leaky_relu(x - 0.5, 0.3) + tf.nn.gelu(x) + tf.nn.elu(x) + tf.nn.softmax(x),
    "functions": lambda x: tf.exp(x) + tf.math.log(x + 1) + tf.sqrt(x) + tf.square(x) + abs(x) + tf.math.rsqrt(x + 1),
    "concat": lambda x: tf.concat([x, x], -1),
    "stack": lambda x: tf.stack([x, x], 1),
    "split": lambda x: tf.split(x, 2, axis=3)[1] + tf.split(x, [1, 2, 1], axis=3)[1],
    "mean": lambda x: tf.reduce_mean(x, [1, 2], keepdims=True) * x,
    "max, min, sum": lambda x: tf.reduce_max(x, 1) + tf.reduce_min(x, 1) + tf.reduce_sum(x, axis=1),
    "maximum, minimum": lambda x: tf.maximum(x, 0.3) + tf.minimum(0.6, x) + tf.clip_by_value(x, 0.2, 0.6),
    "transpose": lambda x: tf.transpose(x, [0, 3, 1, 2]),
    "pad": lambda x: tf.pad(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"),
    "reshape": lambda x: tf.reshape(tf.expand_dims(tf.squeeze(x[:, :1], 1), 1), [-1, 32]),
    "tile": lambda x: tf.tile(x, [1, 2, 1, 1]),
    "normalize": lambda x: tf.nn.l2_normalize(x, -1),
    "add_n": lambda x: tf.add_n([x, x, x]),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "resize": lambda x: tf.image.resize(x, (5, 6)),
    "pool": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME")[:, :2] + tf.nn.avg_pool2d(x, 2, 2, "VALID")[:, :2],
    "bias": lambda x: tf.nn.bias_add(x, [1.0, 2, 3, 4]),
    "cast": lambda x: tf.cast(tf.cast(x, tf.float16), "float32"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind):
    old = model_of(LAYERS[kind])
    new = models.from_tf_keras(old)
    assert_same(old, new)
    assert new.name == old.name
    assert new.output_shape == old.output_shape


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_outside_layers(kind, tmp_path):
    old = model_of(OPERATIONS[kind])
    new = models.from_tf_keras(old)
    assert_same(old, new)
    if kind in ("constant", "slices", "split", "bias"):  # their arguments have to be written
        new.save(tmp_path / "new.keras")
        assert_same(old, keras.models.load_model(tmp_path / "new.keras"))


def composite():
    """Operations, a nested functional and a nested Sequential model, a shared layer, two inputs, two outputs."""
    inside = tf_keras.Input((8, 8, 4))
    inner = tf_keras.Model(inside, layers.BatchNormalization(name="bn")(layers.Conv2D(4, 1)(inside)), name="inner")
    stack = tf_keras.Sequential([layers.DepthwiseConv2D(3, padding="same"), layers.ReLU(6.0)], name="stack")
    shared = layers.Conv2D(4, 3, padding="same", name="block/shared")
    image, vector = tf_keras.Input((8, 8, 4), name="image"), tf_keras.Input((5,), name="vector")
    x = shared(tf.nn.relu(inner(shared(image)) * 2.0) + stack(image))
    x = layers.multiply([x, inner(image)])  # its name, "multiply", is one that Keras 3 gives to operations
    joined = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(3)(vector)])
    return randomized(tf_keras.Model([image, vector], [layers.Dense(2)(joined), x], name="composite"))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_of_composite_models(tmp_path, suffix):
    old = composite()
    old.save(tmp_path / f"old{suffix}")
    new = models.load(str(tmp_path / f"old{suffix}")).model
    assert_same(old, new)
    assert new.count_params() == old.count_params()
    assert {"inner", "stack", "block_shared"} < {layer.name for layer in new.layers}
    new.save(tmp_path / "new.keras")
    assert_same(old, keras.models.load_model(tmp_path / "new.keras"))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_files_of_sequential_and_compiled_models(tmp_path):
    old = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    old.compile("adam", "mse")
    for path in (str(tmp_path / "old.h5"), str(tmp_path / "old.keras")):
        old.save(path)
        new = models.load(path, input_shape=(8, 8, 3), num_classes=3).model
        assert isinstance(new, keras.Sequential)
        assert_same(old, new)
        with pytest.raises(UsageError, match="has 3 outputs, not 10"):
            models.load(path, num_classes=10)


def test_what_else_is_kept():
    regularizer = tf_keras.regularizers.L1L2(0.25, 0.5)
    dense = layers.Dense(3, kernel_regularizer=regularizer, kernel_constraint="non_neg", name="dense")
    old = tf_keras.Sequential([layers.Input((4,)), dense, layers.Dense(2, name="frozen", dtype="mixed_float16")])
    old.layers[1].trainable = False
    new = models.from_tf_keras(old)
    assert (new.layers[0].kernel_regularizer.l1, new.layers[0].kernel_regularizer.l2) == (0.25, 0.5)
    assert isinstance(new.layers[0].kernel_constraint, keras.constraints.NonNeg)
    assert [layer.trainable for layer in new.layers] == [True, False]
    assert [layer.dtype_policy.name for layer in new.layers] == ["float32", "mixed_float16"]
    old.trainable = False
    assert not models.from_tf_keras(old).trainable_variables


def test_inputs_and_outputs_keep_their_structure():
    image, vector = tf_keras.Input((8, 8, 3), name="image"), tf_keras.Input((4,), name="vector")
    outputs = {"a": layers.Dense(3)(vector), "b": layers.Flatten()(image)}
    new = models.from_tf_keras(tf_keras.Model({"image": image, "vector": vector}, outputs))
    got = new({"image": np.ones((2, 8, 8, 3)), "vector": np.ones((2, 4))})
    assert {key: tuple(value.shape) for key, value in got.items()} == {"a": (2, 3), "b": (2, 192)}
    fully_convolutional = model_of(lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(x)), (None, None, 3))
    assert models.from_tf_keras(fully_convolutional).input_shape == (None, None, None, 3)
    called = tf_keras.Sequential([layers.Dense(3)])
    called(np.ones((2, 4)))
    assert models.from_tf_keras(called).input_shape == (None, 4)


class Doubling(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


class Subclassed(tf_keras.Model):
    def call(self, inputs):
        return inputs * 2.0


REFUSED = {
    "custom layer": (lambda x: Doubling(name="mine")(x), r"'mine' \(Doubling\)|the custom object 'Doubling'"),
    "functions": (
        lambda x: tf.math.polyval([1.0, 2.0], tf.math.xlogy(x, tf.math.xlogy(x, x))),
        r"\(tf\.math\.xlogy, 2 times\), .* \(tf\.math\.polyval\);",
    ),
    "dropout": (lambda x: tf.nn.dropout(x, 0.5), "at inference too, use the layer Dropout"),
    "own activation": (lambda x: layers.Dense(2, activation=tf.sin, name="fc")(x), "'fc' .* a function|'sin'"),
    "sizes of the batch": (lambda x: tf.reshape(x, [tf.shape(x)[0] * 8, 8, 4]), "the number of images in the batch"),
    "gone": (lambda x: layers.LocallyConnected2D(2, 3, name="local")(x), r"'local' \(LocallyConnected2D\)"),
    "nested": (
        lambda x: tf_keras.Sequential([layers.LocallyConnected2D(2, 3, name="deep")])(x),
        r"'deep' \(LocallyConnected2D\)",
    ),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_converted_is_named(kind, tmp_path):
    function, message = REFUSED[kind]
    old = model_of(function)
    with pytest.raises(UsageError, match=message) as raised:
        models.from_tf_keras(old)
    assert "\n" not in str(raised.value)
    for path in (tmp_path / "old.h5", tmp_path / "old.keras"):
        old.save(path)
        with pytest.raises(UsageError, match=message) as raised:
            models.load(str(path))
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_code_in_a_file_is_not_run(tmp_path):
    witness = tmp_path / "ran"
    place = str(witness)

    def leave_a_trace(x):
        open(place, "w").close()
        return x

    old = model_of(lambda x: layers.Lambda(leave_a_trace)(x))
    witness.unlink()
    for path in (tmp_path / "old.h5", tmp_path / "old.keras"):
        old.save(path)
        with pytest.raises(UsageError, match="Lambda: allow_lambda=True runs its code"):
            models.load(str(path))
    assert not witness.exists()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_lambda_layers_are_converted_where_their_code_may_run(tmp_path):
    old = model_of(lambda x: layers.Conv2D(3, 3)(layers.Lambda(lambda y: y / 255.0, name="to/unit")(x)))
    assert_same(old, models.from_tf_keras(old))  # its code is in memory
    for path in (tmp_path / "old.h5", tmp_path / "old.keras"):
        old.save(path)
        assert_same(old, models.load(str(path), allow_lambda=True).model)


def test_what_is_no_keras_2_model_is_refused():
    with pytest.raises(UsageError, match=r"expected a tf_keras model, received keras\."):
        models.from_tf_keras(keras.Sequential([keras.Input((3,))]))
    with pytest.raises(UsageError, match="subclassed model Subclassed"):
        models.from_tf_keras(Subclassed())
    with pytest.raises(UsageError, match="no input shape yet"):
        models.from_tf_keras(tf_keras.Sequential([layers.Dense(3)]))
    with pytest.raises(UsageError, match=r"convert it with dcp_tf\.models\.from_tf_keras"):
        models.check_functional(model_of(lambda x: x + 1))


def test_a_difference_is_noticed(monkeypatch):
    monkeypatch.setitem(operations.OPERATIONS, "nn.relu", lambda features: features * 1.0001)
    with pytest.raises(UsageError, match=r"computes something else in Keras 3: its output 0"):
        models.from_tf_keras(model_of(lambda x: tf.nn.relu(x)))


SLOW = [
    *("MobileNet", "MobileNetV2", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0", "ResNet50", "ResNet50V2"),
    *("DenseNet121", "Xception", "InceptionV3", "InceptionResNetV2", "VGG16", "ConvNeXtTiny", "NASNetMobile"),
]


@pytest.mark.parametrize("name", ["MobileNetV3Small", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_networks_of_tf_keras_applications(name, tmp_path):
    size = 224 if name.startswith("NASNet") else 96
    old = getattr(tf_keras.applications, name)(weights=None, input_shape=(size, size, 3))
    new = models.from_tf_keras(old)
    assert_same(old, new)
    trainable = [sum(int(np.prod(w.shape)) for w in model.trainable_weights) for model in (old, new)]
    assert trainable[0] == trainable[1]
    new.save(tmp_path / "new.keras")
    assert_same(old, keras.models.load_model(tmp_path / "new.keras"))
