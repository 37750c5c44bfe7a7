"""TensorFlow functions in Keras 2 models, written with `keras.ops`: equal outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras2_nets import assert_same, model_of
from tf_keras import layers

from dcp_tf import models
from dcp_tf.errors import UsageError

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")


def attention(x):
    query, key, value = (layers.Dense(4)(layers.Reshape((-1, 4))(x)) for _ in range(3))
    return tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True)), value)


def numbers(values):
    return tf.cast(values, "float32")


OPERATIONS = {
    "depth to space": lambda x: tf.nn.depth_to_space(x, 2),
    "space to depth": lambda x: tf.nn.space_to_depth(x, 2),
    "two matmul": attention,
    "where": lambda x: tf.where(tf.math.greater(x, 0.5), x, 0.0) + tf.where(x < 0.2, 1.0, x),
    "comparisons": lambda x: (
        numbers(x >= 0.5) + numbers(x <= 0.3) + numbers(tf.equal(x, 0.5)) + numbers(tf.not_equal(x, 0.5))
    ),
    "logic": lambda x: numbers((x > 0.2) & (x < 0.5) | ~(x > 0.1)),
    "stop_gradient": lambda x: tf.stop_gradient(x),
    "gather": lambda x: tf.gather(x, [0, 2], axis=-1) + tf.gather(x, [3], axis=1)[..., :2],
    "unstack": lambda x: tf.unstack(x, axis=3)[1] * tf.unstack(x, axis=1)[0][..., 0:1],
    "strided slice": lambda x: tf.strided_slice(x, [0, 0, 1, 0], [3, 8, 7, 4], [1, 2, 1, 1]),
    "slice": lambda x: tf.slice(x, [0, 0, 1, 0], [-1, 8, 4, 2]),
    "reverse": lambda x: tf.reverse(x, [1]),
    "roll": lambda x: tf.roll(x, 1, 2),
    "cumsum": lambda x: tf.cumsum(x, 1) + tf.cumsum(x, 2, exclusive=True) + tf.cumsum(x, -1, reverse=True),
    "cumprod": lambda x: tf.math.cumprod(x, 1, exclusive=True, reverse=True),
    "deviation, variance": lambda x: tf.math.reduce_std(x, -1) + tf.math.reduce_variance(x, -1),
    "product, any, all": lambda x: (
        tf.reduce_prod(x, -1) + numbers(tf.reduce_any(x > 0.9, -1)) + numbers(tf.reduce_all(x > 0.1, -1))
    ),
    "logsumexp": lambda x: tf.reduce_logsumexp(x, -1, keepdims=True) * x,
    "einsum": lambda x: tf.einsum("bhwc,bhwd->bcd", x, x),
    "norms": lambda x: tf.norm(x, axis=-1) + tf.linalg.norm(x, ord=1, axis=-1) + tf.norm(x, ord=np.inf, axis=-1),
    "norm of two axes": lambda x: tf.norm(x, axis=[1, 2], keepdims=True) * x,
    "stft": lambda x: tf.abs(tf.signal.stft(tf.reshape(x, (-1, 256)), 64, 32)),
    "conv2d": lambda x: tf.nn.conv2d(x, KERNEL, 2, "SAME") + tf.nn.conv2d(x, KERNEL, [1, 2, 2, 1], "SAME"),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, KERNEL[..., :1], [1, 1, 1, 1], "SAME"),
    "pools": lambda x: tf.nn.max_pool(x, 2, 2, "SAME") + tf.nn.avg_pool(x, 2, 2, "SAME"),
    "arg max, one hot": lambda x: tf.one_hot(tf.argmax(x, -1), 4) + numbers(tf.argmin(x, -1))[..., None],
    "top k, sort": lambda x: tf.math.top_k(x, 2)[0] + tf.sort(x, -1, direction="DESCENDING")[..., :2],
    "trigonometry": lambda x: tf.sin(x) + tf.cos(x) + tf.math.tan(x) + tf.math.asin(x) + tf.math.atan2(x, x + 1),
    "rounding": lambda x: tf.round(x * 9) + tf.floor(x * 9) + tf.math.ceil(x * 9) + tf.sign(x - 0.5),
    "remainders": lambda x: (x * 9) % 2 + (x * 9) // 2,
    "elementwise": lambda x: tf.math.log1p(x) + tf.math.expm1(x) + tf.math.erf(x) + tf.math.reciprocal(x + 1),
    "more elementwise": lambda x: tf.math.squared_difference(x, 0.5) + tf.math.divide_no_nan(x, x) + tf.zeros_like(x),
    "more activations": lambda x: tf.nn.softsign(x) + tf.math.log_sigmoid(x) + tf.nn.crelu(x - 0.5)[..., :4],
    "local response": lambda x: tf.nn.local_response_normalization(x, 1, 2.0, 0.5, 0.75),
    "standardization": lambda x: tf.image.per_image_standardization(x),
    "flips": lambda x: tf.image.flip_left_right(x) + tf.image.flip_up_down(x),
    "gray": lambda x: tf.image.rgb_to_grayscale(x[..., :3]),
    "patches": lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "VALID"),
    "constant factors": lambda x: tf.matmul(x, KERNEL[0, 0].T, transpose_b=True) + tf.matmul(x, KERNEL[0, 1]),
    "triangle": lambda x: tf.linalg.band_part(tf.matmul(x, x, transpose_b=True), -1, 0),
    "tensordot": lambda x: tf.tensordot(x, KERNEL[0, 0], 1),
    "repeat": lambda x: tf.repeat(x, 2, axis=1),
}

SIZES = {
    "batch and the rest": lambda x: tf.reshape(x, (tf.shape(x)[0], -1)),
    "stack": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], tf.shape(x)[1] * tf.shape(x)[2], 4])),
    "concatenation": lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [64, 4]], 0)),
    "unstack": lambda x: tf.reshape(x, [tf.unstack(tf.shape(x))[0], -1]),
    "backend": lambda x: tf_keras.backend.reshape(x, (tf_keras.backend.shape(x)[0], -1)),
    "resize": lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2),
    "broadcast": lambda x: tf.broadcast_to(tf.reduce_mean(x, -1, keepdims=True), tf.shape(x)),
    "factor": lambda x: x * tf.cast(tf.shape(x)[1], tf.float32),
    "dot of the backend": lambda x: tf_keras.backend.dot(x, tf.constant(KERNEL[0, 0])),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations(kind, tmp_path):
    old = model_of(OPERATIONS[kind])
    new = models.from_tf_keras(old)
    assert_same(old, new)
    names = [layer.name for layer in new.operations]
    assert len(set(names)) == len(names)
    if kind in ("two matmul", "constant factors", "where", "gather", "conv2d", "local response", "stft"):
        new.save(tmp_path / "new.keras")
        assert_same(old, keras.models.load_model(tmp_path / "new.keras"))


@pytest.mark.parametrize("kind", SIZES)
def test_arithmetic_with_sizes(kind):
    old = model_of(SIZES[kind])
    assert_same(old, models.from_tf_keras(old))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_hold_constants_and_sizes_as_lists(tmp_path, suffix):
    def net(x):
        y = tf.where(x > 0.5, x, [1.0, 2, 3, 4]) + tf.gather(x, [3, 2, 1, 0], axis=-1)
        y = tf.matmul(y, KERNEL[0, 0, :, :4]) + tf.tensordot(y, KERNEL[0, 1, :, :4], 1)
        y = tf.nn.conv2d(tf.nn.depth_to_space(tf.stop_gradient(y), 2), KERNEL[..., :1, :], 1, "SAME")
        return tf.reshape(tf.cumsum(y, 1), (tf.shape(y)[0], -1))

    old = model_of(net)
    old.save(tmp_path / f"old{suffix}")
    assert_same(old, models.load(str(tmp_path / f"old{suffix}")).model)


def test_open_sizes_are_refused_in_one_line():
    for function in (lambda x: tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1], -1)), tf.image.per_image_standardization):
        with pytest.raises(UsageError, match="give the inputs a known size") as raised:
            models.from_tf_keras(model_of(function, (None, None, 3)))
        assert "\n" not in str(raised.value)


def test_depth_to_space_of_open_sizes():
    old = model_of(lambda x: tf.nn.depth_to_space(layers.Conv2D(12, 3, padding="same")(x), 2), (None, None, 3))
    new = models.from_tf_keras(old)
    images = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(new(images)), np.asarray(old(images)), atol=1e-5)
