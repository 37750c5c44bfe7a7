"""Kernel gradients of strided 1x1 convolutions; a native crash would end the tests, so each runs in its own process."""

import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import keras, numpy as np, tensorflow as tf
import dcp_tf.training
layers, rng = keras.layers, np.random.default_rng(0)

def normal(*shape):
    return tf.constant(rng.normal(size=shape).astype("float32"))
"""


def run(code):
    """Runs the code in a fresh process and returns what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (ended.returncode, ended.stderr[-2000:])
    return ended.stdout


def test_the_gradients_are_those_of_the_sum_over_the_positions_that_are_read():
    run("""
    def check(inputs, kernel, strides, padding, steps, compiled):
        def gradients(inputs):
            with tf.GradientTape() as tape:
                tape.watch([inputs, kernel])
                outputs = tf.nn.convolution(inputs, kernel, strides, padding) if isinstance(padding, str) else \\
                    tf.nn.conv2d(inputs, kernel, strides, padding)
                value = tf.reduce_sum(outputs**3)
            return outputs, *tape.gradient(value, [inputs, kernel])
        if compiled:
            gradients = tf.function(gradients, input_signature=[tf.TensorSpec([None, *inputs.shape[1:]])])
        for _ in range(3):
            outputs, of_inputs, of_kernel = (x.numpy() for x in gradients(inputs))
        before = 0 if isinstance(padding, str) else padding[1][0]
        padded = inputs.numpy() if isinstance(padding, str) else np.pad(inputs.numpy(), padding)
        read = padded[steps]
        slopes = 3 * outputs**2
        matrix = kernel.numpy().reshape(kernel.shape[-2:])
        np.testing.assert_allclose(outputs, read @ matrix, rtol=1e-3, atol=1e-3)
        expected = np.tensordot(read, slopes, [range(read.ndim - 1)] * 2)
        np.testing.assert_allclose(of_kernel.reshape(matrix.shape), expected, atol=1e-4 * np.abs(expected).max())
        back = np.zeros_like(padded)
        back[steps] = slopes @ matrix.T
        inside = tuple(slice(before, before + n) if 0 < i < 3 else slice(None) for i, n in enumerate(inputs.shape))
        np.testing.assert_allclose(of_inputs, back[inside], rtol=1e-3, atol=1e-3)

    two = (slice(None), slice(None, None, 2), slice(None, None, 2))
    for channels, filters, size in [(8, 16, 64), (2, 4, 64), (5, 5, 60), (15, 3, 61), (16, 32, 32)]:
        for padding in ("SAME", "VALID"):
            for compiled in (False, True):
                check(normal(2, size, size, channels), normal(1, 1, channels, filters), 2, padding, two, compiled)
    padding = [[0, 0], [1, 2], [1, 2], [0, 0]]
    check(normal(2, 61, 61, 8), normal(1, 1, 8, 16), 2, padding, two, True)
    three = (slice(None), slice(None), slice(None, None, 3))
    check(normal(2, 64, 64, 8), normal(1, 1, 8, 16), [1, 3], "SAME", three, True)
    check(normal(2, 64, 8), normal(1, 8, 16), [2], "SAME", (slice(None), slice(None, None, 2)), True)
    volume = (slice(None), *[slice(None, None, 2)] * 3)
    check(normal(1, 20, 20, 20, 8), normal(1, 1, 1, 8, 16), [2, 2, 2], "SAME", volume, True)
    """)


def test_whatever_layer_holds_the_convolution_trains():
    run("""
    class Own(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(1, 1, shape[-1], 12))

        def call(self, x):
            return tf.nn.conv2d(x, self.kernel, 2, "SAME")

    inputs = keras.Input((64, 64, 8))
    steps = layers.Reshape((1, 64, 64, 8))(inputs)
    parts = [
        layers.Conv2D(16, 1, strides=2)(inputs),
        layers.Conv2D(9, 1, strides=2, padding="same", groups=1, use_bias=False)(inputs),
        layers.SeparableConv2D(12, 1, strides=2)(inputs),
        layers.DepthwiseConv2D(1, strides=2)(inputs),
        layers.TimeDistributed(layers.Conv2D(16, 1, strides=2))(steps)[:, 0],
        keras.Sequential([keras.Input((64, 64, 8)), layers.Conv2D(7, 1, strides=2)])(inputs),
        Own()(inputs),
    ]
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()(parts))
    model = keras.Model(inputs, layers.Dense(3)(x))
    images, labels = rng.normal(size=(64, 64, 64, 8)).astype("float32"), np.arange(64) % 3
    config = dcp_tf.training.TrainConfig(epochs=2, batch_size=16, learning_rate=0.01)
    loss = dcp_tf.training.ClassificationLoss("logits")
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    dcp_tf.training.fit(model, lambda epoch: data, [loss], config)
    """)


@pytest.mark.slow
def test_a_small_xception_is_pruned_and_trained():
    run("""
    def block(x, filters):
        shortcut = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=2, use_bias=False)(x))
        for _ in range(2):
            x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), shortcut])

    inputs = keras.Input((64, 64, 1))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)))
    x = block(block(x, 16), 32)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    images, labels = rng.normal(size=(48, 64, 64, 1)).astype("float32"), np.arange(48) % 4
    train = dcp_tf.TrainConfig(epochs=1, batch_size=16, learning_rate=0.01)
    for method in (dcp_tf.DCP(rate=0.5, prune_residual=True), dcp_tf.DCP(rate=0.5, selection="exact")):
        result = dcp_tf.prune(model, (images, labels), method, auxiliary=train, finetuning=train)
        assert result.model.count_params() < model.count_params()
    """)
