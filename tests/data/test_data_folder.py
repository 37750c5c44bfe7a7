import os

import numpy as np
import pytest
from PIL import Image

from dcp_tf import data
from dcp_tf.data import pixel_sources
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)


def write(path, shape=(6, 5, 3)):
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def write_classes(root, counts, **kwargs):
    """Writes PNGs; returns their pixels in the order of classes, then of files."""
    names = [f"{label}/{number:02}.png" for label in sorted(counts) for number in range(counts[label])]
    return np.stack([write(root / name, **kwargs) for name in names])


def read(split, **kwargs):
    images, labels = zip(*split.batches(4, **kwargs).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_pngs_come_back_in_sorted_order(tmp_path):
    train = write_classes(tmp_path / "train", {"dog": 5, "ant": 3, "cat": 4})
    test = write_classes(tmp_path / "test", {"dog": 1, "cat": 2})
    loaded = data.load(f"folder:{tmp_path}", normalization="raw")
    assert loaded.class_names == ("ant", "cat", "dog")
    assert (loaded.name, loaded.num_classes, loaded.input_shape) == (tmp_path.name, 3, (6, 5, 3))
    for split, pixels, labels in (
        (loaded.train, train, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]),
        (loaded.test, test, [1, 1, 2]),
    ):
        images, got = read(split)
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(got, labels)


@pytest.mark.parametrize("name", ["test", "val", "validation", "valid"])
def test_the_test_folder_may_have_several_names(tmp_path, name):
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / name, {"a": 1, "b": 2})
    loaded = data.load(f"folder:{tmp_path}")
    assert (loaded.train.size, loaded.test.size) == (4, 3)


@pytest.mark.parametrize("inside", ["", "train"])
def test_without_a_test_folder_a_share_of_each_class_is_set_aside(tmp_path, inside):
    pixels = write_classes(tmp_path / inside, {"a": 10, "b": 5})
    loaded = data.load(f"folder:{tmp_path}", normalization="raw")
    np.testing.assert_array_equal(np.bincount(loaded.train.labels), [8, 4])
    np.testing.assert_array_equal(np.bincount(loaded.test.labels), [2, 1])
    both = np.concatenate([read(loaded.train)[0], read(loaded.test)[0]])
    assert {image.tobytes() for image in both.astype(np.uint8)} == {image.tobytes() for image in pixels}


def test_streamed_and_decoded_images_are_equal(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 9, "b": 7}, shape=(11, 9, 3))
    arguments = {"input_shape": (6, 6, 3), "normalization": "imagenet"}
    in_memory = data.load(f"folder:{tmp_path}", **arguments)
    monkeypatch.setattr(pixel_sources, "MEMORY_LIMIT", 100)
    streamed = data.load(f"folder:{tmp_path}", **arguments)
    assert isinstance(in_memory.train.source, pixel_sources.ArraySource)
    assert isinstance(streamed.train.source, pixel_sources.StreamSource)
    for split in ("train", "test"):
        a, b = (getattr(loaded, split) for loaded in (in_memory, streamed))
        for kwargs in ({}, {"shuffle": True, "augment": True, "seed": 4}, {"indices": [2, 0]}):
            for first, second in zip(read(a, **kwargs), read(b, **kwargs), strict=True):
                np.testing.assert_array_equal(first, second)


def test_images_of_many_sizes_are_brought_to_the_models_size(tmp_path):
    for number, shape in enumerate([(6, 5, 3), (10, 10, 3), (20, 4, 3), (6, 5)]):
        write(tmp_path / "a" / f"{number}.png", shape)
        write(tmp_path / "b" / f"{number}.jpg", shape)
    loaded = data.load(f"folder:{tmp_path}", input_shape=(8, 8, 3))
    assert loaded.input_shape == (8, 8, 3)
    assert loaded.train.size + loaded.test.size == 8
    with pytest.raises(UsageError, match=r"differ in size: .*0\.png is 5 x 6 and .*1\.png is 10 x 10"):
        data.load(f"folder:{tmp_path}")


def test_gray_files_stay_gray_unless_the_model_wants_color(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3}, shape=(6, 5))
    assert data.load(f"folder:{tmp_path}").input_shape == (6, 5, 1)
    images, _ = read(data.load(f"folder:{tmp_path}", input_shape=(6, 5, 3)).train)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_other_files_are_left_out(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "readme.md").write_text("no class")
    (tmp_path / ".cache").mkdir()
    assert data.load(f"folder:{tmp_path}").num_classes == 2


@pytest.mark.parametrize("damage", ["text", "cut short", "empty"])
def test_bad_files_are_named(tmp_path, damage):
    write_classes(tmp_path, {"a": 3, "b": 3}, shape=(40, 40, 3))
    bad = tmp_path / "b" / "01.png"
    bad.write_bytes({"text": b"hello", "cut short": bad.read_bytes()[:-3000], "empty": b""}[damage])
    with pytest.raises(UsageError, match=r"b/01\.png is no readable image"):
        data.load(f"folder:{tmp_path}")


def test_images_of_more_than_8_bits_are_refused(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3}, shape=(6, 5))
    Image.fromarray(np.full((6, 5), 4000, np.uint16)).save(tmp_path / "a" / "99.png")
    with pytest.raises(UsageError, match=r"99\.png has more than 8 bits"):
        data.load(f"folder:{tmp_path}")


def test_folders_without_classes_or_images_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        data.load(f"folder:{tmp_path}/none")
    with pytest.raises(UsageError, match="at least two folders"):
        data.load(f"folder:{tmp_path}")
    write_classes(tmp_path, {"a": 2})
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match="b holds no images"):
        data.load(f"folder:{tmp_path}")


def test_a_test_class_that_was_never_seen_is_refused(tmp_path):
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "test", {"a": 1, "c": 1})
    with pytest.raises(UsageError, match="the class 'c'"):
        data.load(f"folder:{tmp_path}")


def test_hidden_files_are_left_out(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "._00.png").write_bytes(b"what macOS writes beside a file")
    loaded = data.load(f"folder:{tmp_path}")
    assert loaded.train.size + loaded.test.size == 6


def test_a_test_folder_without_classes_gives_way_to_another(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write(tmp_path / "test" / "unlabelled.png")
    with pytest.raises(UsageError, match=r"test must hold at least two folders"):
        data.load(f"folder:{tmp_path}")
    write_classes(tmp_path / "val", {"a": 1, "b": 1})
    assert data.load(f"folder:{tmp_path}").test.size == 2


def test_folders_in_the_folder_of_a_class_are_named(tmp_path):
    write_classes(tmp_path / "training", {"a": 3, "b": 3})
    write_classes(tmp_path / "testing", {"a": 3, "b": 3})
    with pytest.raises(UsageError, match=r"testing holds no images .*, only folders such as a: .* train and test"):
        data.load(f"folder:{tmp_path}")


def test_a_folder_is_called_by_its_name_however_it_is_given(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    assert data.load("folder:.").name == tmp_path.name


def test_images_in_folders_inside_the_folder_of_a_class_are_read(tmp_path):
    pixels = {
        write(tmp_path / name / inner / f"{n}.png").tobytes()
        for name in "ab"
        for inner in ("", "more/deep")
        for n in range(4)
    }
    write(tmp_path / "a" / ".hidden" / "9.png")
    loaded = data.load(f"folder:{tmp_path}", normalization="raw")
    images = np.concatenate([read(loaded.train)[0], read(loaded.test)[0]])
    assert {image.tobytes() for image in images.astype(np.uint8)} == pixels
    np.testing.assert_array_equal(np.bincount(loaded.train.labels) + np.bincount(loaded.test.labels), [8, 8])
    (note,) = loaded.notes
    assert "16 images of 2 classes (a 8, b 8)" in note
    assert "8 of them are in subfolders" in note


def test_the_note_counts_what_was_left_out(tmp_path):
    write_classes(tmp_path / "train", {"a": 2, "b": 3})
    write_classes(tmp_path / "test", {"a": 1, "b": 1})
    for name in ("x.txt", "y.TXT", "z.heic", "README", ".DS_Store"):
        (tmp_path / "train" / "a" / name).write_text("no image")
    train, test = data.load(f"folder:{tmp_path}").notes
    assert "5 images of 2 classes (a 2, b 3); files that were left out: 1 without a suffix, 1 .heic, 2 .txt" in train
    assert "2 images of 2 classes (a 1, b 1)" in test
    assert "left out" not in test


def test_many_classes_are_one_short_line(tmp_path):
    write_classes(tmp_path, {f"{number:03}": 2 + number % 2 for number in range(40)})
    (note,) = data.load(f"folder:{tmp_path}").notes
    assert "100 images of 40 classes (000 2, 001 3," in note
    assert "and 30 more of 2 to 3 images" in note
    assert len(note) < 200


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG"])
def test_other_names_of_jpeg_are_read(tmp_path, suffix):
    write_classes(tmp_path, {"a": 2, "b": 2})
    Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(tmp_path / "a" / f"9{suffix}", "JPEG")
    loaded = data.load(f"folder:{tmp_path}")
    assert loaded.train.size + loaded.test.size == 5


def test_class_names_that_are_no_utf8_are_escaped(tmp_path):
    write_classes(tmp_path, {"a": 2, os.fsdecode(b"b\xe4ren"): 2})
    loaded = data.load(f"folder:{tmp_path}")
    assert loaded.class_names == ("a", r"b\xe4ren")
    assert loaded.train.size + loaded.test.size == 4
