import dataclasses

import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return nets.residual()


@pytest.fixture(scope="module")
def file(model):
    return tflite.convert(model)


def test_accuracies_are_those_of_numpy(model, file):
    data, labels = nets.images(50), np.random.default_rng(0).integers(0, nets.CLASSES, 50)
    parity = tflite.check_parity(file, model, data, labels)
    expected = np.mean(np.argmax(np.asarray(model(data, training=False)), -1) == labels)
    assert parity.keras_top1 == pytest.approx(expected)
    assert parity.top1 == pytest.approx(expected)
    assert parity.samples == 50


def test_rounding_of_constant_outputs_is_no_error_of_their_spread():
    inputs = keras.Input((4,))
    dense = layers.Dense(1, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(0.3))
    constant = keras.Model(inputs, dense(inputs))
    ramp = np.linspace(0, 1, 80, dtype="float32").reshape(20, 4)
    dense.kernel.assign(np.full((4, 1), 1e-7))
    assert tflite.check_parity(tflite.convert(constant, "float16"), constant, ramp).mean_error < 1


def test_another_model_s_file_is_refused(model, file):
    other = nets.settle(keras.models.clone_model(model), seed=7)
    parity = tflite.check_parity(file, other, nets.images())
    assert parity.max_error > 1e-2
    with pytest.raises(RunError, match="does not equal its Keras model"):
        tflite.check_tolerance(parity, "float32")


def test_a_file_calibrated_on_wrong_data_is_refused(model):
    wrong = tflite.convert(model, "int8", representative_data=nets.images() * 1e-3)
    parity = tflite.check_parity(wrong, model, nets.images(40) * 10)
    with pytest.raises(RunError, match="calibrate"):
        tflite.check_tolerance(parity, "int8")


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_the_calibration_is_blamed_only_where_other_images_fit_better(mode):
    near = tflite.Parity(1e-5, 1e-6, 1.0, None, None, 10)
    far = dataclasses.replace(near, mean_error=0.9)
    for on_calibration in (None, near):
        with pytest.raises(RunError, match="calibrate on images like those the model was trained on"):
            tflite.check_tolerance(far, mode, on_calibration)
    with pytest.raises(RunError, match=r"as far off on the images that it was calibrated on.* export .*float16"):
        tflite.check_tolerance(far, mode, far)
    with pytest.raises(RunError) as caught:
        tflite.check_tolerance(far, "qat", far)
    assert "calibrat" not in str(caught.value)


def test_what_require_accepts():
    near = tflite.Parity(1e-5, 1e-6, 1.0, None, None, 10)
    tflite.check_tolerance(near, "float32")
    tflite.check_tolerance(near, "int8")
    for accepted in (
        dataclasses.replace(near, max_error=3.0, mean_error=0.4, top1_agreement=0.95),
        dataclasses.replace(near, max_error=3.0, mean_error=0.05, top1_agreement=0.5),
        dataclasses.replace(near, max_error=3.0, mean_error=0.05, top1_agreement=None),
    ):
        tflite.check_tolerance(accepted, tflite.Quantization.INT8)
    for refused in (
        dataclasses.replace(near, mean_error=0.4, top1_agreement=0.5),
        dataclasses.replace(near, mean_error=0.9, top1_agreement=1.0),
        dataclasses.replace(near, mean_error=0.5, top1_agreement=None),
        dataclasses.replace(near, max_error=float("nan")),
    ):
        with pytest.raises(RunError):
            tflite.check_tolerance(refused, "int8")


def test_probabilities_are_compared_absolutely_and_one_unit_decides_at_a_half():
    inputs = keras.Input((6,))
    model = nets.settle(keras.Model(inputs, layers.Dense(1, activation="sigmoid")(inputs)))
    data = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    file = tflite.convert(model, "int8", representative_data=data)
    labels = (np.asarray(model(data))[:, 0] > 0.5).astype(int)
    parity = tflite.check_parity(file, model, data, labels, outputs="probabilities")
    assert parity.keras_top1 == 1.0
    assert parity.top1 == parity.top1_agreement > 0.9
    difference = np.abs(tflite.Runner(file).predict(data) - np.asarray(model(data)))
    assert parity.max_error == pytest.approx(difference.max(), rel=1e-3)


@pytest.mark.parametrize("outputs", ["probabilities", "logits"])
def test_several_classes_at_once_are_decided_one_by_one(outputs):
    inputs = keras.Input((6,))
    activation = "sigmoid" if outputs == "probabilities" else None
    model = nets.settle(keras.Model(inputs, layers.Dense(5, activation=activation)(inputs)))
    data = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    file = tflite.convert(model, "int8", representative_data=data)
    parity = tflite.check_parity(file, model, data, outputs=outputs, independent=True)
    limit = 0.5 if outputs == "probabilities" else 0.0
    alike = (tflite.Runner(file).predict(data) > limit) == (np.asarray(model(data)) > limit)
    assert parity.top1_agreement == pytest.approx(alike.mean())
    assert parity.top1 is None


def test_embeddings_have_no_agreement(model, file):
    parity = tflite.check_parity(file, model, nets.images(), outputs="embeddings")
    assert parity.top1_agreement is None
    assert parity.max_error < 1e-4


def test_wrong_input_is_a_usage_error(model, file):
    data = nets.images(4)
    for call, words in (
        (lambda: tflite.check_parity(file, model, data[:0]), "no images"),
        (lambda: tflite.check_parity(file, model, data, np.zeros(3, int)), "3 labels"),
        (lambda: tflite.check_parity(file, model, data, np.zeros((4, 5))), "class numbers"),
        (lambda: tflite.check_parity(file, model, data, outputs="scores"), "logits"),
        (lambda: tflite.check_parity(file, model, data[:, :4]), "16, 16, 3"),
        (lambda: tflite.Runner(file, threads=0), "threads"),
        (lambda: tflite.check_tolerance(None, "int9"), "int9"),
    ):
        with pytest.raises(UsageError, match=words):
            call()


def test_integer_files_take_and_give_floats(model):
    data = nets.images(30)
    inside = tflite.convert(model, "int8", representative_data=data)
    outside = tflite.convert(model, "int8", representative_data=data, io="int8")
    first, second = (tflite.Runner(file, threads=2).predict(data) for file in (inside, outside))
    assert first.dtype == second.dtype == np.float32
    # The same numbers up to one rounding at the input.
    assert np.abs(first - second).max() < 0.1 * first.std()


def test_no_samples_give_no_outputs(file):
    assert tflite.Runner(file).predict(nets.images(0)).shape == (0, nets.CLASSES)
