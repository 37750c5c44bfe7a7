"""Files with several inputs and outputs: `.npz` by the names of Keras, and a function of the user's."""

import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.data import split_batch
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
META = RNG.normal(size=(12, 4)).astype("float32")
CLASSES, BOXES = np.arange(12) % 3, RNG.random((12, 4)).astype("float32")
WEIGHTS = (RNG.random(12) + 0.5).astype("float32")


def save(path, **arrays):
    """Every array for training and its first six rows for the test; `__` in a name stands for the slash."""
    both = {}
    for name, array in arrays.items():
        letter, _, rest = name.partition("__")
        for part, rows in (("train", slice(None)), ("test", slice(6))):
            both[f"{letter}_{part}" + (f"/{rest}" if rest else "")] = array[rows]
    np.savez(path, **both)
    return str(path)


def test_several_inputs_and_outputs_come_back_by_their_names(tmp_path):
    path = save(tmp_path / "a.npz", x__image=IMAGES, x__meta=META, y__classes=CLASSES, y__boxes=BOXES, w__boxes=WEIGHTS)
    dataset = data.load_arrays(path)
    for split, rows in ((dataset.train, 12), (dataset.test, 6)):
        inputs, labels, weights = split_batch(next(iter(split.batches(rows))))
        np.testing.assert_array_equal(inputs["image"], IMAGES[:rows])
        np.testing.assert_array_equal(inputs["meta"], META[:rows])
        np.testing.assert_array_equal(labels["classes"], CLASSES[:rows])
        np.testing.assert_array_equal(labels["boxes"], BOXES[:rows])
        np.testing.assert_array_equal(weights["boxes"], WEIGHTS[:rows])
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.notes == ("x_train/image: integers of 0 to 255, taken as they are",)


def test_images_of_a_program_with_several_labels_are_split_by_class():
    dataset = data.from_arrays(IMAGES, {"boxes": BOXES, "classes": CLASSES}, test_fraction=0.25)
    assert (dataset.train.augmentation, dataset.test.size) == ("none", 3)
    assert sorted(dataset.test.labels["classes"]) == [0, 1, 2]
    row = [tuple(box) for box in BOXES].index(tuple(dataset.test.labels["boxes"][1]))
    assert dataset.test.labels["classes"][1] == CLASSES[row]


def test_images_with_several_labels_are_scaled_and_stay_in_place(tmp_path):
    path = save(tmp_path / "a.npz", x=IMAGES, y__classes=CLASSES, y__boxes=BOXES, w=WEIGHTS)
    split = data.load(f"npz:{path}").train
    images, labels, weights = split_batch(next(iter(split.batches(12, augment=True))))
    np.testing.assert_allclose(images, IMAGES / 255, atol=1e-6)
    np.testing.assert_array_equal(labels["boxes"], BOXES)
    np.testing.assert_array_equal(weights, WEIGHTS)
    taken = split.take([3, 5])
    np.testing.assert_array_equal(taken.labels["boxes"], BOXES[[3, 5]])
    np.testing.assert_array_equal(taken.weights, WEIGHTS[[3, 5]])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": IMAGES, "x__image": IMAGES, "y": CLASSES}, "holds x_train and x_train/image"),
        ({"y__boxes": BOXES}, "lacks x_train, x_test"),
        ({"x__image": IMAGES, "z__boxes": BOXES}, "lacks y_train, y_test; it holds"),
        ({"x__image": IMAGES, "x__meta": META[:8], "y": CLASSES}, r"x_train/meta of .* has 8 samples"),
        ({"x__image": IMAGES, "y__boxes": BOXES[:8]}, "has 8 labels for 12"),
    ],
)
def test_names_and_sizes_that_do_not_fit_are_one_line(tmp_path, arrays, words):
    with pytest.raises(UsageError, match=words):
        data.load_arrays(save(tmp_path / "a.npz", **arrays))


def test_several_inputs_are_no_images(tmp_path):
    with pytest.raises(UsageError, match="has the inputs image, meta"):
        data.load("npz:" + save(tmp_path / "a.npz", x__image=IMAGES, x__meta=META, y=CLASSES))


CODE = """
import numpy as np
import helper_of_test_data_files as helper

IMAGES = np.zeros((10, 4, 4, 1))

def both():
    inputs = {"image": IMAGES, "meta": np.ones((10, 2))}
    return (inputs, helper.LABELS), ({name: x[:4] for name, x in inputs.items()}, helper.LABELS[:4])

def fails():
    return helper.divide(1)

def one():
    return IMAGES

def no_test():
    return (IMAGES, helper.LABELS), None

def words():
    return (["a", "b"], helper.LABELS), (IMAGES, helper.LABELS)

def shapes():
    return IMAGES, IMAGES[:, :2]
"""
HELPER = "import numpy as np\nLABELS = np.arange(10) % 2\n\n\ndef divide(x):\n    return x / 0\n"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper_of_test_data_files.py").write_text(HELPER)
    path = tmp_path / f"data_of_{tmp_path.name}.py"
    path.write_text(CODE)
    return path


def test_a_function_of_the_users_gives_both_splits(file):
    dataset = data.load(f"python:{file}:both")
    assert (dataset.train.size, dataset.test.size) == (10, 4)
    assert dataset.train.shapes == [(4, 4, 1), (2,)]
    assert dataset.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fails", r"data_of_.*\.py:12: ZeroDivisionError: division by zero"),
        ("one", r"must return \(train, test\), two data sets; it returned ndarray"),
        ("no_test", r"returned None as the test data"),
        ("words", "the train data of words in .*: data must be"),
        ("shapes", r"the train data of shapes .* holds inputs of shape \(4, 4, 1\), but the test data"),
        ("nothing", "has no function nothing; it has both, fails, one"),
        ("not a name", "takes FILE.py:FUNCTION"),
    ],
)
def test_what_goes_wrong_in_it_is_one_line(file, name, words):
    with pytest.raises(UsageError, match=words) as caught:
        data.load(f"python:{file}:{name}")
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_raise_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"there is no Python file .*none\.py"):
        data.load(f"python:{tmp_path / 'none.py'}:f")
    for name, code, words in (("index", "x = 1\ny = [][1]\n", "2: IndexError"), ("syntax", "def f(:\n", "1: Syntax")):
        path = tmp_path / f"raises_{name}.py"
        path.write_text(code)
        words = rf"raises_{name}\.py:{words}"
        with pytest.raises(UsageError, match=words):
            data.load(f"python:{path}:f")


def test_they_are_neither_scaled_nor_augmented(file):
    with pytest.raises(UsageError, match="leave out normalization"):
        data.load(f"python:{file}:both", normalization="tf")
