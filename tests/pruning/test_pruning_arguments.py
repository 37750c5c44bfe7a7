"""Arguments of the Python API that are mixed up or of another type: one line that says what to give."""

import copy
import inspect
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import dcp_tf
from dcp_tf.pruning import METHODS
from dcp_tf.pruning.context import prepare

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
        ((IMAGES, LABELS), dcp_tf.L1(), {"state_dir": 3}, "state_dir must be the path of a folder"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"log_dir": __file__}, "log_dir must be the path of a folder"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"resume": True}, "needs a state_dir"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"epochs": 3}, "prune has no argument 'epochs'"),
        ((IMAGES, LABELS), dcp_tf.L1(exclude="conv.*"), {}, "exclude=conv.* leaves no group"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"objective": dcp_tf.Classification}, r"Classification\(\), not the class"),
        ((IMAGES, LABELS), dcp_tf.L1(), {"objective": "mean_square_error"}, "unknown loss 'mean_square_error'"),
        ((IMAGES[:0], LABELS[:0]), dcp_tf.L1(), {}, "received no sample"),
        (
            (tf.ragged.constant([[1.0], [2.0, 3.0]]), LABELS),
            dcp_tf.L1(),
            {},
            "ragged and sparse inputs have no rows of one",
        ),
        ((IMAGES, (LABELS, LABELS[:3])), dcp_tf.L1(), {}, r"differ in length \(3, 32\)"),
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


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dcp_tf.L1(ratio=0.5), "L1 has no argument 'ratio'; did you mean"),
        (lambda: dcp_tf.L1(0.5), "L1 takes all by name"),
        (lambda: dcp_tf.TrainConfig(), "TrainConfig cannot be called so: missing a required argument: 'epochs'"),
        (lambda: dcp_tf.TrainConfig(3, lr=0.1), "TrainConfig has no argument 'lr'"),
        (lambda: dcp_tf.prune(None, IMAGES, LABELS, dcp_tf.L1()), r"prune takes \(model, train_data, method\)"),
        (lambda: dcp_tf.Pruner(), "Pruner cannot be called so: missing a required argument: 'model'"),
        (lambda: dcp_tf.PruningPlan.load(3), "expected the path of a JSON file"),
        (
            lambda: dcp_tf.count_cost(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), (3,)),
            "shapes are input_shape=",
        ),
        (lambda: dcp_tf.to_functional(keras.Model(), (3, -1)), "input_spec has"),
        (lambda: dcp_tf.Target("macs", -3), "received '-3'"),
    ],
)
def test_calls_of_another_form_are_one_line(call, words):
    with pytest.raises(dcp_tf.UsageError, match=words):
        call()


def test_settings_show_their_fields():
    assert list(inspect.signature(dcp_tf.TrainConfig).parameters)[:3] == ["epochs", "batch_size", "learning_rate"]
    assert copy.copy(pickle.loads(pickle.dumps(dcp_tf.L1(rate=0.3)))) == dcp_tf.L1(rate=0.3)


def test_a_folder_with_other_files_is_no_state_folder(model, tmp_path):
    """A run deletes what an earlier one left there."""
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"mine")
    with pytest.raises(dcp_tf.UsageError, match="holds other files"):
        dcp_tf.prune(model, (IMAGES, LABELS), dcp_tf.L1(), state_dir=tmp_path)
    assert photo.read_bytes() == b"mine"


def nan_in(images):
    return np.where(np.arange(images.size).reshape(images.shape) == 700, np.nan, images)


@pytest.mark.parametrize("source", [lambda x: (x, LABELS), lambda x: as_dataset(x), lambda x: Items(x)])
def test_an_input_that_is_nan_is_refused_from_any_source(model, source):
    prepare(model, source(IMAGES), dcp_tf.L1(rate=0.5, round_to=1))
    with pytest.raises(dcp_tf.UsageError, match="NaN or infinite values"):
        prepare(model, source(nan_in(IMAGES)), dcp_tf.L1(rate=0.5, round_to=1))


def as_dataset(images):
    return tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(16)


class Items(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 2

    def __getitem__(self, number):
        return self.images[16 * number :][:16], LABELS[16 * number :][:16]


def test_a_pipeline_of_open_shape_says_how_to_close_it(model):
    images = as_dataset(IMAGES).map(lambda x, y: (tf.py_function(lambda x: x, [x], tf.float32), y))
    images = images.map(lambda x, y: (tf.ensure_shape(x, (None, None, None, 3)), y))
    with pytest.raises(dcp_tf.UsageError, match=r"tf\.ensure_shape") as raised:
        prepare(model, images, dcp_tf.L1())
    advice = eval(str(raised.value).partition(".map(")[2].removesuffix(")"), {"tf": tf})
    prepare(model, images.map(advice), dcp_tf.L1(rate=0.5, round_to=1))


def broken(labels, outputs):
    raise KeyError("boxes")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": broken}, "the loss broken fails on 2 samples.*boxes"),
        ({"objective": lambda labels, outputs: None}, "fails on 2 samples"),
        ({"objective": lambda labels: 0.0}, "fails on 2 samples"),
        ({"metrics": [keras.metrics.AUC()]}, "the metric auc.* fails on 2 samples"),
        ({"metrics": ["acuracy"]}, "the metric 'acuracy' fails on"),
        ({"metrics": {"a": ["accuracy"]}}, "metrics must be a list"),
        ({"metrics": 3}, "the metric 3 fails"),
        ({"callbacks": 3}, "callbacks must be a list"),
    ],
)
def test_losses_and_metrics_that_fail_are_found_before_anything_runs(model, settings, words):
    with pytest.raises(dcp_tf.UsageError, match=words) as raised:
        prepare(model, (IMAGES, LABELS), dcp_tf.L1(rate=0.5, round_to=1), **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"])
def test_what_keras_calls_by_name_is_taken(model, name):
    context = prepare(
        model,
        (IMAGES, LABELS),
        dcp_tf.L1(rate=0.5, round_to=1),
        objective=name,
        metrics="accuracy",
        callbacks=keras.callbacks.EarlyStopping(),
    )
    assert isinstance(context.objective, dcp_tf.Classification)
    assert isinstance(context.metrics[0], keras.metrics.SparseCategoricalAccuracy)
    assert len(context.callbacks["finetuning"]) == 1


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
