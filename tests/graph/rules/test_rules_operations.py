"""Operations outside layers: `keras.ops`, operators, slices, constants as arguments."""

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, count_cost

ROW = np.linspace(0.5, 2, 8).astype("float32")
SQUARE = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")


def between(operation, channels=8, size=8, save=True, **options):
    x = keras.Input((size, size, 3))
    y = operation(layers.Conv2D(channels, 3, padding="same", name="first")(x))
    return check(keras.Model(x, layers.Dense(3, name="last")(y)), save=save, **options)


FOLLOW = {
    "relu": lambda y: ops.relu(y),
    "gelu": lambda y: ops.gelu(y),
    "leaky_relu": lambda y: ops.leaky_relu(y, 0.2),
    "activations.relu": keras.activations.relu,
    "negative and scalars": lambda y: -(y * 2 + 1) / 3 - 0.5,
    "power": lambda y: ops.tanh(y) ** 2,
    "reversed operands": lambda y: 1.0 - 2.0 * y,
    "clip": lambda y: ops.clip(y, -1, 1),
    "itself": lambda y: y * ops.sigmoid(y) + y,
    "where": lambda y: ops.where(y > 0, y, 0.1 * y),
    "maximum": lambda y: ops.maximum(y, -0.5),
    "cast": lambda y: ops.cast(ops.cast(y, "float16"), "float32"),
    "keyword tensors": lambda y: ops.add(x1=y, x2=ops.multiply(x1=y, x2=0.5)),
    "mean over space": lambda y: ops.mean(y, axis=(1, 2)),
    "max with keepdims": lambda y: y - ops.max(y, axis=[1, 2], keepdims=True),
    "variance over rows": lambda y: ops.var(y, axis=1),
    "reshape": lambda y: ops.reshape(y, (-1, 64, 8)),
    "reshape open": lambda y: ops.reshape(y, (-1, 4, 16, 8)),
    "transpose": lambda y: ops.transpose(y, (0, 2, 1, 3)),
    "swap to channels first and back": lambda y: ops.moveaxis(ops.swapaxes(y, 1, 3) * 2, 1, -1),
    "expand and squeeze": lambda y: ops.squeeze(ops.expand_dims(y, 1) + 1, 1),
    "stop_gradient": lambda y: ops.stop_gradient(y),
    "rows": lambda y: y[:, 1:5, ::2],
    "one row": lambda y: y[:, 0],
    "new axis": lambda y: y[:, None, ..., :],
    "flip": lambda y: ops.flip(y, axis=1),
    "flip of channels": lambda y: ops.flip(y, axis=-1),
    "roll": lambda y: ops.roll(y, 1, axis=2),
    "tile": lambda y: ops.tile(y, (1, 2, 1, 2)),
    "repeat": lambda y: ops.repeat(ops.repeat(y, 2, axis=1), 3, axis=-1),
    "stack": lambda y: ops.reshape(ops.stack([y, ops.relu(y)], axis=-1), (-1, 8, 8, 16)),
    "pad over space": lambda y: ops.pad(y, ((0, 0), (1, 2), (0, 0), (0, 0))),
    "pooling": lambda y: ops.max_pool(y, 2) + ops.average_pool(y, 2),
    "resize": lambda y: ops.image.resize(y, (5, 5)),
    "concatenate": lambda y: ops.concatenate([y, -y], axis=3),
    "concatenate over space": lambda y: ops.concatenate([y, -y], axis=-2),
    "split over space": lambda y: sum(ops.split(y, 2, axis=1)),
    "softmax over space": lambda y: ops.softmax(y, axis=1) + ops.log_softmax(y, axis=2),
    "normalize over space": lambda y: ops.normalize(y, axis=1),
    "running sums": lambda y: ops.cumsum(y, axis=1) + ops.cumprod(y, axis=-2),
    "sorted rows": lambda y: ops.sort(y, axis=1) + ops.flip(ops.argsort(y, axis=2), axis=1) * 0.1,
    "differences": lambda y: ops.diff(y, axis=1),
    "logsumexp over space": lambda y: ops.logsumexp(y, axis=(1, 2)),
    "norm over rows": lambda y: ops.norm(y, axis=1),
    "median of rows": lambda y: ops.quantile(y, 0.5, axis=1),
    "largest row": lambda y: y * ops.cast(ops.expand_dims(ops.argmax(y, axis=1), 1), "float32"),
    "rows by number": lambda y: ops.take(y, [0, 5, 5, 3], axis=1),
    "unstacked rows": lambda y: sum(ops.unstack(y, axis=1)),
    "patches": lambda y: ops.image.extract_patches(y, (2, 2)),
    "crop": lambda y: layers.CenterCrop(6, 6)(y),
    "pipeline": lambda y: layers.Pipeline([layers.ReLU(), layers.Pipeline([layers.MaxPooling2D()])])(y),
    "space to depth": lambda y: ops.space_to_depth(y, 2),
    "blur": lambda y: ops.image.gaussian_blur(y, (3, 3), (1.0, 1.0)),
    "finite": lambda y: ops.where(ops.isfinite(y), y, 0.0),
    "weights of positions": lambda y: ops.matmul(SQUARE, ops.reshape(y, (-1, 64, 8))),
    "positions by einsum": lambda y: ops.einsum("pq,bqc->bpc", SQUARE, ops.reshape(y, (-1, 64, 8))),
    "rows with an ellipsis": lambda y: ops.einsum("bhw...->bwh...", y),
}


@pytest.mark.parametrize("kind", FOLLOW)
def test_operations_that_follow_channels(kind):
    between(
        FOLLOW[kind], prunable={"first": 8}, save=kind in ("rows", "new axis", "reshape", "stack", "split over space")
    )


CONSTANTS = {
    "vector": lambda y: y * ROW + ROW,
    "image": lambda y: y + np.random.default_rng(0).normal(size=(8, 8, 8)).astype("float32"),
    "with batch axis": lambda y: ops.subtract(ROW[None, None, None], y),
    "tensor": lambda y: ops.maximum(y, ops.convert_to_tensor(ROW)),
    "over rows only": lambda y: y * ROW[:, None, None],
    "keyword": lambda y: ops.multiply(x1=y, x2=ROW),
    "blur": lambda y: ops.depthwise_conv(y, np.ones((3, 3, 8, 2), "float32") * ROW[:, None], padding="same"),
    "batch normalization": lambda y: ops.batch_normalization(y, ROW, ROW, -1, offset=-ROW, scale=ROW),
    "higher rank": lambda y: ops.mean(y, axis=(1, 2))[:, None, None] * np.stack([ROW, -ROW])[None, :, None],
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants_are_cut_with_the_channels(kind):
    between(CONSTANTS[kind], prunable={"first": 8}, permutation=kind == "over rows only", configs=False)


PARTS = {
    "front": (lambda y: y[..., :5], [5]),
    "two overlapping ranges": (lambda y: ops.concatenate([y[..., :5], y[..., 3:]], -1), [3, 2, 3]),
    "half added to half": (lambda y: y[..., :4] + y[..., 4:], [4]),
    "negative bounds": (lambda y: ops.concatenate([y[..., -3:], y[..., :-3]], -1), [5, 3]),
    "split": (lambda y: ops.concatenate(ops.split(y, 4, axis=-1)[1:], -1), [2, 2, 2]),
    "split at": (lambda y: ops.concatenate(ops.split(y, [1, 4], axis=3), -1), [3, 4]),
    "gated linear unit": (lambda y: ops.split(y, 2, -1)[0] * ops.sigmoid(ops.split(y, 2, -1)[1]), [4]),
    "one channel beside all": (lambda y: y * ops.sigmoid(y[..., 2:3]), [7]),
    "by number": (lambda y: ops.take(y, [0, 3, 5], axis=-1), [3]),
    "by number, twice": (lambda y: y + ops.take(y, np.array([7, 3, 3, 0, 1, 2, -2, -3]), axis=-1), [2]),
    "glu": (lambda y: ops.glu(y), [4]),
    "depth to space": (lambda y: ops.depth_to_space(y, 2), [2]),
    "one channel by number": (lambda y: y + y[..., 2][..., None], [7]),
}


@pytest.mark.parametrize("kind", PARTS)
def test_ranges_of_channels(kind):
    operation, sizes = PARTS[kind]
    graph, _ = between(operation, permutation=False)
    assert sorted(g.size for g in graph.prunable(residual=True)) == sorted(sizes)


PINNED = {
    "steps": (lambda y: y[..., ::2], "channels at a distance"),
    "sum over channels": (lambda y: y / (1 + ops.sum(y * y, axis=-1, keepdims=True)), "mixes channels"),
    "softmax": (lambda y: ops.softmax(y), "normalizes over the channels"),
    "matmul": (lambda y: ops.matmul(y, np.ones((8, 4), "float32")), "sums over channels"),
    "convolution without a layer": (lambda y: ops.conv(y, np.ones((3, 3, 8, 4), "float32")), "no rule"),
    "sort": (lambda y: ops.sort(y), "mixes channels"),
    "statistics": (lambda y: ops.layer_normalization(y), "takes statistics over the channels"),
    "pipeline with weights": (lambda y: layers.Pipeline([layers.Dense(8)])(y), "holds layers with weights"),
    "running sum of channels": (lambda y: ops.cumsum(y, axis=-1), "mixes channels"),
    "scores": (lambda y: ops.einsum("nhwc,nhvc->nhwv", *[ops.exp(y)] * 2), "sums over channels"),
    "outer product": (lambda y: ops.einsum("nhwc,nhwd->ncd", y, y), "by something else along them"),
    "scaled by einsum": (lambda y: ops.einsum("nhwc,c->nhwc", y, ROW), "by something else along them"),
    "roll of channels": (lambda y: ops.roll(y, 1, axis=-1), "rolls channels"),
    "whole sum": (lambda y: y + ops.sum(y), "mixes the images"),
    "batch": (lambda y: y[:1, ...], "images of the batch"),
    "limits": (lambda y: ops.clip(y, -ROW, ROW), "limits are arrays"),
}


@pytest.mark.parametrize("kind", PINNED)
def test_what_mixes_channels_pins_them_and_says_why(kind):
    operation, reason = PINNED[kind]
    x = keras.Input((8, 8, 3))
    y = operation(layers.Conv2D(8, 3, padding="same", name="first")(x))
    graph, _ = check(keras.Model(x, layers.Dense(3, name="last")(y)), shrinks=False, configs=kind != "limits")
    assert reason in graph.group("first").pinned_because


def test_a_sum_with_a_constant_is_no_residual_stream():
    graph, _ = between(lambda y: y + 1.0, save=False)
    assert not graph.group("first").residual
    graph, _ = between(lambda y: y + ops.relu(y), save=False)
    assert graph.group("first").residual


def test_augmentation_leaves_channels_alone():
    x = keras.Input((8, 8, 3))
    y = layers.RandomFlip()(layers.RandomRotation(0.1)(layers.Conv2D(8, 3, name="first")(x)))
    assert ChannelGraph(keras.Model(x, layers.Dense(3)(y))).group("first").pinned_because is None


def test_a_lambda_layer_pins_and_is_rebuilt():
    factor = 2.0
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    y = layers.Conv2D(8, 3, name="second")(layers.Lambda(lambda t: t * factor, name="double")(y))
    model = keras.Model(x, layers.Dense(2)(y))
    graph, _ = check(model, prunable={"second": 8})
    assert "double (Lambda)" in graph.group("first").pinned_because


def test_operation_names_survive_saving(tmp_path):
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    y = ops.reshape(ops.relu(y * 2), (-1, 36, 8))
    model = keras.Model(x, layers.Dense(2)(y))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert ChannelGraph(loaded).fingerprint() == ChannelGraph(model).fingerprint()
    check(loaded, configs=False, save=True)  # loaded shapes are lists


def test_windows_that_become_rows_of_the_batch_cost_what_they_cost_in_place():
    def model(windows):
        x = keras.Input((8, 8, 3))
        y = layers.Conv2D(6, 3, padding="same", name="first")(x)
        if windows:
            y = ops.transpose(ops.reshape(y, (-1, 2, 4, 2, 4, 6)), (0, 1, 3, 2, 4, 5))
            y = ops.reshape(y, (-1, 16, 6))
        y = layers.Dense(5, name="second")(layers.Dense(7, activation="relu", name="hidden")(y))
        if windows:
            y = ops.transpose(ops.reshape(y, (-1, 2, 2, 4, 4, 5)), (0, 1, 3, 2, 4, 5))
            y = ops.reshape(y, (-1, 8, 8, 5))
        return keras.Model(x, layers.Dense(2, name="last")(layers.GlobalAveragePooling2D()(y)))

    graph, _ = check(model(True), prunable={"first": 6, "hidden": 7, "second": 5})
    rows, plain = count_cost(graph), count_cost(model(False))
    assert (rows.macs, rows.flops, rows.layers) == (plain.macs, plain.flops, plain.layers)
    kept = {"hidden": np.arange(3), "second": np.arange(2)}
    of_plain = ChannelGraph(model(False))
    assert count_cost(graph, graph.kept(kept)).macs == count_cost(of_plain, of_plain.kept(kept)).macs
    assert rows.activations == max(8 * 8 * (6 + 7), 8 * 8 * (3 + 6), 2 * 8 * 8 * 6)
