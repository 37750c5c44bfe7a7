"""Algorithm 2: the loop over a made-up problem, and the whole of it against a slow reference in NumPy."""

import keras
import numpy as np
import pytest
from pruning_nets import CLASSES, Setting, images

from dcp_tf.pruning.problem.algorithm2 import LossTerms, select_greedily
from dcp_tf.pruning.problem.problem import SubProblem
from dcp_tf.pruning.stopping import FixedRate, RelativeChange, RelativeChangeOrCap


class MadeUp:
    """Fixed scores; the loss falls to a given value with each solve."""

    def __init__(self, scores, losses=None):
        self.size = len(scores)
        self._scores = np.asarray(scores, float)
        self._losses = losses or [1.0] * (len(scores) + 1)
        self.solved = []

    def scores(self):
        return self._scores

    def loss(self):
        value = self._losses[min(len(self.solved), len(self._losses)) - 1]
        return LossTerms(value, value / 4, value * 3 / 4)

    def solve(self, selected):
        self.solved.append(np.flatnonzero(selected).tolist())


def test_largest_scores_come_first_and_ties_go_to_the_lower_number():
    problem = MadeUp([1, 5, 3, 5, 0, 3])
    selection = select_greedily(problem, FixedRate(1 / 6), per_step=2)
    assert selection.history["added"] == [[], [1, 3], [2, 5], [0]]
    assert selection.history["kept"] == [0, 2, 4, 5]
    assert problem.solved == [[], [1, 3], [1, 2, 3, 5], [0, 1, 2, 3, 5]]
    assert np.flatnonzero(selection.selected).tolist() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(("per_step", "steps"), [(1, 5), (2, 3), (3, 2), (5, 1), (50, 1)])
def test_a_step_never_adds_more_than_is_left(per_step, steps):
    problem = MadeUp(range(10))
    selection = select_greedily(problem, FixedRate(0.5), per_step=per_step)
    assert np.flatnonzero(selection.selected).tolist() == [5, 6, 7, 8, 9]
    assert len(problem.solved) == steps + 1


def test_each_step_is_told_with_its_limit():
    told = []
    select_greedily(MadeUp(range(8), [4.0, 3.0, 2.0]), FixedRate(0.5), 2, lambda *step: told.append(step))
    assert told == [(2, 4, 3.0), (4, 4, 2.0)]


def test_history_has_an_entry_per_step_from_the_empty_set():
    history = select_greedily(MadeUp(range(4), [4.0, 3.0]), FixedRate(0.5), 2).history
    assert history == {
        "kept": [0, 2],
        "loss": [4.0, 3.0],
        "reconstruction": [1.0, 0.75],
        "discrimination": [3.0, 2.25],
        "added": [[], [3, 2]],
    }


def test_sc1_takes_every_channel_where_the_loss_keeps_falling():
    losses = [2.0**-i for i in range(20)]
    assert select_greedily(MadeUp(range(9), losses), RelativeChange(1e-9), 2).selected.all()


# The whole of Algorithm 2 in NumPy

LAMBDA, RATE, MOMENTUM, DECAY, CHANNELS = 0.7, 0.05, 0.9, 1e-2, 6


def make_net(size):
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(CHANNELS, 1, activation="relu", name="make")(image)
    x = keras.layers.Conv2D(CLASSES, size, padding="same", bias_initializer="normal", name="read")(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


class InNumPy:
    """A convolution of stride 1, mean over space, softmax cross-entropy; float64, loops where that is plainer."""

    def __init__(self, model, x, y, batch, seed):
        make, read = (model.get_layer(n) for n in ("make", "read"))
        kernel, bias = (w.numpy().astype("float64") for w in make.weights)
        maps = np.maximum(np.einsum("nhwi,io->nhwo", x, kernel[0, 0]) + bias, 0)
        self.start, self.bias = (w.numpy().astype("float64") for w in read.weights)
        size = self.start.shape[0]
        edge = np.pad(maps, [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)])
        height, width = maps.shape[1:3]
        self.patches = np.stack(
            [np.stack([edge[:, a : a + height, b : b + width] for b in range(size)], axis=3) for a in range(size)],
            axis=3,
        )  # (N, H, W, size, size, channels)
        self.target = self.outputs(self.start, self.bias, slice(None))
        self.labels = np.eye(CLASSES)[y]
        self.kernel = np.zeros_like(self.start)
        self.batches = [slice(i, i + batch) for i in range(0, len(x), batch)]
        self.rng = np.random.default_rng(seed)

    def outputs(self, kernel, bias, part):
        return np.einsum("nhwabi,abio->nhwo", self.patches[part], kernel) + bias

    def terms(self, part):
        """L_M, L_S, dL/dkernel and dL/dbias over some images."""
        found = self.outputs(self.kernel, self.bias, part)
        error = found - self.target[part]
        logits = found.mean((1, 2))
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        labels = self.labels[part]
        by_output = LAMBDA * error / error.size
        by_output += ((shares - labels) / len(labels) / (error.shape[1] * error.shape[2]))[:, None, None]
        by_kernel = np.einsum("nhwabi,nhwo->abio", self.patches[part], by_output)
        return (
            (error**2).sum() / (2 * error.size),
            -np.log((shares * labels).sum(-1)).mean(),
            by_kernel,
            by_output.sum((0, 1, 2)),
        )

    def loss(self):
        reconstruction, discrimination, *_ = self.terms(slice(None))
        return LAMBDA * reconstruction + discrimination

    def solve(self, selected):
        speed, bias_speed = np.zeros_like(self.kernel), np.zeros_like(self.bias)
        for number in self.rng.permutation(len(self.batches)):
            _, _, by_kernel, by_bias = self.terms(self.batches[number])
            by_kernel = (by_kernel + DECAY * self.kernel) * selected[:, None]
            speed, bias_speed = MOMENTUM * speed + by_kernel, MOMENTUM * bias_speed + by_bias
            self.kernel = self.kernel - RATE * (by_kernel + MOMENTUM * speed)
            self.bias = self.bias - RATE * (by_bias + MOMENTUM * bias_speed)

    def algorithm_2(self, per_step, done, most):
        """The paper's box. `done(losses, kept)` and the `most` that may be kept."""
        selected, added, losses = [], [], [self.loss()]
        while len(selected) < most and not done(losses, len(selected)):
            scores = np.sqrt((self.terms(slice(None))[2] ** 2).sum((0, 1, 3)))
            scores[selected] = -1
            best = sorted(range(CHANNELS), key=lambda k: (-scores[k], k))[: min(per_step, most - len(selected))]
            for k in best:
                self.kernel[:, :, k] = self.start[:, :, k]
            selected += best
            self.solve(np.isin(np.arange(CHANNELS), selected))
            losses.append(self.loss())
            added.append(best)
        return added, losses


def sc1(epsilon):
    return lambda losses, kept: len(losses) > 1 and abs(losses[-2] - losses[-1]) / losses[0] <= epsilon


RULES = {
    "rate": (FixedRate(0.3), lambda losses, kept: False, 5),
    "SC1": (RelativeChange(0.02), sc1(0.02), 6),
    "SC2 by the loss": (RelativeChangeOrCap(0.05, min_rate=0.1), sc1(0.05), 6),
    "SC2 by the cap": (RelativeChangeOrCap(1e-9, min_rate=0.4), sc1(1e-9), 4),
}


@pytest.mark.parametrize(
    ("size", "per_step", "rule"),
    [
        *((1, 1, rule) for rule in RULES),
        *((3, 2, rule) for rule in RULES),
    ],
)
def test_selection_equals_algorithm_2_in_numpy(size, per_step, rule):
    stopping, done, most = RULES[rule]
    model, (x, y) = make_net(size), images(14, seed=5)
    reference = InNumPy(model, x, y, batch=5, seed=7)
    settings = SubProblem(LAMBDA, 1.0, learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    setting = Setting(model, settings=settings, data=(x, y), batch=5, seed=7)
    selection = select_greedily(setting.problem, stopping, per_step)
    added, losses = reference.algorithm_2(per_step, done, most)
    assert selection.history["added"] == [[], *added]
    np.testing.assert_allclose(selection.history["loss"], losses, rtol=1e-5)
    kernel, bias = (w.numpy() for w in model.get_layer("read").weights)
    np.testing.assert_allclose(kernel, reference.kernel, atol=1e-5)
    np.testing.assert_allclose(bias, reference.bias, atol=1e-5)
