"""Class weights count in selection and training as the sample weights that they stand for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dcp_tf
from dcp_tf.training import TrainConfig

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(96, 6)).astype("float32")
CLASSES = (INPUTS[:, 0] > 0.7).astype(int) + (INPUTS[:, 1] > 0)
BY_CLASS = {0: 0.25, 2: 4.0}
WEIGHTS = np.array([0.25, 1.0, 4.0], "float32")[CLASSES]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((6,)), dense(12, "relu"), dense(12, "relu"), dense(3, "softmax")])


def pruned(model, data, **settings):
    method = dcp_tf.DCP(rate=0.5, round_to=1, selection_samples=96, selection_batch=32, recover=0)
    config = TrainConfig(epochs=1, batch_size=32)
    settings = {"auxiliary": config, "finetuning": config, "looks_at_baseline": False, "verbose": 0, **settings}
    result = dcp_tf.prune(model, data, method, **settings)
    return result.plan, result.model.get_weights()


def test_they_are_the_sample_weights_that_they_stand_for(model):
    plan, weights = pruned(model, (INPUTS, CLASSES), class_weight=BY_CLASS)
    same_plan, same_weights = pruned(model, (INPUTS, CLASSES, WEIGHTS))
    _, others = pruned(model, (INPUTS, CLASSES))
    assert plan == same_plan
    for one, same in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(one, same)
    assert any(not np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


@pytest.mark.slow
def test_a_run_does_not_resume_with_other_ones(model, tmp_path):
    batches = tf.data.Dataset.from_tensor_slices((INPUTS, CLASSES)).batch(32)
    for data in ((INPUTS, CLASSES), batches):
        folder = tmp_path / type(data).__name__
        pruned(model, data, class_weight=BY_CLASS, state_dir=folder)
        with pytest.raises((dcp_tf.UsageError, dcp_tf.RunError), match="cannot resume"):
            pruned(model, data, class_weight={0: 2.0}, state_dir=folder, resume=True)


def test_what_names_no_class_is_one_line(model):
    with pytest.raises(dcp_tf.UsageError, match="class number: weight"):
        pruned(model, (INPUTS, CLASSES), class_weight={"rare": 2.0})
