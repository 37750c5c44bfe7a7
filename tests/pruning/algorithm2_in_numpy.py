"""Algorithm 2 over a made-up problem, and all of it in NumPy: slow, float64, the reference of the tests."""

import keras
import numpy as np
from pruning_nets import CLASSES

from dcp_tf.pruning.problem.algorithm2 import LossTerms
from dcp_tf.pruning.stopping import FixedRate, RelativeChange, RelativeChangeOrCap

LAMBDA, RATE, MOMENTUM, DECAY, CHANNELS = 0.7, 0.05, 0.9, 1e-2, 6


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
