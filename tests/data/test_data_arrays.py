import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)


def arrays(**changes):
    base = {
        "x_train": RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": RNG.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8),
        "y_test": np.array([0, 1, 2, 3]),
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def save(tmp_path, **changes):
    path = tmp_path / "set.npz"
    np.savez(path, **arrays(**changes))
    return f"npz:{path}"


def test_an_npz_file_comes_back(tmp_path):
    spec = save(tmp_path)
    loaded = data.load(spec)
    kept = np.load(tmp_path / "set.npz")
    images, labels = loaded.train.batches(12).as_numpy_iterator().next()
    np.testing.assert_allclose(images, kept["x_train"] / 255, rtol=1e-6)
    np.testing.assert_array_equal(labels, kept["y_train"])
    assert (loaded.name, loaded.test.size, loaded.input_shape) == ("set", 4, (6, 5, 3))
    assert (loaded.num_classes, loaded.class_names) == (4, ("0", "1", "2", "3"))


def test_gray_images_without_channels_and_labels_in_a_column_are_taken(tmp_path):
    gray = {"x_train": np.zeros((12, 6, 5), np.int64), "x_test": np.zeros((4, 6, 5), np.int64)}
    loaded = data.load(save(tmp_path, **gray, y_train=np.zeros((12, 1), np.uint8)))
    assert loaded.input_shape == (6, 5, 1)
    assert loaded.train.labels.shape == (12,)


BAD = {
    "y_test missing": ({"y_test": None, "x_test": None}, "lacks x_test, y_test; it holds x_train, y_train"),
    "too few labels": ({"y_train": np.arange(11) % 3}, "y_train.*11 labels for 12 images"),
    "float labels": ({"y_train": np.arange(12.0)}, "y_train.*must be integers.*float64"),
    "one-hot labels": ({"y_train": np.eye(12, dtype=int)}, r"y_train.*\(12, 12\).*one-hot"),
    "negative label": ({"y_test": np.array([0, -1, 2, 3])}, "y_test.*negative label -1"),
    "NaN": ({"x_train": np.full((12, 6, 5, 3), np.nan), "x_test": np.zeros((4, 6, 5, 3))}, "x_train.*NaN"),
    "other shape": ({"x_test": np.zeros((4, 6, 6, 3), np.uint8)}, r"\(6, 5, 3\).*\(6, 6, 3\)"),
    "other type": ({"x_test": np.zeros((4, 6, 5, 3), np.float32)}, "integers, the other floats"),
    "no images": ({"x_test": np.zeros((0, 6, 5, 3), np.uint8)}, r"x_test.*\(0, 6, 5, 3\)"),
    "vectors": ({"x_train": np.zeros((12, 64))}, r"x_train.*\(12, 64\)"),
    "16 bits": ({"x_train": np.full((12, 6, 5, 3), 4000, np.uint16)}, "4000 to 4000, expected 0 to 255"),
    "text": ({"x_train": np.full((12, 6, 5, 3), "a")}, "x_train.*integers or floats"),
    "objects": ({"y_train": np.array([None] * 12)}, "plain arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_do_not_fit_are_named(tmp_path, case):
    changes, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        data.load(save(tmp_path, **changes))


def test_files_that_are_no_npz_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"no file .*missing\.npz"):
        data.load(f"npz:{tmp_path}/missing.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.npz is no \.npz"):
        data.load(f"npz:{tmp_path}/text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UsageError, match="one array"):
        data.load(f"npz:{tmp_path}/one.npy")
    whole = (tmp_path / "set.npz") if save(tmp_path) else None
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"cut\.npz"):
        data.load(f"npz:{tmp_path}/cut.npz")
    with pytest.raises(UsageError):
        data.load(f"npz:{tmp_path}")


@pytest.mark.parametrize("spec", ["mnist", "digits:", "npz:", "npz", "folder:", "faces:", ""])
def test_unknown_data_sets_are_refused_with_the_known_ones(spec):
    with pytest.raises(UsageError, match="npz:FILE, folder:DIR, tfds:NAME or faces:DIR"):
        data.load(spec)


def test_digits_are_split_by_the_seed_evenly_over_the_classes():
    loaded = data.load("digits")
    assert (loaded.train.size + loaded.test.size, loaded.num_classes) == (1797, 10)
    share = np.bincount(loaded.test.labels) / (np.bincount(loaded.train.labels) + np.bincount(loaded.test.labels))
    np.testing.assert_allclose(share, 0.2, atol=0.005)
    np.testing.assert_array_equal(loaded.test.source.images, data.load("digits").test.source.images)
    other = data.load("digits", seed=1).test
    assert other.size == loaded.test.size
    assert (other.source.images != loaded.test.source.images).any()
    assert data.load("digits", test_fraction=0.5).test.size == pytest.approx(898, abs=5)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_a_test_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(UsageError, match="between 0 and 1"):
        data.load("digits", test_fraction=fraction)


def test_train_and_test_images_are_disjoint():
    images = np.arange(40, dtype=np.float32).reshape(40, 1, 1, 1)
    made = data.from_arrays(images, np.arange(40) % 4)
    train, test = (set(split.representative(40).ravel()) for split in (made.train, made.test))
    assert not train & test
    assert train | test == set(range(40))


def test_plain_arrays_with_a_test_set_of_their_own():
    base = arrays()
    made = data.from_arrays(
        base["x_train"], base["y_train"], test_images=base["x_test"], test_labels=base["y_test"], augmentation="none"
    )
    assert (made.train.size, made.test.size, made.num_classes, made.train.augmentation) == (12, 4, 4, "none")


def test_arrays_without_labels():
    made = data.from_arrays(arrays()["x_train"])
    assert made.train.labels is None
    assert (made.num_classes, made.class_names) == (0, ())
    data.check_labels(made, 10)


def test_labels_for_one_side_only_are_refused():
    base = arrays()
    with pytest.raises(UsageError, match="both"):
        data.from_arrays(base["x_train"], base["y_train"], test_images=base["x_test"])
    with pytest.raises(UsageError, match="test_labels need test_images"):
        data.from_arrays(base["x_train"], base["y_train"], test_labels=base["y_test"])


def test_one_image_cannot_be_split():
    with pytest.raises(UsageError, match="too few"):
        data.from_arrays(arrays()["x_train"][:1], np.array([0]))


def test_labels_must_have_outputs():
    loaded = data.load("digits")
    data.check_labels(loaded, 10)
    data.check_labels(loaded, 1000)
    with pytest.raises(UsageError, match="label 9, but the model has 5 outputs; use a model with at least 10"):
        data.check_labels(loaded, 5)
    two = data.from_arrays(np.zeros((10, 4, 4, 1), np.uint8), np.arange(10) % 2)
    data.check_labels(two, 1)
