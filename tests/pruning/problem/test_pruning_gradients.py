"""The scores of Algorithm 2 and its loss, against central differences of a loss written down anew in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import NETS, Net, Setting, build, images

STEP = 1e-7  # small enough that no ReLU changes sides


class Reference:
    """`L_M + L_S` (eq. 5, 6) of a float64 model whose linear outputs are tensors of it."""

    def __init__(self, make, like, consumers):
        net = Net("float64", split_activations=True)
        self.model = build(make, net)
        self.copy(like)
        outputs = [y for name in consumers for y in net.linear[name]]
        self.x, self.y = (tf.constant(a) for a in images())
        self.x = tf.cast(self.x, tf.float64)
        both = keras.Model(self.model.inputs, [*outputs, self.model.outputs[0]])
        run = tf.function(lambda: keras.tree.flatten(both(self.x, training=False)))
        self.target = run()[:-1]

        def terms():
            *found, logits = run()
            reconstruction = tf.add_n(
                [
                    tf.reduce_sum((a - b) ** 2) / (2 * tf.size(a, tf.float64))
                    for a, b in zip(self.target, found, strict=True)
                ]
            )
            scores = tf.nn.log_softmax(logits)
            discrimination = -tf.reduce_mean(tf.gather(scores, self.y, batch_dims=1))
            return reconstruction, discrimination

        self.terms = tf.function(terms)

    def kernel(self, consumer):
        return next(v for v in self.model.variables if v.path.endswith("/".join(consumer.kernel.path.split("/")[-2:])))

    def slope(self, consumer, direction):
        """The derivative of the loss along a direction of a kernel, by central differences."""
        kernel = self.kernel(consumer)
        start, sides = kernel.numpy(), []
        for sign in (1, -1):
            kernel.assign(start + sign * STEP * direction)
            sides.append(float(sum(self.terms())))
        kernel.assign(start)
        return (sides[0] - sides[1]) / (2 * STEP)

    def copy(self, model):
        for mine, theirs in zip(self.model.variables, model.variables, strict=True):
            mine.assign(theirs.numpy().astype("float64"))


def channels_of(net):
    """Which kernels read the group `make` in each net, by layer name."""
    return {
        "flattened": ["logits"],
        "residual": ["read1", "read2", "logits"],
        "shared": ["read", "logits"],
    }.get(net, ["read"])


@pytest.mark.parametrize("net", NETS)
def test_scores_and_losses_are_those_of_the_whole_selection_set(net, rng):
    model = build(NETS[net])
    reference = Reference(NETS[net], model, channels_of(net))
    setting = Setting(model)
    assert {r.operation.name for r in setting.consumers} == set(channels_of(net))
    problem = setting.problem
    for chosen in ((), (1, 2)):
        problem.solve(setting.mask(*chosen))
        reference.copy(model)
        scores, loss = problem.scores(), problem.loss()
        reconstruction, discrimination = (float(t) for t in reference.terms())
        np.testing.assert_allclose(loss.reconstruction, reconstruction, rtol=1e-5)
        np.testing.assert_allclose(loss.discrimination, discrimination, rtol=1e-5)
        np.testing.assert_allclose(loss.joint, reconstruction + discrimination, rtol=1e-5)
        squares = np.zeros(setting.group.size)
        for consumer, gradient in zip(setting.consumers, problem._gradients, strict=True):
            squares += slopes_by_channel(reference, consumer, gradient, setting.group.size, rng)
        np.testing.assert_allclose(scores, np.sqrt(squares), rtol=1e-4)
        assert scores.min() > 0


def slopes_by_channel(reference, consumer, gradient, size, rng):
    """Checks a kernel's gradient along dense random directions; returns its squared norm for each channel."""
    gradient = gradient.astype("float64")
    for _ in range(8):
        direction = rng.normal(size=gradient.shape)
        noise = 2e-5 * np.linalg.norm(gradient)
        np.testing.assert_allclose(reference.slope(consumer, direction), (direction * gradient).sum(), atol=noise)
    squares = np.zeros(size)
    for channel in range(size):
        own = gradient * (consumer.atom == channel)
        squares[channel] = reference.slope(consumer, own)
    return squares
