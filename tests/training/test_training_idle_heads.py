"""What a constant answer reaches, and which heads do no better."""

import numpy as np
import pytest

from dcp_tf.training import ClassificationLoss, MeanSquaredError
from dcp_tf.training.idle_heads import HeadLoss, constant_loss

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("independent", "labels", "shape"),
    [
        (False, RNG.choice(4, 400, p=[0.5, 0.3, 0.2, 0.0]), (None, 4)),
        (False, np.eye(3)[RNG.integers(0, 3, 400)].astype("float32"), (None, 3)),
        (False, RNG.integers(0, 2, (40, 5, 5)), (None, 5, 5, 2)),
        (True, (RNG.random((400, 3)) < [0.1, 0.5, 0.9]).astype("float32"), (None, 3)),
        (True, RNG.integers(0, 2, 400), (None, 1)),
    ],
)
def test_no_constant_answer_does_better(independent, labels, shape):
    loss = ClassificationLoss("logits", independent)
    of_constant = constant_loss(loss, labels, shape)
    constants = RNG.normal(size=(50, shape[-1])).astype("float32")
    whole = (len(labels), *shape[1:])
    assert of_constant <= min(float(loss(labels, np.broadcast_to(c, whole))) for c in constants) + 1e-5
    assert of_constant > 0.1


def test_equal_classes_and_numbers():
    of_constant = constant_loss(ClassificationLoss("logits"), np.arange(1000) % 10, (None, 10))
    assert of_constant == pytest.approx(np.log(10), rel=2e-2)
    numbers = RNG.normal(5.0, 2.0, (300, 1)).astype("float32")
    assert constant_loss(MeanSquaredError(), numbers, (None, 1)) == pytest.approx(numbers.var(), rel=1e-3)
    assert constant_loss(lambda labels, outputs: 0.0, numbers, (None, 1)) is None


def test_heads_must_be_clearly_better():
    losses = [HeadLoss("layer", "", loss, np.log(10)) for loss in (2.3, 2.2, 0.1, np.nan, 2.26)]
    assert [head.is_at_chance for head in losses] == [True, False, False, True, True]
