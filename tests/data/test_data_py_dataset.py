"""A `keras.utils.PyDataset` is read by index, shuffled where its order is fixed, and told where epochs end."""

import keras
import numpy as np
import pytest

from dcp_tf.data import as_split, hold_out
from dcp_tf.errors import UsageError

X = np.arange(40, dtype="float32").reshape(20, 2)
Y = np.arange(20) % 4


class Fixed(keras.utils.PyDataset):
    """Batches of 3 that remember which of them were read."""

    def __init__(self, x=X, y=Y, batch=3):
        super().__init__()
        self.x, self.y, self.batch = x, y, batch
        self.read = []

    def __len__(self):
        return -(-len(self.x) // self.batch)

    def __getitem__(self, number):
        self.read.append(number)
        rows = slice(number * self.batch, (number + 1) * self.batch)
        return self.x[rows], self.y[rows]


class Reordered(Fixed):
    """One that mixes itself after each epoch."""

    def __init__(self):
        super().__init__()
        self.order, self.calls = np.arange(20), []

    def __getitem__(self, number):
        rows = self.order[number * 3 : number * 3 + 3]
        return X[rows], Y[rows]

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")
        self.order = np.random.default_rng(len(self.calls)).permutation(20)


def rows_of(batches):
    return np.concatenate([x[:, 0] for x, _ in batches]).astype(int) // 2


def test_only_batches_with_wanted_samples_are_read():
    source = Fixed()
    split = as_split(source)
    source.read.clear()
    assert rows_of(split.batches(4, indices=[13, 4, 12])).tolist() == [4, 12, 13]
    assert source.read == [1, 4]


def test_a_fixed_order_is_shuffled_by_seed_and_epoch():
    split = as_split(Fixed())
    first, again, later = (rows_of(split.batches(4, shuffle=True, seed=1, epoch=e)).tolist() for e in (0, 0, 1))
    assert first == again != later
    assert sorted(first) == sorted(later) == list(range(20))
    assert rows_of(split.batches(7)).tolist() == list(range(20))


def test_a_changing_order_is_its_own_and_epochs_are_told():
    source = Reordered()
    split = as_split(source)
    assert rows_of(split.batches(4)).tolist() == list(range(20))
    assert source.calls == []
    first = rows_of(split.batches(4, shuffle=True, epoch=0))
    assert source.calls == ["begin", "end"]
    second = rows_of(split.batches(4, shuffle=True, epoch=1))
    assert first.tolist() == list(range(20))
    assert second.tolist() == np.random.default_rng(2).permutation(20).tolist()
    assert source.calls == ["begin", "end"] * 2


@pytest.mark.parametrize("source", [Fixed, Reordered])
def test_what_is_held_out_never_comes_in_training(source):
    rest, held_out = hold_out(as_split(source()), 5)
    expected = sorted(set(range(20)) - set(rows_of(held_out.batches(5)).tolist()))
    assert len(expected) == 15
    for epoch in range(3):
        assert sorted(rows_of(rest.batches(4, shuffle=True, epoch=epoch)).tolist()) == expected


class Endless(Fixed):
    num_batches = None


def test_augmented_samples_of_a_fixed_order_are_held_out_by_their_place():
    class Noisy(Fixed):
        def __getitem__(self, number):
            x, y = super().__getitem__(number)
            return x + np.random.default_rng(len(self.read)).uniform(0, 0.5, x.shape), y

    rest, held_out = hold_out(as_split(Noisy()), 5)
    assert set(rows_of(rest.batches(4, shuffle=True))).isdisjoint(rows_of(held_out.batches(4)))


class Odd(Fixed):
    def __init__(self, item):
        super().__init__()
        self.item = item

    def __getitem__(self, number):
        return self.item()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: Endless(), "never ends"),
        (lambda: Odd(lambda: None), "item 0 of the PyDataset must hold arrays"),
        (lambda: Odd(lambda: (X, 3)), "item 0 of the PyDataset must hold arrays"),
        (lambda: Odd(lambda: (X, Y[:5])), "item 0 of the PyDataset must hold arrays"),
        (lambda: Odd(lambda: {}["x"]), "item 0 of the PyDataset raises KeyError: 'x'"),
        (lambda: Fixed(X[:0], Y[:0]), "is empty"),
        (lambda: Fixed(X, Y.astype(str)), "must be integers"),
        (lambda: Fixed(X.astype(str)), "must be numbers"),
    ],
)
def test_what_cannot_be_read_is_one_line(source, words):
    with pytest.raises(UsageError, match=words):
        as_split(source())


def test_batches_of_several_forms_are_one_line():
    class Mixed(Fixed):
        def __getitem__(self, number):
            x, y = super().__getitem__(number)
            return (x, y) if number < 2 else (x.astype("float64"), y)

    with pytest.raises(UsageError, match="the batches of the PyDataset differ"):
        as_split(Mixed())
