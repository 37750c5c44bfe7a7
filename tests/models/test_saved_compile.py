"""What a file says of `compile` comes back, and what plain Keras does not know is named."""

import keras
import numpy as np
import pytest

from dcp_tf.models.saved_compile import compile_as_saved, own_parts


def _model() -> keras.Model:
    image = keras.Input((4,))
    return keras.Model(image, keras.layers.Dense(2, name="out")(image))


class OwnLoss(keras.losses.Loss):
    def call(self, labels, outputs):
        return keras.ops.mean(keras.ops.abs(labels - outputs), -1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.keras"


def test_optimizer_losses_and_metrics_come_back(path):
    model = _model()
    model.compile(keras.optimizers.AdamW(2e-3, weight_decay=0.01), "mae", metrics=["mse"])
    model.save(path)
    again = keras.models.load_model(path, compile=False)
    assert compile_as_saved(again, str(path)) == {}
    assert type(again.optimizer) is keras.optimizers.AdamW
    assert float(again.optimizer.learning_rate) == pytest.approx(2e-3)
    inputs, labels = np.ones((3, 4), np.float32), np.ones((3, 2), np.float32)
    np.testing.assert_allclose(again.evaluate(inputs, labels, verbose=0), model.evaluate(inputs, labels, verbose=0))
    assert own_parts(again) == []


def test_an_unknown_loss_is_left_out_and_the_optimizer_stays(path):
    model = _model()
    model.compile("adamw", OwnLoss())
    model.save(path)
    assert own_parts(model) == ["OwnLoss"]
    again = keras.models.load_model(path, compile=False)
    assert compile_as_saved(again, str(path)) == {"loss": "plain Keras does not know 'OwnLoss'"}
    assert type(again.optimizer) is keras.optimizers.AdamW
    known = keras.models.load_model(path, compile=False)
    with keras.saving.custom_object_scope({"OwnLoss": OwnLoss}):
        assert compile_as_saved(known, str(path)) == {}
    assert isinstance(known.loss, OwnLoss)


def test_a_file_without_compile_leaves_the_model_as_it_is(path):
    model = _model()
    model.save(path)
    for source in (str(path), "zoo:mobilenet_v2"):
        assert compile_as_saved(model, source) == {}
        assert not model.compiled
