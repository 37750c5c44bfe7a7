"""ThiNet and LASSO equal what their papers say, written out slowly on small problems."""

import itertools

import keras
import numpy as np
import pytest
from pruning_nets import BARE

import dcp_tf
from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.pruning import Lasso, ThiNet
from dcp_tf.pruning.elimination.quadratic import Quadratic
from dcp_tf.pruning.elimination.thinet_lasso import contributions, lasso, thinet

PLACES = 200


class Layer:
    """A layer on random inputs: its patches, kernel, wanted outputs, and the model of its reconstruction loss."""

    def __init__(self, seed, size=5, rows_each=2, outputs=3, others=0, dependent=True, scale=1.0):
        rng = np.random.default_rng(seed)
        rows = size * rows_each + others
        mix = rng.normal(size=(rows, rows)) if dependent else np.eye(rows)
        self.scale = scale  # how much its outputs count
        self.channel = np.concatenate([np.repeat(np.arange(size), rows_each), np.full(others, -1)])
        self.patches = rng.normal(size=(PLACES, rows)) @ mix
        self.kernel = rng.normal(size=(rows, outputs))
        self.wanted = self.patches @ self.kernel + 0.3 * rng.normal(size=(PLACES, outputs))

    @property
    def model(self):
        gram, products = self.patches.T @ self.patches, self.patches.T @ self.wanted
        mask = np.ones((len(self.channel), 1), bool)
        return Quadratic(gram, products, self.channel[:, None], mask, self.scale * np.eye(self.kernel.shape[1]))

    def of(self, channel):
        """What one channel adds to the outputs, as they count."""
        mine = self.channel == channel
        return np.sqrt(self.scale) * self.patches[:, mine] @ self.kernel[mine]

    @property
    def target(self):
        """What its channels have to make, as it counts."""
        return np.sqrt(self.scale) * self.wanted - self.of(-1)


def both(layers, chooser, size, width):
    return chooser([layer.model for layer in layers], [layer.kernel for layer in layers], size, width)


@pytest.fixture
def layers():
    return [Layer(0, others=3), Layer(1, rows_each=4, outputs=2, scale=0.3)]


def test_contributions_are_the_inner_products_of_what_channels_add(layers):
    gram, target = contributions([layer.model for layer in layers], [layer.kernel for layer in layers], 5)
    for a, b in itertools.product(range(5), range(5)):
        assert gram[a, b] == pytest.approx(sum(np.vdot(layer.of(a), layer.of(b)) for layer in layers))
    for k in range(5):
        assert target[k] == pytest.approx(sum(np.vdot(la.of(k), la.target) for la in layers))


def test_thinet_removes_what_changes_the_outputs_least_and_scales_by_least_squares(layers):
    removed = []
    for _ in range(3):
        rest = [k for k in range(5) if k not in removed]
        errors = [sum(np.square(sum(la.of(j) for j in [*removed, k])).sum() for la in layers) for k in rest]
        removed.append(rest[int(np.argmin(errors))])
    selected, kernels = both(layers, thinet, 5, 2)
    kept = [k for k in range(5) if k not in removed]
    assert np.flatnonzero(selected).tolist() == kept
    design = np.concatenate([np.stack([la.of(k).ravel() for k in kept], 1) for la in layers])
    wanted = np.concatenate([sum(la.of(k) for k in range(5)).ravel() for la in layers])
    scales = np.linalg.lstsq(design, wanted, rcond=None)[0]
    for layer, kernel in zip(layers, kernels, strict=True):
        factors = np.zeros(5)
        factors[kept] = scales
        expected = np.where(layer.channel < 0, 1.0, factors[layer.channel])[:, None] * layer.kernel
        np.testing.assert_allclose(kernel, expected, rtol=1e-6, atol=1e-9)


def test_thinet_without_removal_changes_nothing(layers):
    selected, kernels = both(layers, thinet, 5, 5)
    assert selected.all()
    for layer, kernel in zip(layers, kernels, strict=True):
        np.testing.assert_allclose(kernel, layer.kernel, rtol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_lasso_keeps_the_scales_that_are_left_at_the_lowest_penalty(layers, width):
    from sklearn.linear_model import Lasso as SlowLasso

    norms = [np.sqrt(sum(np.square(la.kernel[la.channel == k]).sum() for la in layers)) for k in range(5)]
    design = np.concatenate([np.stack([la.of(k).ravel() / norms[k] for k in range(5)], 1) for la in layers])
    wanted = np.concatenate([la.target.ravel() for la in layers])
    largest = np.abs(design.T @ wanted).max() / len(wanted)
    for penalty in np.geomspace(1e-5 * largest, largest, 400):
        scales = SlowLasso(alpha=penalty, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(design, wanted).coef_
        if (scales != 0).sum() <= width:
            break
    selected, kernels = both(layers, lasso, 5, width)
    assert selected.sum() == width
    assert set(np.flatnonzero(scales)) <= set(np.flatnonzero(selected))
    for layer, kernel in zip(layers, kernels, strict=True):
        rows = (layer.channel < 0) | selected[layer.channel]
        fitted = np.linalg.lstsq(layer.patches[:, rows], layer.wanted, rcond=None)[0]
        assert (kernel[~rows] == 0).all()
        error, least = (np.square(layer.patches[:, rows] @ w - layer.wanted).sum() for w in (kernel[rows], fitted))
        assert error <= 1.01 * least


@pytest.mark.parametrize("chooser", [thinet, lasso])
def test_dead_and_doubled_channels_go_first(chooser):
    layer = Layer(3, dependent=False)
    layer.patches[:, layer.channel == 1] = 0
    layer.patches[:, layer.channel == 4] = layer.patches[:, layer.channel == 2]
    layer.kernel[layer.channel == 4] = -layer.kernel[layer.channel == 2]
    layer.wanted = layer.patches @ layer.kernel
    selected, _ = both([layer], chooser, 5, 2)
    assert np.flatnonzero(selected).tolist() == [0, 3]


@pytest.mark.parametrize("chooser", [thinet, lasso])
def test_where_all_channels_are_dead_any_will_do(chooser):
    layer = Layer(3, dependent=False)
    layer.patches[:] = 0
    layer.wanted = layer.patches @ layer.kernel
    selected, _ = both([layer], chooser, 5, 2)
    assert selected.sum() == 2


def net(readers=1):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(image)
    x = [keras.layers.Conv2D(4, 3, strides=2, name=f"b{i}")(x) for i in range(readers)]
    x = keras.layers.Concatenate()(x) if readers > 1 else x[0]
    x = keras.layers.ReLU()(x)
    return keras.Model(image, keras.layers.Dense(3, name="c")(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    return data.make_array_split(rng.normal(size=(96, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, 96))


def run(model, split, method):
    return dcp_tf.prune(model, split, method, **BARE)


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("kind", [ThiNet, Lasso])
def test_the_new_weights_answer_more_like_the_baseline_than_the_old_ones(kind, readers, split):
    model = net(readers)
    result = run(model, split, kind(rate=0.5, selection_batch=40))
    assert {g.name: len(g.kept) for g in result.plan.groups}["a"] == 4
    wanted = np.asarray(model(split.inputs))

    def error(smaller):
        return np.square(np.asarray(smaller(split.inputs)) - wanted).mean()

    assert error(result.model) < error(result.plan.apply(model))


@pytest.mark.parametrize("kind", [ThiNet, Lasso])
def test_layers_that_cannot_be_reconstructed_are_named_before_anything_runs(kind, split):
    image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(8, 3, name="a")(image)
    x = keras.layers.SeparableConv2D(8, 3, name="b")(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(UsageError, match=r"'b' is neither a plain convolution.*exclude="):
        run(model, split, kind(rate=0.5))
    assert run(model, split, kind(rate=0.5, exclude=("a",))).plan.channels.keys() == {"b"}
