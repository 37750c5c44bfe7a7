"""What a Python program brings is read like a data set of ours: arrays, pairs, pipelines."""

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import as_split, from_arrays, tf_data_order
from dcp_tf.data.tf_data_split import TfDataSplit
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4), [40, 20, 10, 5]).astype("int32")
IMAGES = RNG.normal(size=(len(LABELS), 6, 6, 2)).astype("float32")


def pipeline(labels=LABELS, size=16, images=IMAGES):
    arrays = images if labels is None else (images, labels)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def read(batches):
    found = list(batches.as_numpy_iterator())
    if not isinstance(found[0], tuple):
        return np.concatenate(found), None
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def test_splits_and_data_sets_are_taken_as_they_are():
    both = from_arrays(IMAGES, LABELS)
    assert as_split(both.train) is both.train
    assert as_split(both) is both.train
    streamed = as_split(pipeline())
    assert as_split(streamed) is streamed


@pytest.mark.parametrize("form", [(IMAGES, LABELS), [IMAGES, LABELS], IMAGES, (IMAGES, None)])
def test_arrays_are_read_as_they_are(form):
    labelled = not isinstance(form, np.ndarray) and form[1] is not None
    images, labels = read(as_split(form).batches(16))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS if labelled else None)


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labelled", "unlabelled"])
def test_a_pipeline_reads_like_a_split(labels):
    streamed, split = as_split(pipeline(labels)), as_split((IMAGES, labels))
    assert (streamed.size, streamed.shape) == (split.size, tuple(split.shape))
    assert (streamed.labels is None) == (labels is None)
    for size in (7, 16, 200):
        for ours, theirs in zip(streamed.batches(size), split.batches(size), strict=True):
            for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
    for n in (1, 9, 30, 1000):
        np.testing.assert_array_equal(streamed.balanced_subset(n, 3), split.balanced_subset(n, 3))


def test_a_balanced_subset_is_balanced():
    picked = as_split(pipeline()).balanced_subset(20)
    assert np.bincount(LABELS[picked]).tolist() == [5, 5, 5, 5]


def test_one_hot_labels_are_balanced_too():
    picked = as_split(pipeline(np.eye(4, dtype="float32")[LABELS])).balanced_subset(20)
    assert np.bincount(LABELS[picked]).tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labelled", "unlabelled"])
def test_indices_pick_images(labels):
    images, found = read(as_split(pipeline(labels)).batches(4, indices=[60, 3, 17, 41, 2]))
    np.testing.assert_array_equal(images, IMAGES[[2, 3, 17, 41, 60]])
    if labels is not None:
        np.testing.assert_array_equal(found, LABELS[[2, 3, 17, 41, 60]])


def test_shuffling_keeps_pairs_and_depends_on_seed_and_epoch():
    split = as_split(pipeline())
    first, again = (read(split.batches(16, shuffle=True, seed=1, epoch=2)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert not np.array_equal(first[0], read(split.batches(16, shuffle=True, **other))[0])
    where = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    assert sorted(first[1]) == sorted(LABELS)
    assert all(where[image.tobytes()] == label for image, label in zip(*first, strict=True))


def test_integer_pixels_become_floats_of_the_same_value():
    pixels = RNG.integers(0, 256, IMAGES.shape).astype("uint8")
    images, _ = read(as_split(pipeline(images=pixels)).batches(16))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, pixels)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pipeline().repeat(), "never ends"),
        (lambda: pipeline().take(0), "is empty"),
        (lambda: pipeline().repeat(), r"\.take\(batches\)"),
        (lambda: pipeline().map(lambda x, y: (x, y, y, y)), "must yield inputs"),
        (lambda: pipeline().map(lambda x, y: (x, tf.RaggedTensor.from_tensor(x))), "to_tensor"),
        (lambda: "a/folder", "received str"),
        (lambda: None, "received NoneType"),
        (lambda: (IMAGES, LABELS, LABELS, LABELS), "received tuple of"),
        (lambda: endless(), "a generator can be read only once"),
        (lambda: (IMAGES.tolist(), LABELS), "received tuple"),
    ],
)
def test_what_cannot_be_read_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        as_split(make())


def test_labels_are_read_once():
    passes = []

    def generate():
        passes.append(1)
        yield from ((IMAGES[i : i + 5], LABELS[i : i + 5]) for i in range(0, 20, 5))

    signature = (tf.TensorSpec((None, 6, 6, 2), tf.float32), tf.TensorSpec((None,), tf.int32))
    split = TfDataSplit(tf.data.Dataset.from_generator(generate, output_signature=signature))
    assert split.size == 20
    assert len(passes) == 1
    np.testing.assert_array_equal(split.labels, LABELS[:20])


SORTED = np.repeat(np.arange(10), 1200).astype("int32")


def classes_of_batches(split, **settings):
    return [len(np.unique(labels)) for _, labels in split.batches(128, shuffle=True, **settings).as_numpy_iterator()]


def test_a_pipeline_sorted_by_class_is_mixed_like_arrays():
    images = np.zeros((len(SORTED), 4, 4, 1), "float32")
    streamed, split = as_split(pipeline(SORTED, 128, images)), as_split((images, SORTED))
    for epoch in (0, 1):
        assert min(classes_of_batches(streamed, epoch=epoch)[:-1]) >= 9
        assert min(classes_of_batches(split, epoch=epoch)[:-1]) >= 9


def test_a_sorted_pipeline_that_memory_cannot_shuffle_is_named(monkeypatch, capsys):
    monkeypatch.setattr(tf_data_order, "SHUFFLE_BYTES", 500 * 16 * 4)
    images = np.zeros((len(SORTED), 4, 4, 1), "float32")
    as_split(pipeline(SORTED, 128, images))
    assert "sorted by class, and only 500 of its 12,000 images" in capsys.readouterr().err
    as_split(pipeline(np.random.default_rng(0).permutation(SORTED), 128, images))
    assert "sorted" not in capsys.readouterr().err


def endless():
    while True:
        yield IMAGES[:16], LABELS[:16]


def generated(generator):
    specs = (tf.TensorSpec((None, 6, 6, 2)), tf.TensorSpec((None,), tf.int32))
    return tf.data.Dataset.from_generator(generator, output_signature=specs)


def test_a_generator_without_end_says_how_far_it_is_and_is_refused_at_last(monkeypatch, capsys):
    monkeypatch.setattr(tf_data_order, "_EVERY", 64)
    monkeypatch.setattr(tf_data_order, "MOST_IMAGES", 2000)
    with pytest.raises(UsageError, match=r"more than 2,000 images; end it with \.take"):
        as_split(generated(endless))
    lines = capsys.readouterr().err.splitlines()
    assert "reading the labels of the tf.data.Dataset: 64 images so far" in lines[0]
    assert 2 <= len(lines) <= 5  # fewer and fewer


def test_a_generator_with_an_end_is_read(capsys):
    assert as_split(generated(lambda: iter([(IMAGES[:16], LABELS[:16])] * 3))).size == 48
    assert capsys.readouterr().err == ""


def test_lists_of_images_are_arrays():
    images, labels = read(as_split((list(IMAGES), LABELS.tolist())).batches(16))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def ragged_labels():
    yield IMAGES[:4], np.zeros((4, 2))
    yield IMAGES[:4], np.zeros((4, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)), r"add \.batch"),
        (lambda: pipeline().map(lambda x, y: (tf.debugging.check_numerics(x / 0, "bad"), y)), "cannot be read: .*bad"),
        (lambda: pipeline(LABELS.astype(str)), "labels of the tf.data.Dataset must be integers"),
        (lambda: pipeline(images=LABELS.astype(str)), "must be numbers, received string"),
        (lambda: tf.data.Dataset.from_generator(endless, output_types=(tf.float32, tf.int32)), "output_signature"),
        (
            lambda: tf.data.Dataset.from_generator(
                ragged_labels, output_signature=(tf.TensorSpec((None, 6, 6, 2)), tf.TensorSpec((None, None)))
            ),
            "differ in shape",
        ),
        (lambda: ([IMAGES[0], IMAGES[0][:4]], [0, 1]), "differ in shape"),
    ],
)
def test_data_of_another_form_is_one_line(make, words):
    with pytest.raises(UsageError, match=words):
        as_split(make())
