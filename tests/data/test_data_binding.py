"""Data of any nesting reach a model in its own order and under its own names, with their values unchanged."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dcp_tf.data import as_split, hold_out, split_batch
from dcp_tf.errors import UsageError

SIZE = 11
INPUTS = {"a": (4, 4, 3), "b": (5,), "c": (3, 2)}
OUTPUTS = {"v": (2,), "w": (3,), "x": (4, 4, 2), "y": (1,)}
RNG = np.random.default_rng(0)
X = {name: RNG.normal(size=(SIZE, *shape)).astype("float32") for name, shape in INPUTS.items()}
Y = {
    "v": (np.arange(SIZE) % 2).astype("int32"),
    "w": RNG.normal(size=(SIZE, 3)).astype("float32"),
    "x": RNG.integers(0, 2, (SIZE, 4, 4)).astype("int32"),
    "y": RNG.normal(size=SIZE).astype("float32"),
}
W = {name: (RNG.random(SIZE) + 0.1).astype("float32") for name in OUTPUTS}


def net(inputs, outputs, nesting="tuple"):
    """A model that has these inputs and outputs, in this order, by layer names or as dicts."""
    tensors = {name: keras.Input(INPUTS[name], name=name) for name in inputs}
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(x) for x in tensors.values()] * 2)
    heads = {
        name: keras.layers.Reshape(OUTPUTS[name], name=name)(keras.layers.Dense(int(np.prod(OUTPUTS[name])))(flat))
        for name in outputs
    }
    if nesting == "dict":
        return keras.Model(tensors, heads)
    return keras.Model(*(next(iter(d.values())) if len(d) == 1 else list(d.values()) for d in (tensors, heads)))


class Batches(keras.utils.PyDataset):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return tf.nest.map_structure(lambda part: part[4 * number : 4 * number + 4], self.parts)


def nested(names, values, form):
    values = {name: values[name] for name in names}
    if form == "dict":
        return values
    return next(iter(values.values())) if len(values) == 1 else tuple(values.values())


def pipeline(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(4)


SOURCES = {"arrays": lambda *parts: parts, "pipeline": pipeline, "by index": Batches}


@settings(max_examples=10, deadline=None)
@given(
    inputs=st.permutations(list(INPUTS)),
    outputs=st.permutations(list(OUTPUTS)),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    forms=st.lists(st.sampled_from(["dict", "tuple"]), min_size=4, max_size=4),
    shared=st.booleans(),
)
def test_values_stay_equal_whatever_the_nesting_and_the_source(inputs, outputs, counts, forms, shared):
    inputs, outputs = inputs[: counts[0]], outputs[: counts[1]]
    # A model of dicts has them in the order of the names, and data may be given in any order then.
    names = (sorted(inputs), sorted(outputs)) if forms[0] == "dict" else (inputs, outputs)
    model = net(*names, forms[0])
    weights = W["v"] if shared else nested(names[1], W, forms[3])
    parts = nested(names[0], X, forms[1]), nested(names[1], Y, forms[2]), weights
    found = {}
    for source, make in SOURCES.items():
        split = as_split(make(*parts)).bound_to(model)
        assert split.shapes == [INPUTS[name] for name in names[0]]
        found[source] = [split_batch(batch) for batch in split.batches(3)]
        for start, (x, y, w) in zip(range(0, SIZE, 3), found[source], strict=True):
            rows = slice(start, start + 3)
            x = (x,) if len(inputs) == 1 else x
            assert isinstance(x, tuple)
            for name, values in zip(names[0], x, strict=True):
                np.testing.assert_array_equal(values, X[name][rows])
            y, w = ({names[1][0]: part} if len(outputs) == 1 else part for part in (y, w))
            assert list(split.labels if len(outputs) > 1 else y) == list(names[1])
            for name in names[1]:
                np.testing.assert_array_equal(y[name], Y[name][rows])
                np.testing.assert_array_equal(w[name], W["v" if shared else name][rows])
    for a, b, c in zip(*map(tf.nest.flatten, found.values()), strict=True):
        assert a.dtype == b.dtype == c.dtype


def test_data_in_the_form_of_the_model_stay_the_same_object():
    split = as_split((X["a"], Y["v"]))
    assert split.bound_to(net("a", "v")) is split
    bound = as_split(((X["a"], X["b"]), {"v": Y["v"], "w": Y["w"]})).bound_to(net("ab", "vw"))
    assert bound.bound_to(net("ab", "vw")) is bound


@pytest.mark.parametrize("make", [SOURCES["arrays"], SOURCES["pipeline"]], ids=["arrays", "pipeline"])
def test_labels_may_be_missing(make):
    model = net("ab", "vw")
    split = as_split(make((X["a"], X["b"]), {"w": Y["w"]})).bound_to(model)
    assert list(split.labels) == ["w"]
    batch = next(iter(as_split(make((X["a"], X["b"]))).bound_to(model).batches(4)))
    assert isinstance(batch, tuple)
    assert [tuple(x.shape) for x in batch[0]] == [(4, 4, 4, 3), (4, 5)]


def test_none_stands_for_labels_that_are_missing():
    model = net("a", "vwx")
    for labels in ((Y["v"], None, Y["x"]), {"x": Y["x"], "v": Y["v"], "w": None}):
        assert list(as_split((X["a"], labels)).bound_to(model).labels) == ["v", "x"]
    assert as_split((X["a"], (None, None, None))).bound_to(model).labels is None


def test_one_input_or_output_is_taken_out_of_a_dict():
    split = as_split(({"anything": X["a"]}, {"v": Y["v"]})).bound_to(net("a", "v"))
    assert split.shape == (4, 4, 3)
    np.testing.assert_array_equal(split.labels, Y["v"])


def test_nested_inputs_are_matched_by_where_they_are():
    a, b, c = (keras.Input(INPUTS[name]) for name in "abc")
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(x) for x in (a, b, c)])
    model = keras.Model({"image": a, "more": [c, b]}, keras.layers.Dense(2)(flat))
    split = as_split(({"more": (X["c"], X["b"]), "image": X["a"]}, Y["v"])).bound_to(model)
    assert split.shapes == [INPUTS["a"], INPUTS["c"], INPUTS["b"]]


def test_lists_are_inputs_and_outputs_where_each_has_all_samples():
    split = as_split(([X["a"], X["b"]], [Y["v"], Y["w"]])).bound_to(net("ab", "vw"))
    assert split.shapes == [INPUTS["a"], INPUTS["b"]]
    np.testing.assert_array_equal(split.labels["w"], Y["w"])


def test_columns_and_vectors_fit_each_other_as_in_keras():
    scalar, column = keras.Input(()), keras.Input((1,))
    added = keras.layers.Reshape((1,))(scalar) + column
    model = keras.Model([scalar, column], keras.layers.Dense(2)(added))
    split = as_split(((np.ones((8, 1)), np.ones(8)), np.zeros(8, int))).bound_to(model)
    assert split.shapes == [(), (1,)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: (X["a"], Y["v"]), r"has one input, the model has the inputs 'a' \(4, 4, 3\), 'b' \(5,\)"),
        (lambda: ({"a": X["a"], "z": X["b"]}, None), "has the inputs 'a', 'z'"),
        (lambda: ({"a": X["a"]}, None), "has the input 'a', the model"),
        (lambda: ((X["b"], X["a"]), None), r"takes 'a' of shape \(4, 4, 3\), the data has \(5,\)"),
        (lambda: ((X["a"], X["b"]), Y["v"]), "labels for one output, the model has the outputs 'v'"),
        (lambda: ((X["a"], X["b"]), {"v": Y["v"], "z": Y["w"]}), "labels for the outputs 'v', 'z'"),
        (lambda: ((X["a"], X["b"]), (Y["v"], Y["w"], Y["x"])), "labels for 3 outputs"),
        (lambda: ((X["a"], X["b"]), {"v": Y["v"]}, {"z": W["v"]}), "sample weights for the output 'z'"),
    ],
)
def test_what_does_not_fit_is_one_line(data, words):
    with pytest.raises(UsageError, match=words) as caught:
        as_split(data()).bound_to(net("ab", "vw"))
    assert "\n" not in str(caught.value)


def test_a_dict_of_images_and_labels_says_how_they_become_pairs():
    batches = tf.data.Dataset.from_tensor_slices({"image": X["a"], "label": Y["v"]}).batch(4)
    with pytest.raises(UsageError, match=r"\.map\(lambda batch: \(batch"):
        as_split(batches).bound_to(net("a", "v"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (({"a": X["a"], "b": X["b"][:5]}, None), r"\['b'\] has 5 samples, the arrays\['a'\] 11"),
        (({"a": X["a"]}, {"v": Y["v"][:5]}), "has 5 labels for 11"),
        ((X["a"], Y["v"], -W["v"]), "0 or more"),
        ((X["a"], Y["v"], W["v"][:5]), "has 5 weights for 11"),
        ((X["a"], None, W["v"]), "no labels; give both"),
        (({"a": X["a"], "s": np.array(["word"] * SIZE)}, None), r"\['s'\] must hold numbers"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_one_line(data, words):
    with pytest.raises(UsageError, match=words):
        as_split(data)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_what_is_held_out_is_never_trained_on(make):
    model = net("ab", "vw")
    labels = nested("vw", Y, "dict")
    split = as_split(make({"a": X["a"], "b": X["b"]}, labels, W["v"])).bound_to(model)
    rest, held_out = hold_out(split, 4)
    assert (rest.size, held_out.size) == (7, 4)
    seen = [np.concatenate([b[0][1] for b in part.batches(2, shuffle=True)]) for part in (rest, held_out)]
    assert [len(part) for part in seen] == [7, 4]
    assert sorted(np.concatenate(seen)[:, 0]) == sorted(X["b"][:, 0])
    row_of = {row[0]: i for i, row in enumerate(X["b"])}
    for (_, b), y, w in (batch for part in (rest, held_out) for batch in part.batches(5)):
        rows = [row_of[value] for value in b.numpy()[:, 0]]
        np.testing.assert_array_equal(y["w"], Y["w"][rows])
        np.testing.assert_array_equal(w["v"], W["v"][rows])


def test_classes_are_balanced_by_the_first_output_that_has_some():
    labels = {"v": np.repeat([0, 1], [9, 2]), "w": Y["w"]}
    split = as_split((X["a"], labels)).bound_to(net("a", "wv"))
    assert np.bincount(labels["v"][split.balanced_subset(4)]).tolist() == [2, 2]


def test_representative_inputs_are_nested_as_in_a_batch():
    split = as_split(((X["a"], X["b"]), None)).bound_to(net("ab", "v"))
    parts = split.representative(6)
    assert [part.shape for part in parts] == [(6, 4, 4, 3), (6, 5)]
