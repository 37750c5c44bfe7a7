"""The loss, the loss weights and the metrics that a model is compiled with."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_nets import INPUTS, LABELS, WEIGHTS, N, NamedSplit, branching

from dcp_tf.errors import UsageError
from dcp_tf.models.signature import output_names, with_flat_signature
from dcp_tf.training import Classification, Custom, JointLoss, Regression, as_objective, choose_objective
from dcp_tf.training.compiled import compiled_objective, resolve_objective
from dcp_tf.training.losses import loss_of
from dcp_tf.training.targets import complete_labels

RNG = np.random.default_rng(3)
ONE_HOT = np.eye(3, dtype="float32")[LABELS["classes"]]
BINARY = RNG.integers(0, 2, (N, 3)).astype("float32")
WITHIN = RNG.uniform(size=N).astype("float32")


def own(y_true, y_pred):
    return tf.reduce_mean(tf.abs(y_true - y_pred), -1)


def network(activation=None, units=3, layer=None):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    return keras.Model(inputs, keras.layers.Dense(units, activation, name=layer or "answer")(x))


def by_keras(model, labels, weights=None):
    """Keras' loss of the training mode's outputs and its gradient."""
    struct = model._outputs_struct
    named = isinstance(labels, dict)
    names = [tensor._keras_history.operation.name for tensor in model.outputs]

    def nested(values):
        return tf.nest.pack_sequence_as(struct, [values[name] for name in names]) if named else values

    with tf.GradientTape() as tape:
        outputs = model(INPUTS, training=False)
        loss = model.compute_loss(INPUTS, nested(labels), outputs, None if weights is None else nested(weights))
    return loss, tape.gradient(loss, model.trainable_variables)


def ours(objective, model, labels, weights=None):
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(model(INPUTS, training=False))
        value = loss_of(objective.loss, labels, tuple(outputs) if len(outputs) > 1 else outputs[0], weights=weights)
    return value, tape.gradient(value, model.trainable_variables)


def assert_equal(first, second):
    np.testing.assert_allclose(first[0], second[0], rtol=2e-5)
    for a, b in zip(first[1], second[1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "activation", "units", "labels", "kind"),
    [
        ("sparse_categorical_crossentropy", "softmax", 3, LABELS["classes"], Classification),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), None, 3, LABELS["classes"], Classification),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=0), "softmax", 3, LABELS["classes"], Custom),
        ("crossentropy", "softmax", 3, LABELS["classes"], Classification),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.2), "softmax", 3, ONE_HOT, Classification),
        (keras.losses.CategoricalFocalCrossentropy(gamma=3.0), "softmax", 3, ONE_HOT, Classification),
        (keras.losses.categorical_crossentropy, "softmax", 3, ONE_HOT, Classification),
        ("binary_crossentropy", "sigmoid", 3, BINARY, Classification),
        (keras.losses.BinaryCrossentropy(from_logits=True), None, 1, BINARY[:, 0], Classification),
        (keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True), "sigmoid", 1, BINARY[:, :1], Classification),
        ("binary_crossentropy", "sigmoid", 1, WITHIN, Custom),
        ("mse", None, 4, LABELS["boxes"], Regression),
        ("mse", None, 4, 9 * LABELS["boxes"], Regression),
        ("mae", None, 4, LABELS["boxes"], Regression),
        (keras.losses.Huber(delta=0.3), None, 1, LABELS["boxes"][:, 0], Regression),
        ("cosine_similarity", None, 4, LABELS["boxes"], Custom),
        (own, None, 4, LABELS["boxes"], Custom),
        (keras.losses.MeanSquaredError(reduction="sum"), None, 4, LABELS["boxes"], Custom),
    ],
)
def test_a_compiled_loss_gives_the_values_and_gradients_of_keras(loss, activation, units, labels, kind, weighted):
    model = network(activation, units)
    model.compile(loss=loss)
    objective = compiled_objective(model, model, NamedSplit(labels))
    assert isinstance(objective, kind)
    weights = WEIGHTS["boxes"] if weighted else None
    if weighted and getattr(loss, "_fn_kwargs", {}).get("ignore_class") is not None:
        return  # Keras weighs what it ignores
    assert_equal(ours(objective, model, labels, weights), by_keras(model, labels, weights))


@pytest.mark.parametrize(
    ("loss", "activation", "units", "labels"),
    [
        ("sparse_categorical_crossentropy", "softmax", 3, LABELS["classes"]),
        (keras.losses.CategoricalCrossentropy(from_logits=True), None, 3, ONE_HOT),
        ("binary_crossentropy", "sigmoid", 3, BINARY),
        ("mean_squared_error", None, 4, LABELS["boxes"] / 9),
        ("mse", None, 4, None),
    ],
)
def test_a_usual_loss_is_the_objective_that_outputs_and_labels_suggest(loss, activation, units, labels):
    model, data = network(activation, units), NamedSplit(labels)
    model.compile(loss=loss)
    compiled = compiled_objective(model, model, data)
    assert compiled == choose_objective(model, data)
    assert repr(compiled) == repr(choose_objective(model, data))


def test_the_weight_of_a_single_loss_is_not_used(capsys):
    model = network(None, 4)
    model.compile(loss="mse", loss_weights=[10.0])
    assert compiled_objective(model, model, NamedSplit(LABELS["boxes"] / 9)) == choose_objective(
        model, NamedSplit(LABELS["boxes"] / 9)
    )
    assert "mse (not its weight 10: it is the only loss)" in capsys.readouterr().err


def test_a_loss_without_from_logits_of_outputs_that_are_no_probabilities_is_of_logits():
    model = network()
    model.compile(loss="sparse_categorical_crossentropy")
    assert compiled_objective(model, model, NamedSplit(LABELS["classes"])) == Classification("logits")


LOSSES = {
    "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "boxes": "mae",
    "mask": keras.losses.BinaryCrossentropy(),
}


@pytest.mark.parametrize(
    ("losses", "factors"),
    [
        (LOSSES, {"classes": 0.5, "boxes": 10.0, "mask": 2.0}),
        (list(LOSSES.values()), [0.5, 10.0, 2.0]),
        (tuple(LOSSES.values()), None),
        ("mse", None),
    ],
)
def test_several_losses_give_the_value_and_gradients_of_keras(losses, factors, capsys):
    model = branching()
    labels = LABELS if losses != "mse" else {**LABELS, "classes": ONE_HOT}
    model.compile(loss=losses, loss_weights=factors)
    for weights in (None, {**WEIGHTS, "mask": np.repeat(WEIGHTS["mask"], 64).reshape(N, 8, 8)}):
        objective = compiled_objective(model, model, NamedSplit(labels))
        assert_equal(ours(objective, model, labels, weights), by_keras(model, labels, weights))
    if losses is LOSSES:
        line = "classes sparse_categorical_crossentropy x0.5, boxes mae x10, mask binary_crossentropy x2"
        assert f"loss taken from model.compile: {line}" in capsys.readouterr().err


def test_losses_given_by_hand_are_what_they_are_in_compile():
    model = branching()
    losses = {**LOSSES, "boxes": keras.losses.MeanSquaredError(), "mask": own}
    labels, factors = {**LABELS, "boxes": 9 * LABELS["boxes"]}, {"classes": 0.5, "boxes": 10.0, "mask": 2.0}
    model.compile(loss=losses, loss_weights=factors)
    compiled = compiled_objective(model, model, NamedSplit(labels))
    by_hand = as_objective(losses, model, NamedSplit(labels), loss_weights=factors)
    assert repr(compiled) == repr(by_hand)
    assert_equal(ours(compiled, model, labels, WEIGHTS), ours(by_hand, model, labels, WEIGHTS))
    assert as_objective(losses["classes"], network(), NamedSplit(LABELS["classes"])) == Classification()


KINDS = {  # units, loss, labels
    "classes": (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), LABELS["classes"]),
    "numbers": (4, "mse", 3 * LABELS["boxes"]),
    "answers": (1, keras.losses.BinaryCrossentropy(from_logits=True), BINARY[:, :1]),
    "own": (4, own, LABELS["boxes"]),
}


def nested(parts, how):
    """A flat list of one thing per output, as one of the structures that Keras takes."""
    names = [f"out{number}" for number in range(len(parts))]
    if how == "dict":
        return dict(zip(names, parts, strict=True))
    return [parts[0], tuple(parts[1:])] if how == "nested" and len(parts) > 1 else list(parts)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_whatever_the_structure_the_loss_is_that_of_keras(data):
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=4))
    how = data.draw(st.sampled_from(["list", "dict", "nested"]))
    units, losses, labels = (list(parts) for parts in zip(*(KINDS[kind] for kind in kinds), strict=True))
    factors = data.draw(st.lists(st.floats(0.1, 5), min_size=len(kinds), max_size=len(kinds)))
    dropped = data.draw(st.integers(0, len(kinds)))
    losses = [None if number == dropped else loss for number, loss in enumerate(losses)]
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(n, name=f"out{number}")(x) for number, n in enumerate(units)]
    model = keras.Model(inputs, nested(outputs, how))
    form = how if dropped < len(kinds) else data.draw(st.sampled_from([how, "list"]))
    model.compile(loss=nested(losses, form), loss_weights=nested(factors, form))
    flat = with_flat_signature(model)
    named = dict(zip(output_names(model), labels, strict=True))
    weights = WEIGHTS["boxes"] if data.draw(st.booleans()) else None
    objective = compiled_objective(model, flat, NamedSplit(named))
    spread = None if weights is None else nested([weights] * len(kinds), how)
    loss = model.compute_loss(INPUTS, nested(labels, how), model(INPUTS), spread)
    trained = [None if name in objective.imitated else weight for name, _, weight in objective.parts]
    assert [weight is None for weight in trained] == [number == dropped for number in range(len(kinds))]
    kept = JointLoss(objective.loss.names, objective.loss.losses, tuple(weight or 0.0 for weight in trained))
    given = objective.training_data(NamedSplit(named)).labels
    completed = complete_labels(given, objective.targets(flat, None)(INPUTS))
    value = loss_of(kept, completed, tuple(keras.tree.flatten(flat(INPUTS))), weights=weights)
    np.testing.assert_allclose(value, loss, rtol=1e-4)


def test_losses_nested_as_the_outputs_and_outputs_without_one():
    flat = branching()
    nested = keras.Model(flat.inputs, {"a": flat.outputs[0], "b": [flat.outputs[1], flat.outputs[2]]})
    nested.compile(loss={"a": LOSSES["classes"], "b": ["mse", None]}, loss_weights={"a": 3.0, "b": [2.0, 1.0]})
    objective = compiled_objective(nested, with_flat_signature(nested), NamedSplit())
    assert objective.loss.loss_weights == (3.0, 2.0, 1.0)
    assert objective.imitated == ("mask",)
    assert objective.part("mask").imitates


def test_metrics_are_those_of_keras_evaluate():
    model = branching()
    model.compile(
        loss=LOSSES,
        loss_weights={"classes": 1.0, "boxes": 10.0, "mask": 0.5},
        metrics={"classes": ["accuracy"], "boxes": keras.metrics.MeanAbsoluteError(name="mae")},
        weighted_metrics={"boxes": ["mse"]},
    )
    weights = {**WEIGHTS, "mask": np.ones(N, "float32")}
    objective = compiled_objective(model, model, NamedSplit())
    figures = objective.evaluate(model, NamedSplit(weights=weights).batches(5))
    expected = model.evaluate(
        INPUTS,
        tuple(LABELS.values()),
        sample_weight=(*list(weights.values())[:2], np.ones((N, 8, 8), "float32")),
        batch_size=N,
        verbose=0,
        return_dict=True,
    )
    for name in ("loss", "classes_loss", "boxes_loss", "mask_loss", "classes_accuracy", "boxes_mae"):
        np.testing.assert_allclose(figures[name], expected[name], rtol=1e-4, err_msg=name)
    again = objective.evaluate(model, NamedSplit(weights=weights).batches(5))
    assert again == figures


def test_metrics_of_one_output_stand_beside_its_own():
    model, data = network(None, 4), NamedSplit(LABELS["boxes"], WEIGHTS["boxes"])
    model.compile(loss="mse", metrics=["mae", keras.metrics.RootMeanSquaredError()], weighted_metrics=["mape"])
    objective = compiled_objective(model, model, data)
    figures = objective.evaluate(model, data.batches(5))
    expected = model.evaluate(
        INPUTS, LABELS["boxes"], sample_weight=WEIGHTS["boxes"], batch_size=5, verbose=0, return_dict=True
    )
    for name in ("mae", "root_mean_squared_error", "mape"):
        np.testing.assert_allclose(figures[name], expected[name], rtol=1e-4, err_msg=name)
    assert {"mse", "r2"} <= set(figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": {"a": "mse"}}, "does not fit its outputs, classes, boxes, mask"),
        ({"loss": ["mse", "mse"]}, "does not fit its outputs"),
        ({"loss": dict.fromkeys(LABELS, "mse"), "loss_weights": {"boxes": -1.0}}, "must be numbers from 0"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    model = branching()
    model.compile(**arguments)
    with pytest.raises(UsageError, match=message):
        compiled_objective(model, model, NamedSplit())


def test_a_model_without_a_compiled_loss_gives_none(capsys):
    class OwnLoss(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return 0.0

    model = branching()
    assert compiled_objective(model, model, NamedSplit()) is None
    model.compile("sgd")
    assert compiled_objective(model, model, NamedSplit()) is None
    own_loss = OwnLoss(model.inputs, model.outputs)
    own_loss.compile(loss="mse")
    assert compiled_objective(own_loss, model, NamedSplit()) is None
    assert "OwnLoss computes its loss itself" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["mean", "per_sample", "weighted"])
def test_a_loss_that_sample_weights_cannot_count_in_is_refused_at_once(form):
    losses = {
        "mean": lambda y, x: tf.reduce_mean(tf.abs(y - x)),
        "per_sample": own,
        "weighted": lambda y, x, weights=None: tf.reduce_mean(weights * own(y, x)),
    }
    model = branching()
    data = NamedSplit({"boxes": LABELS["boxes"]}, {"boxes": WEIGHTS["boxes"]})
    refused = pytest.raises(UsageError, match="gives one number for a whole batch")
    with refused if form == "mean" else contextlib.nullcontext():
        resolve_objective({"boxes": losses[form]}, model, model, data)
