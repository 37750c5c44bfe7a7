"""Quantization-aware training: the model with quantizers is the file, and the file is as good as the float model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tflite_models import CLASSES, NETWORKS, SIZE, images, settle

from dcp_tf import data, tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation import accuracy
from dcp_tf.graph import zero_kernel_masks
from dcp_tf.models.zoo import build
from dcp_tf.training import ClassificationLoss, Distillation, TrainConfig, fit, soft_targets

LOSSES = [ClassificationLoss("logits")]
IMAGES = images(96)


def labelled(epoch):
    return tf.data.Dataset.from_tensor_slices((IMAGES, np.arange(len(IMAGES)) % CLASSES)).batch(16)


def trained(model, **settings):
    return tflite.quantization_aware_training(model, labelled, LOSSES, **{"learning_rate": 1e-3} | settings)


def converted(quantized, **settings):
    return tflite.convert_qat(quantized, representative_data=IMAGES[:16], **settings)


def with_head(make):
    image = keras.Input((SIZE, SIZE, 3))
    x = make(layers.Conv2D(8, 3, padding="same", name="first")(image))
    x = layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return settle(keras.Model(image, layers.Dense(CLASSES, name="last")(x)))


SLOW = ("vgg_like", "sequential")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in NETWORKS])
def test_the_model_with_quantizers_computes_what_the_file_computes(name):
    keras.utils.set_random_seed(1)  # untrained ReLUs may be dead on all images, which XNNPACK refuses
    model = NETWORKS[name]()
    quantized = trained(model)
    file = converted(quantized, io="int8")
    found = tflite.inspect(file)
    assert found.float_operations == []
    assert found.conversions == [] or name == "squeeze_prelu"  # one tensor with two ranges, its own and a concat's
    assert found.inputs[0].type == found.outputs[0].type == "INT8"
    expected = np.asarray(quantized(IMAGES, training=False))
    errors = np.abs(tflite.Runner(file).predict(IMAGES) - expected)
    assert errors.max() < 0.06 * np.ptp(expected)
    assert errors.mean() < 0.004 * np.ptp(expected)


@pytest.mark.parametrize("name", ["residual", "mobile"])
def test_the_operations_are_those_of_an_int8_file(name):
    model = NETWORKS[name]()
    int8 = tflite.convert(model, "int8", representative_data=IMAGES[:16])
    assert tflite.inspect(converted(trained(model, epochs=0))).difference(tflite.inspect(int8)) == {}


STEPS = {
    "norm after pooling": lambda x: layers.ReLU()(layers.BatchNormalization()(layers.MaxPooling2D()(x))),
    "norm after a sum": lambda x: layers.BatchNormalization()(layers.Add()([x, layers.ReLU()(x)])),
    "rescaling": lambda x: layers.Rescaling(0.5, 1.0)(x),
    "normalization": lambda x: layers.Normalization(mean=[0.1] * 8, variance=[2.0] * 8)(x),
    "separable": lambda x: layers.SeparableConv2D(6, 3, activation="relu")(x),
    "hard swish": lambda x: layers.Conv2D(6, 1, activation="hard_silu")(x),
    "swish": lambda x: layers.Conv2D(6, 1, activation="silu")(x),
    "depthwise with two": lambda x: layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x)),
    "transposed and normed": lambda x: layers.BatchNormalization()(layers.Conv2DTranspose(4, 3, strides=2)(x)),
    "arithmetic": lambda x: keras.ops.relu(x * 2.0 + keras.ops.mean(x, axis=(1, 2), keepdims=True)),
    "slice and pad": lambda x: keras.ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [2, 2]]),
    "shared": lambda x: (conv := layers.Conv2D(8, 3, padding="same"))(layers.ReLU()(conv(x))),
    "attention": lambda x: layers.MultiHeadAttention(2, 4)(*[layers.Reshape((-1, 8))(x)] * 2)[:, 0],
}


@pytest.mark.parametrize("name", STEPS)
def test_all_layers_end_up_in_integers(name):
    model = with_head(STEPS[name])
    file = converted(trained(model, epochs=0))
    tflite.check_tolerance(tflite.check_parity(file, model, IMAGES, outputs="embeddings"), "int8")
    assert tflite.inspect(file).float_operations == []


def test_what_has_no_integer_kernel_is_refused_or_allowed():
    quantized = trained(with_head(lambda x: layers.ELU()(x)), epochs=0)
    with pytest.raises(RunError, match="ELU"):
        converted(quantized)
    assert any("ELU" in line for line in tflite.inspect(converted(quantized, allow_float=True)).float_operations)


def test_the_file_holds_the_weights_of_the_trained_copy():
    model = NETWORKS["residual"]()
    before = model.get_weights()
    quantized = trained(model)
    copy = tflite.trained_copy(quantized, model)
    tflite.check_tolerance(tflite.check_parity(converted(quantized), copy, IMAGES, outputs="embeddings"), "qat")
    changed = {w.name for w, v in zip(copy.weights, before, strict=True) if not np.array_equal(w, v)}
    assert changed == {"kernel", "bias", "gamma", "beta"}
    assert all(np.array_equal(w, v) for w, v in zip(model.weights, before, strict=True))


def test_steep_losses_do_not_undo_what_the_model_learnt():
    model, rate, steps = NETWORKS["vgg_like"](), 1e-3, 6  # six batches an epoch

    def steep(labels, outputs):
        return 1e4 * LOSSES[0](labels, outputs)

    quantized = tflite.quantization_aware_training(model, labelled, [steep], learning_rate=rate)
    after = tflite.trained_copy(quantized, model).trainable_variables
    moved = [np.square(new - old).sum() for new, old in zip(after, model.trainable_variables, strict=True)]
    assert 0 < np.sqrt(sum(moved)) < 1.01 * rate * steps / (1 - 0.9)  # gradients of length 1 with a momentum of .9


def test_equal_seeds_give_equal_models():
    model = NETWORKS["vgg_like"]()
    first, second = (trained(model).get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_pruned_kernels_stay_zero():
    model = NETWORKS["residual"]()
    layer = model.layers[4]
    keep = np.random.default_rng(0).random(layer.kernel.shape[2:]) < 0.5
    layer.kernel.assign(layer.kernel * keep)
    copy = tflite.trained_copy(trained(model, learning_rate=0.01, masks=zero_kernel_masks(model)), model)
    found = np.asarray(copy.get_layer(layer.name).kernel)
    assert np.array_equal(found.any(axis=(0, 1)), keep)
    assert not np.array_equal(found, layer.kernel)


def test_frozen_layers_stay():
    model = NETWORKS["sequential"]()
    model.layers[0].trainable = False
    copy = tflite.trained_copy(trained(model), model)
    changed = [not np.array_equal(a, b) for a, b in zip(copy.weights, model.weights, strict=True)]
    assert changed == [False, False, True, True]


def test_a_teacher_stands_for_labels():
    model = NETWORKS["sequential"]()
    unlabelled = lambda epoch: labelled(epoch).map(lambda x, y: x)  # noqa: E731
    with pytest.raises(UsageError, match="no labels"):
        tflite.quantization_aware_training(model, unlabelled, LOSSES)
    losses, teacher = [Distillation(LOSSES[0], 0.5)], soft_targets(model, "logits")
    quantized = tflite.quantization_aware_training(model, unlabelled, losses, teacher=teacher)
    tflite.check_tolerance(tflite.check_parity(converted(quantized), model, IMAGES), "int8")


def test_a_loss_that_becomes_nan_ends_the_run():
    with pytest.raises(RunError, match="lower --rate"):
        trained(NETWORKS["residual"](), learning_rate=1e30, lower="--rate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs of 0 or more"),
        ({"learning_rate": 0.0}, "learning rate above 0"),
        ({"masks": {"nothing": np.ones(3)}}, "'nothing'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        trained(NETWORKS["sequential"](), **settings)


def test_masks_of_another_shape_are_refused():
    model = NETWORKS["sequential"]()
    with pytest.raises(UsageError, match="mask of 0 and 1"):
        trained(model, masks={id(model.layers[0].kernel): np.ones(3)})


def test_convert_names_the_way_to_a_qat_file():
    with pytest.raises(UsageError, match="quantization_aware_training"):
        tflite.convert(NETWORKS["sequential"](), "qat")
    with pytest.raises(UsageError, match="io must be"):
        converted(trained(NETWORKS["sequential"](), epochs=0), io="int16")


@pytest.fixture(scope="module")
def digits():
    """A small residual network that knows the digits, and their images."""
    keras.utils.set_random_seed(0)
    found = data.load("digits", input_shape=(16, 16, 1), normalization="digits")
    model = build("preresnet8", (16, 16, 1), 10)
    fit(model, found.train, LOSSES, TrainConfig(epochs=6, batch_size=32))
    return model, found


def test_files_are_as_good_as_the_float_model(digits):
    model, found = digits
    test = np.concatenate([batch[0] for batch in found.test.batches(256).as_numpy_iterator()])
    calibration = found.train.representative(200)
    floats = accuracy(model, found.test.batches(256), outputs_kind="logits")["top1"]
    assert floats > 0.9
    quantized = tflite.quantization_aware_training(model, found.train, LOSSES)
    files = {
        "int8": (tflite.convert(model, "int8", representative_data=calibration), 0.005),
        "qat": (tflite.convert_qat(quantized, representative_data=calibration), 0.003),
    }
    for file, loss in files.values():
        top1 = np.mean(np.argmax(tflite.Runner(file).predict(test), axis=-1) == found.test.labels)
        assert top1 >= floats - loss


@pytest.mark.parametrize("kind", ["words", "pixels"])
def test_inputs_of_whole_numbers_stay_as_they_are(kind):
    inputs = keras.Input((12,) if kind == "words" else (8, 8, 3), dtype="int32" if kind == "words" else "uint8")
    x = layers.Embedding(20, 6)(inputs) if kind == "words" else layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv1D(8, 3)(x) if kind == "words" else layers.Conv2D(8, 3)(x)
    model = settle(keras.Model(inputs, layers.Dense(CLASSES)(layers.Flatten()(layers.ReLU()(x)))))
    numbers = np.random.default_rng(0).integers(0, 20 if kind == "words" else 256, (48, *inputs.shape[1:]))
    numbers = numbers.astype(inputs.dtype)
    batches = tf.data.Dataset.from_tensor_slices((numbers, np.arange(48) % CLASSES)).batch(16)
    quantized = tflite.quantization_aware_training(model, lambda epoch: batches, LOSSES, learning_rate=1e-4)
    file = tflite.convert_qat(quantized, representative_data=numbers, allow_float=kind == "pixels")
    assert tflite.inspect(file).inputs[0].type == ("INT32" if kind == "words" else "UINT8")
    assert tflite.check_parity(file, tflite.trained_copy(quantized, model), numbers).snr_db > 30
