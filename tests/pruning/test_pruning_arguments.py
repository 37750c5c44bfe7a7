"""Arguments of the Python API that are mixed up or of another type: one line that says what to give."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf
from dcp_tf.pruning import METHODS

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((32, 8, 8, 3)).astype("float32"), np.arange(32) % 4
NONE = dcp_tf.TrainConfig(epochs=0)


@pytest.fixture(scope="module")
def model():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(image))
    return keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


@pytest.mark.parametrize(
    ("data", "method", "settings", "words"),
    [
        (IMAGES, LABELS, {}, r"prune\(model, \(images, labels\), method\)"),
        ((IMAGES, LABELS), "dcp", {}, r"such as dcp_tf\.DCP\(rate=0\.5\), received 'dcp'"),
        ((IMAGES, LABELS), dcp_tf.DCP, {}, "such as dcp_tf.DCP"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"finetuning": 3}, "finetuning must be a dcp_tf.TrainConfig"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"seed": "a"}, "seed must be a whole number"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"seed": None}, "seed must be a whole number"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"distillation": "half"}, "distillation must be a number"),
        ((np.moveaxis(IMAGES, -1, 1), LABELS), dcp_tf.L1(), {}, "channels come first"),
        ((IMAGES, {"a": LABELS, "b": LABELS}), dcp_tf.L1(), {}, "labels for the outputs 'a', 'b'"),
    ],
)
def test_what_is_mixed_up_is_one_line(model, data, method, settings, words):
    with pytest.raises(dcp_tf.UsageError, match=words):
        dcp_tf.prune(model, data, method, **{"auxiliary": NONE, "finetuning": NONE, **settings})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "50%"}, r'such as dcp_tf\.Target\("macs", "50%"\)'),
        ({"rate": "30%"}, "rate must be a number"),
        ({"rate": True}, "rate must be a number"),
        ({"round_to": 8.5}, "round_to must be a whole number"),
        ({"selection_samples": None}, "selection_samples must be a whole number"),
        ({"prune_residual": 1}, "prune_residual must be True or False"),
        ({"exclude": 3}, "exclude must be a tuple"),
        ({"rates": (0.5,)}, "rates must be a tuple, each of it a pair"),
    ],
)
def test_settings_of_another_type_name_the_field(settings, words):
    with pytest.raises(dcp_tf.UsageError, match=words):
        dcp_tf.DCP(**settings)


@pytest.mark.parametrize("settings", [{"epochs": "3"}, {"epochs": 1.5}, {"epochs": 1, "learning_rate": None}])
def test_trainings_of_another_type_name_the_field(settings):
    with pytest.raises(dcp_tf.UsageError, match="must be a"):
        dcp_tf.TrainConfig(**settings)


def test_one_pattern_and_a_dictionary_of_rates_are_taken():
    method = dcp_tf.DCP(exclude="stem.*", auxiliary_layers="pool", rates={"head": 0.3})
    assert (method.exclude, method.auxiliary_layers, method.rates) == (("stem.*",), ("pool",), (("head", 0.3),))


def test_numbers_of_numpy_become_plain_ones():
    method = dcp_tf.DCP(rate=np.float32(0.5), round_to=np.int64(4), prune_residual=np.bool_(True))
    json.dumps(method.settings())
    assert type(method.round_to) is int
    assert method == dcp_tf.DCP(rate=0.5, round_to=4, prune_residual=True)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_of_the_declared_types(name):
    METHODS[name]()


def test_a_seed_of_numpy_is_a_seed(model, tmp_path):
    runs = [
        dcp_tf.prune(
            *(model, (IMAGES, LABELS), dcp_tf.Random(rate=0.5)),
            auxiliary=NONE,
            finetuning=NONE,
            seed=seed,
            state_dir=tmp_path / "state",
        )
        for seed in (np.int64(3), 3)
    ]
    assert runs[0].plan == runs[1].plan
