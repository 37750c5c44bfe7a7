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
    "labels of two types": ({"y_train": np.arange(12.0)}, "y_train.*float32.*y_test.*int32"),
    "labels of two shapes": ({"y_train": np.eye(12, dtype=int)}, r"y_train.*\(12, 12\).*y_test.*\(4,\)"),
    "labels of text": ({"y_train": np.array(["cat"] * 12)}, "y_train.*must be integers"),
    "labels that are NaN": ({"y_train": np.full(12, np.nan), "y_test": np.zeros(4)}, "y_train.*NaN"),
    "labels without a value": ({"y_train": np.zeros((12, 0))}, r"y_train.*one label per image.*\(12, 0\)"),
    "NaN": ({"x_train": np.full((12, 6, 5, 3), np.nan), "x_test": np.zeros((4, 6, 5, 3))}, "x_train.*NaN"),
    "other shape": ({"x_test": np.zeros((4, 6, 6, 3), np.uint8)}, r"\(6, 5, 3\).*\(6, 6, 3\)"),
    "other type": ({"x_test": np.zeros((4, 6, 5, 3), np.float32)}, "integers, the other floats"),
    "no images": ({"x_test": np.zeros((0, 6, 5, 3), np.uint8)}, r"x_test.*\(0, 6, 5, 3\)"),
    "vectors": ({"x_train": np.zeros((12, 64))}, r"x_train.*\(12, 64\)"),
    "16 bits": ({"x_train": np.full((12, 6, 5, 3), 4000, np.uint16)}, "4000 to 4000, expected 0 to 255"),
    "text": ({"x_train": np.full((12, 6, 5, 3), "a")}, "x_train.*integers or floats"),
    "objects": ({"y_train": np.array([None] * 12)}, "holds Python objects"),
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
    with pytest.raises(UsageError, match="npz:FILE, folder:DIR, tfds:NAME, faces:DIR or python:"):
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


def test_labels_for_one_side_only_are_refused():
    base = arrays()
    with pytest.raises(UsageError, match="both"):
        data.from_arrays(base["x_train"], base["y_train"], test_images=base["x_test"])
    with pytest.raises(UsageError, match="test_labels need test_images"):
        data.from_arrays(base["x_train"], base["y_train"], test_labels=base["y_test"])


def test_one_image_cannot_be_split():
    with pytest.raises(UsageError, match="too few"):
        data.from_arrays(arrays()["x_train"][:1], np.array([0]))


FORMS = {
    "numbers": np.linspace(-1, 1, 12),
    "a column of numbers": np.linspace(-1, 1, 12)[:, None],
    "negative integers": np.arange(12) - 6,
    "rows of yes and no": np.arange(36).reshape(12, 3) % 2,
    "rows of numbers": np.linspace(-3, 3, 24).reshape(12, 2),
    "maps of classes": np.arange(12 * 30).reshape(12, 6, 5) % 3,
    "maps of numbers": np.linspace(0, 1, 12 * 60).reshape(12, 6, 5, 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_every_form_reach_the_batches_with_their_images(tmp_path, form):
    labels = FORMS[form]
    loaded = data.load(save(tmp_path, y_train=labels, y_test=labels[:4]))
    split, wanted = loaded.train, labels.squeeze(1) if labels.shape[1:] == (1,) else labels
    assert split.labels.dtype == (np.float32 if labels.dtype.kind == "f" else np.int32)
    order = [5, 0, 11, 3]
    images, found = next(iter(split.batches(4, indices=order, augment=True)))
    np.testing.assert_allclose(found, wanted[order], rtol=1e-6)
    np.testing.assert_array_equal(split.take(order).labels, split.labels[order])
    assert len(split.balanced_subset(5)) == 5
    assert images.shape == (4, 6, 5, 3)


def test_images_with_maps_of_labels_are_not_moved():
    maps = np.zeros((8, 6, 5), int)
    images = np.random.default_rng(0).integers(0, 255, (8, 6, 5, 3), np.uint8)
    plain, mapped = (data.split_from_arrays(images, y, augmentation="flip") for y in (np.zeros(8, int), maps))
    still = next(iter(mapped.batches(8)))[0]
    np.testing.assert_array_equal(next(iter(mapped.batches(8, augment=True)))[0], still)
    assert not np.array_equal(next(iter(plain.batches(8, augment=True)))[0], still)


@pytest.mark.parametrize("missing", [("y_train",), ("y_train", "y_test")])
def test_labels_may_be_missing(tmp_path, missing):
    loaded = data.load(save(tmp_path, **dict.fromkeys(missing)))
    assert loaded.train.labels is None
    assert (loaded.test.labels is None) == ("y_test" in missing)


def test_a_misspelt_name_is_no_data_without_labels(tmp_path):
    with pytest.raises(UsageError, match=r"lacks y_train; it holds .*y_trian"):
        data.load(save(tmp_path, y_train=None, y_trian=np.arange(12) % 3))


def test_rows_of_labels_are_balanced_by_their_first_positive_class():
    rows = np.zeros((40, 3), int)
    rows[:30, 0], rows[20:30, 1], rows[30:36, 2] = 1, 1, 1  # 30 begin with 0, 6 with 2, 4 have none
    split = data.split_from_arrays(np.zeros((40, 2, 2, 1), np.uint8), rows)
    chosen = split.balanced_subset(12)
    assert [(chosen < 30).sum(), ((chosen >= 30) & (chosen < 36)).sum(), (chosen >= 36).sum()] == [4, 4, 4]


def test_numbers_are_set_aside_by_chance():
    made = data.from_arrays(np.zeros((50, 2, 2, 1), np.uint8), np.linspace(0, 1, 50), test_fraction=0.2)
    assert (made.train.size, made.test.size, made.num_classes) == (40, 10, 0)


def test_python_objects_are_refused_by_name(tmp_path):
    images, ragged = np.zeros((2, 4, 4, 3), np.uint8), np.empty(2, object)
    ragged[:] = [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)]
    np.savez(tmp_path / "x.npz", x_train=ragged, y_train=[0, 1], x_test=images, y_test=[0, 1])
    with pytest.raises(UsageError, match=r"x_train of .*x\.npz holds Python objects") as caught:
        data.load(f"npz:{tmp_path / 'x.npz'}")
    assert "pickle" not in str(caught.value)
