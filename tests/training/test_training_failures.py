"""A training that cannot go on, or cannot begin, says so in one line."""

import numpy as np
import pytest
import tensorflow as tf
from training_nets import IMAGES, LABELS, LOGITS, batches, convolutional, linear, plain

from dcp_tf.errors import RunError, UsageError
from dcp_tf.training import Distillation, fit, soft_targets


def test_nan_stops_with_epoch_step_and_what_to_lower():
    images = IMAGES.copy()
    images[20] = np.nan
    with pytest.raises(RunError) as caught:
        fit(
            convolutional(),
            batches(images),
            [LOGITS],
            plain(),
            phase="fine-tuning",
            lr_setting="finetuning.learning_rate",
        )
    assert (
        str(caught.value)
        == "the loss became NaN in fine-tuning (epoch 1, step 2); lower finetuning.learning_rate (now 0.1)"
    )


def test_weights_spoiled_by_the_last_step_are_noticed():
    with pytest.raises(RunError, match="became NaN in fine-tuning"):
        fit(linear(), batches(np.full((8, 5), 1e30, "float32"), LABELS[:8], 8), [LOGITS], plain(learning_rate=1e30))


def test_a_long_epoch_stops_soon_after_nan():
    taken = []

    def endless(epoch):
        def images():
            for index in range(1000):
                taken.append(index)
                yield np.full((1, 5), np.nan, "float32"), np.zeros(1, "int32")

        spec = (tf.TensorSpec((None, 5), tf.float32), tf.TensorSpec((None,), tf.int32))
        return tf.data.Dataset.from_generator(images, output_signature=spec)

    with pytest.raises(RunError, match="step 1"):
        fit(linear(), endless, [LOGITS], plain())
    assert len(taken) < 300


def shapeless(epoch):
    return tf.data.Dataset.from_generator(lambda: iter([(IMAGES, LABELS)]), output_types=(tf.float32, tf.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": [LOGITS, LOGITS]}, "one loss per output"),
        ({"loss_weights": [1.0, 2.0]}, "one weight per loss"),
        ({"split_or_batches": batches(labels=LABELS + 1)}, r"labels in 0\.\.2"),
        ({"split_or_batches": batches(labels=None)}, "no labels"),
        ({"split_or_batches": lambda epoch: batches()(epoch).take(0)}, "empty"),
        ({"split_or_batches": lambda epoch: batches()(epoch).repeat()}, "never ends"),
        ({"split_or_batches": lambda epoch: batches()(epoch).map(lambda x, y: (x, y, y, y))}, "tuples of 4"),
        ({"split_or_batches": IMAGES}, "ndarray"),
        ({"split_or_batches": shapeless}, "shapes are unknown"),
        ({"masks": {"nowhere/kernel": np.ones(3)}}, "nowhere/kernel"),
        ({"masks": {"conv/kernel": np.ones(3)}}, "shape"),
        ({"masks": {"conv/bias": np.full(6, 0.5)}}, "0 and 1"),
        ({"losses": [Distillation(LOGITS)]}, "needs a teacher"),
        ({"teacher": soft_targets(convolutional(), "logits")}, "no loss is a Distillation"),
        ({"losses": [lambda labels, outputs: tf.constant(1.0)]}, "no trainable weight"),
    ],
)
def test_wrong_input_gets_one_clear_line(change, message):
    arguments = {"split_or_batches": batches(), "losses": [LOGITS], "config": plain(), **change}
    with pytest.raises(UsageError, match=message) as caught:
        fit(convolutional(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_model_with_nothing_to_train_is_refused():
    model = convolutional()
    model.trainable = False
    with pytest.raises(UsageError, match="no trainable weights"):
        fit(model, batches(), [LOGITS], plain())
