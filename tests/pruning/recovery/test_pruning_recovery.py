"""Recovery: the pruned model comes nearer to the baseline's block outputs, and never ends farther away."""

import keras
import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, rebuild
from dcp_tf.pruning import DCP, DKP, prune
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.linear import dropout_variance
from dcp_tf.pruning.recovery import block_outputs
from dcp_tf.pruning.recovery.block_outputs import comparisons, recover
from dcp_tf.training import TrainConfig

L = keras.layers
NONE = TrainConfig(epochs=0)


@pytest.fixture
def short_recovery():
    """Here it is whole."""


def block(x, width):
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(width, 3, padding="same")(x)))
    y = L.BatchNormalization()(L.Conv2D(x.shape[-1], 3, padding="same")(y))
    return L.ReLU()(L.Add()([x, y]))


def residual(activation=None):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = L.ReLU()(L.Conv2D(8, 3, padding="same")(inputs))
    x = block(block(x, 12), 12)
    return keras.Model(inputs, L.Dense(10, activation=activation)(L.GlobalAveragePooling2D()(x)))


def u_net():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    a = L.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    b = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    c = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(b))
    b = L.Conv2D(6, 3, padding="same", activation="relu")(L.Concatenate()([b, L.UpSampling2D()(c)]))
    a = L.Conv2D(6, 3, padding="same", activation="relu")(L.Concatenate()([a, L.UpSampling2D()(b)]))
    return keras.Model(inputs, L.Conv2D(2, 1)(a))


def halved(model):
    """The graph, what stays of it, and the rebuilt model."""
    graph = ChannelGraph(model)
    kept = graph.kept({g.name: range(g.size // 2) for g in graph.prunable()})
    return graph, kept, rebuild(graph, kept)


@pytest.fixture
def digit_batches():
    images = data.load("digits").train.representative(160)
    return [[images[i : i + 16]] for i in range(0, 160, 16)]


def distance(graph, kept, small, batches):
    """Mean squared error of what the dense layer reads, over the variance."""
    read = lambda model: keras.Model(model.inputs, model.layers[-1].input)  # noqa: E731
    a, b = (np.concatenate([read(m)(x).numpy() for (x,) in batches]) for m in (graph.trace.model, small))
    return ((a - b) ** 2).mean() / a.var()


def test_block_outputs_come_nearer_on_images_that_were_not_fitted(digit_batches):
    graph, kept, small = halved(residual())
    before = distance(graph, kept, small, digit_batches[-1:])
    phase = recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30))
    assert distance(graph, kept, small, digit_batches[-1:]) < 0.5 * before
    assert phase["distance"] < 0.5 * phase["distance_before"]


def test_it_never_ends_farther_away(digit_batches, monkeypatch):
    monkeypatch.setattr(block_outputs, "_RATES", (30.0,))
    graph, kept, small = halved(residual())
    before = [w.numpy() for w in small.weights]
    phase = recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30))
    assert phase["distance"] <= phase["distance_before"]
    assert all(np.isfinite(w.numpy()).all() for w in small.weights)
    if phase["distance"] == phase["distance_before"]:
        for a, b in zip(before, small.weights, strict=True):
            np.testing.assert_array_equal(a, b.numpy())


def test_baseline_and_statistics_stay(digit_batches):
    graph, kept, small = halved(residual("softmax"))
    baseline = [w.numpy() for w in graph.trace.model.weights]
    statistics = [w.numpy() for w in small.non_trainable_variables]
    recover(graph, ChannelGraph(small), kept, digit_batches, Cache(0))
    for old, new in ((baseline, graph.trace.model.weights), (statistics, small.non_trainable_variables)):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b.numpy())


def test_same_seed_same_weights_with_and_without_cache(digit_batches):
    results = []
    for room in (0, 2**30):
        graph, kept, small = halved(residual())
        recover(graph, ChannelGraph(small), kept, digit_batches[:4], Cache(room), seed=5)
        results.append([w.numpy() for w in small.weights])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_frozen_layers_are_fitted_and_stay_frozen(digit_batches):
    model = residual()
    for layer in model.layers:
        layer.trainable = False
    graph, kept, small = halved(model)
    phase = recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30))
    assert phase["distance"] < phase["distance_before"]
    assert not small.trainable_variables


def test_masked_weights_stay_zero(digit_batches):
    graph, kept, small = halved(residual())
    kernel = small.layers[4].kernel if hasattr(small.layers[4], "kernel") else small.layers[3].kernel
    mask = (np.random.default_rng(0).random(kernel.shape) < 0.5).astype("float32")
    kernel.assign(kernel * mask)
    recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30), masks={kernel.path: mask})
    assert (kernel.numpy()[mask == 0] == 0).all()
    assert (kernel.numpy()[mask == 1] != 0).all()


def test_a_model_with_skips_over_most_of_its_depth_is_compared_inside(digit_batches):
    graph, kept, small = halved(u_net())
    assert len(comparisons(graph, kept)) >= 2
    phase = recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30))
    assert phase["distance"] < phase["distance_before"]


def test_no_more_minutes_than_given(digit_batches):
    graph, kept, small = halved(residual())
    assert recover(graph, ChannelGraph(small), kept, digit_batches, Cache(2**30), minutes=1e-9)["steps"] <= 12
    with pytest.raises(UsageError, match="recover"):
        DCP(recover=-1.0)


@pytest.mark.parametrize("method", [DKP, pytest.param(DCP, marks=pytest.mark.slow)])
def test_pruning_recovers_and_a_resumed_run_takes_it_up(method, tmp_path):
    split = data.load("digits").train
    split = split.take(range(100))
    arguments = {"auxiliary": NONE, "finetuning": NONE, "state_dir": tmp_path}
    model = residual()
    first = prune(model, split, method(rate=0.5, discrimination=0.0), **arguments)
    assert any(phase["name"] == "recovery" for phase in first.history)
    again = prune(model, split, method(rate=0.5, discrimination=0.0), resume=True, **arguments)
    for a, b in zip(first.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    if first.plan.kernels:
        zeros = sum(int((w.numpy() == 0).sum()) for w in first.model.trainable_weights if len(w.shape) == 4)
        assert zeros > 100


def test_a_step_of_several_batches_is_that_of_one_batch_of_all_their_images(digit_batches, monkeypatch):
    monkeypatch.setattr(block_outputs, "_LEAST_STEPS", 1)
    monkeypatch.setattr(block_outputs, "_PASSES", 1)
    (images,), held_out, changes = digit_batches[0], digit_batches[1], []
    for batches, per_step in (([[images], held_out], 1), ([[images[:5]], [images[5:]], held_out], 2)):
        graph, kept, small = halved(residual())
        before = np.concatenate([w.numpy().ravel() for w in small.weights])
        assert recover(graph, ChannelGraph(small), kept, batches, Cache(2**30), per_step=per_step)["steps"] == 1
        changes.append(np.concatenate([w.numpy().ravel() for w in small.weights]) - before)
    # Not quite the same: the scales of the compared tensors are those of the first batch.
    assert np.corrcoef(changes)[0, 1] > 0.9


def behind_dropout():
    """A net whose last kernel reads channels behind dropout that few of the others could give exactly."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((8, 8, 1))
    x = L.Dense(60, activation="tanh")(L.Dense(12)(L.Flatten()(inputs)))
    return keras.Model(inputs, L.Dense(10)(L.Dropout(0.4)(x)))


def test_fits_behind_dropout_hold_under_dropout():
    images = data.load("digits").train.representative(400)
    model, method = behind_dropout(), DCP(rate=0.7, round_to=1, discrimination=0.0)
    result = prune(model, (images, None), method, finetuning=NONE, auxiliary=NONE)
    noise = lambda m: np.square(m(images, training=True) - m(images, training=False)).mean()  # noqa: E731
    assert noise(result.model) < 2 * noise(model)  # 35 times as much where the fit knows nothing of dropout


def test_dropout_variance_is_read_through_layers_that_move_values_only():
    inputs = keras.Input((4, 4, 2))
    x = L.Flatten()(L.SpatialDropout2D(0.2)(inputs))
    x = L.Dense(3)(x)
    model = keras.Model(inputs, L.Dense(2)(L.ReLU()(x)))
    trace = ChannelGraph(model).trace
    reading = [c.inputs[0] for c in trace.calls if isinstance(c.operation, L.Dense)]
    assert dropout_variance(trace, reading[0]) == pytest.approx(0.25)
    assert dropout_variance(trace, reading[1]) == 0
