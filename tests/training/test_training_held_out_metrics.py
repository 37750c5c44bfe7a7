"""Metrics of Keras on held-out inputs: equal to Keras' own, in records and for callbacks, and refused in one line."""

import keras
import numpy as np
import pytest
from training_nets import IMAGES, LABELS, LOGITS, batches, convolutional, plain

from dcp_tf.data import as_split, hold_out
from dcp_tf.errors import UsageError
from dcp_tf.training import fit

metrics = keras.metrics
SPLIT = as_split((IMAGES, LABELS))


def test_they_equal_those_that_keras_measures_and_callbacks_can_watch_them():
    model = convolutional()
    best = keras.callbacks.EarlyStopping("val_top2", patience=9, restore_best_weights=True)
    measured = [
        metrics.SparseTopKCategoricalAccuracy(2, name="top2"),
        metrics.SparseCategoricalCrossentropy("ce", from_logits=True),
    ]
    history = fit(model, SPLIT, [LOGITS], plain(3), keep_best=True, metrics=measured, callbacks=[best])
    assert best.mode == "max"
    batch = next(iter(hold_out(SPLIT, None, 0)[1].batches(99)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=measured)
    kerass = model.evaluate(*(np.asarray(part) for part in batch), verbose=0, return_dict=True)
    assert [record["held_out_ce"] for record in history] == pytest.approx([r["held_out_loss"] for r in history])
    assert kerass["top2"] == pytest.approx(history[best.best_epoch]["held_out_top2"])


@pytest.mark.parametrize(
    ("given", "settings", "line"),
    [
        ([metrics.AUC()], {"held_out": 0}, "held_out above 0"),
        ({"boxes": [metrics.AUC()]}, {}, "metrics must be a list"),
        ([metrics.AUC], {}, "such as keras.metrics.AUC"),
    ],
)
def test_what_cannot_be_measured_is_refused(given, settings, line):
    with pytest.raises(UsageError, match=line):
        fit(convolutional(), SPLIT, [LOGITS], plain(**settings), keep_best=True, metrics=given)
    with pytest.raises(UsageError, match="keep_best"):
        fit(convolutional(), batches(), [LOGITS], plain(), metrics=given)
