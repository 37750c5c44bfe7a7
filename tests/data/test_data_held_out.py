"""Which inputs are held out of a training."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import as_split, hold_out, make_array_split


def split(labels):
    """Inputs that hold their own positions."""
    labels = np.asarray(labels)
    return make_array_split(np.repeat(np.arange(len(labels), dtype="float32")[:, None], 2, 1), labels)


def positions(data):
    """Which inputs a split gives."""
    if data is None:
        return []
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in data.batches(32)]
    return sorted(np.concatenate(batches)[:, 0].astype(int).tolist())


@pytest.mark.parametrize("count", [None, 1, 57, 119])
def test_every_input_is_on_one_side(count):
    data = split(np.arange(120) % 7)
    rest, held = map(positions, hold_out(data, count))
    assert sorted([*rest, *held]) == list(range(120))
    assert len(held) == (count or 12)
    assert held == positions(hold_out(data, count)[1])
    assert held != positions(hold_out(data, count, seed=1)[1])


def test_each_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    held = positions(hold_out(split(labels))[1])
    assert np.abs(np.bincount(labels[held]) - [60, 30, 10]).max() <= 1


def test_no_class_loses_its_last_input():
    labels = np.repeat(np.arange(40), [100, *[1] * 10, *[2] * 29])
    for seed, seen in itertools.product(range(5), (0, 100)):
        for count in (60, labels.size - 40):
            rest, held = hold_out(split(labels), count, seed, seen)
            assert set(rest.labels) == set(range(40))
            assert held.size == count


@pytest.mark.parametrize("labels", [np.arange(200) % 7, np.linspace(0, 1, 200), None])
def test_inputs_that_a_model_was_fitted_to_come_last(labels):
    data = make_array_split(np.repeat(np.arange(200, dtype="float32")[:, None], 2, 1), labels)
    for seed in range(3):
        fitted_to = set(data.balanced_subset(150, seed).tolist())
        held = positions(hold_out(data, 30, seed, seen=150)[1])
        assert len(held) == 30
        assert not fitted_to & set(held)
        many = positions(hold_out(data, 80, seed, seen=150)[1])
        assert len(fitted_to & set(many)) <= 40


def test_large_sets_give_a_thousand_and_tiny_ones_nothing():
    assert hold_out(split(np.arange(20_000) % 3))[1].size == 1000
    rest, held = hold_out(split(np.arange(9) % 3))
    assert held is None
    assert rest.size == 9


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 50), np.arange(50), np.zeros((50, 4, 4), int)])
def test_labels_that_are_no_classes_are_drawn_from_evenly(labels):
    assert hold_out(split(labels))[1].size == 5


def test_inputs_without_labels():
    assert hold_out(make_array_split(np.zeros((30, 2))))[1].size == 3


@pytest.mark.parametrize("shuffles", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_pipeline_never_gives_what_is_held_out_of_it(shuffles, labelled):
    data = split(np.arange(60) % 3)
    dataset = tf.data.Dataset.from_tensor_slices((data.array, data.labels) if labelled else data.array)
    dataset = dataset.shuffle(60) if shuffles else dataset
    rest, held = hold_out(as_split(dataset.batch(7)))
    kept = positions(held)
    assert len(kept) == 6
    assert rest.size == 54
    for epoch in range(2):
        seen = [x[0] if labelled else x for x in rest.batches(10, shuffle=True, epoch=epoch)]
        assert sorted([*np.concatenate(seen)[:, 0].astype(int), *kept]) == list(range(60))
    if labelled:
        assert (held.labels == np.concatenate([x[:, 0] for x, _ in held.batches(9)]) % 3).all()
