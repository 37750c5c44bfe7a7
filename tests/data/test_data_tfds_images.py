import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dcp_tf import data
from dcp_tf.data import pixel_sources
from dcp_tf.data.tfrecords import index_records
from dcp_tf.errors import UsageError

tfds = pytest.importorskip("tensorflow_datasets")

CIFAR10 = pathlib.Path(__file__).parents[3] / "shared/data/tfds"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_set(root, shape, splits, draw_size, label=None, supervised_keys=("image", "label"), config=""):
    """Writes a prepared data set by hand, as TFDS lays it out: {split: labels}; returns the pixels of each split."""
    rng = np.random.default_rng(0)
    folder = root / "tiny" / config / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=shape), "label": label or tfds.features.ClassLabel(names=["a", "b", "c"])}
    )
    pixels, infos = {}, []
    for split, labels in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="tiny", split=split, filetype_suffix="tfrecord"
        )
        pixels[split] = [rng.integers(0, 256, (*draw_size(rng), 3), dtype=np.uint8) for _ in labels]
        path = template.sharded_filepaths(1)[0]
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image, label in zip(pixels[split], labels, strict=True):
                writer.write(features.serialize_example({"image": png(image), "label": label}))
        infos.append(
            tfds.core.SplitInfo(name=split, shard_lengths=[len(labels)], num_bytes=0, filename_template=template)
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, supervised_keys=supervised_keys, check_data=False
    )
    return pixels


def read(split, **kwargs):
    images, labels = zip(*split.batches(4, **kwargs).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_a_prepared_set_comes_back_in_the_order_of_its_files(tmp_path, monkeypatch):
    labels = {"train": [0, 1, 2, 1, 0, 2, 2], "test": [2, 0, 1]}
    pixels = write_set(tmp_path, (6, 5, 3), labels, lambda rng: (6, 5))
    loaded = data.load("tfds:tiny", data_dir=str(tmp_path), normalization="raw")
    assert (loaded.class_names, loaded.input_shape) == (("a", "b", "c"), (6, 5, 3))
    for split in ("train", "test"):
        images, got = read(getattr(loaded, split))
        np.testing.assert_array_equal(images, pixels[split])
        np.testing.assert_array_equal(got, labels[split])
    monkeypatch.setattr(pixel_sources, "MEMORY_LIMIT", 10)
    streamed = data.load("tfds:tiny", data_dir=str(tmp_path), normalization="raw")
    assert isinstance(streamed.train.source, pixel_sources.StreamSource)
    kwargs = {"shuffle": True, "augment": True, "seed": 1, "indices": [5, 1, 2]}
    for first, second in zip(read(loaded.train, **kwargs), read(streamed.train, **kwargs), strict=True):
        np.testing.assert_array_equal(first, second)


def test_images_of_many_sizes_need_a_size(tmp_path):
    write_set(tmp_path, (None, None, 3), {"train": [0, 1, 2, 0, 1, 2]}, lambda rng: rng.integers(4, 9, 2))
    with pytest.raises(UsageError, match="differ in size"):
        data.load("tfds:tiny", data_dir=str(tmp_path))
    loaded = data.load("tfds:tiny", data_dir=str(tmp_path), input_shape=(8, 8, 1))
    assert loaded.input_shape == (8, 8, 1)
    # There is no split for testing: one of each class was set aside.
    np.testing.assert_array_equal(np.sort(loaded.test.labels), [0, 1, 2])


def test_validation_is_taken_where_the_test_labels_are_hidden(tmp_path):
    splits = {"train": [0, 1, 2], "validation": [1, 2], "test": [-1, -1, -1, -1]}
    write_set(tmp_path, (6, 5, 3), splits, lambda rng: (6, 5))
    assert data.load("tfds:tiny", data_dir=str(tmp_path)).test.size == 2


@pytest.mark.parametrize("other", [{"validation": [1, 2]}, {"val": [1, 2]}, {"test": [], "valid": [1, 2]}])
def test_the_first_split_with_labels_is_measured_on(other, tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [0, 1, 2, 0, 1, 2], **other}, lambda rng: (6, 5))
    loaded = data.load("tfds:tiny", data_dir=str(tmp_path))
    np.testing.assert_array_equal(loaded.test.labels, [1, 2])
    assert loaded.train.size == 6


def test_a_set_without_supervised_keys_is_read_where_it_has_one_image_and_one_label(tmp_path):
    pixels = write_set(tmp_path, (6, 5, 3), {"train": [0, 1], "test": [2]}, lambda rng: (6, 5), supervised_keys=None)
    loaded = data.load("tfds:tiny", data_dir=str(tmp_path), normalization="raw")
    images, labels = read(loaded.train)
    np.testing.assert_array_equal(images, pixels["train"])
    np.testing.assert_array_equal(labels, [0, 1])


def test_what_is_no_class_label_is_named(tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": ["x"]}, lambda rng: (6, 5), label=tfds.features.Text())
    with pytest.raises(UsageError, match=r"expected one Image and one ClassLabel .*label \(Text\)"):
        data.load("tfds:tiny", data_dir=str(tmp_path))


def test_configs_and_versions_that_are_there_are_listed(tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [0, 1, 2], "test": [0]}, lambda rng: (6, 5), config="small")
    assert data.load("tfds:tiny/small:1.0.0", data_dir=str(tmp_path)).train.size == 3
    with pytest.raises(UsageError, match=r"no data set 'tiny', .*tiny holds small; .*NAME/CONFIG"):
        data.load("tfds:tiny", data_dir=str(tmp_path))


@pytest.mark.parametrize("config", ["", "small"])
def test_the_folder_of_the_set_itself_is_no_data_dir(config, tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [0, 1, 2], "test": [0]}, lambda rng: (6, 5), config=config)
    with pytest.raises(UsageError, match=rf"give the folder that holds tiny, data_dir={tmp_path}$"):
        data.load("tfds:tiny", data_dir=str(tmp_path / "tiny"))


def test_a_split_without_examples_is_named(tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [], "test": [0]}, lambda rng: (6, 5))
    with pytest.raises(UsageError, match=r"the split 'train' of tfds:tiny in .* is empty; prepare it again"):
        data.load("tfds:tiny", data_dir=str(tmp_path))


def damage_record(path):
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_record, "tfds:tiny in .* cannot be read: corrupted record .* prepare it again"),
        (pathlib.Path.unlink, "tfds:tiny lacks .*tiny-train.tfrecord.*; prepare it again"),
    ],
)
def test_damaged_files_are_named(damage, message, tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [0, 1, 2], "test": [0]}, lambda rng: (6, 5))
    (path,) = tmp_path.rglob("*train*tfrecord*")
    damage(path)
    with pytest.raises(UsageError, match=message) as caught:
        data.load("tfds:tiny", data_dir=str(tmp_path))
    assert "{{" not in str(caught.value)


def test_images_that_cannot_be_decoded_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "png", lambda pixels: b"no image")
    write_set(tmp_path, (None, None, 3), {"train": [0, 1, 2], "test": [0]}, lambda rng: (6, 5))
    with pytest.raises(UsageError, match=r"tfds:tiny in .* cannot be read: Unknown image file format"):
        data.load("tfds:tiny", data_dir=str(tmp_path), input_shape=(8, 8, 3))


def test_a_file_that_is_cut_short_is_named(tmp_path):
    write_set(tmp_path, (6, 5, 3), {"train": [0, 1, 2], "test": [0]}, lambda rng: (6, 5))
    (path,) = tmp_path.rglob("*train*tfrecord*")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match="cut short"):
        data.load("tfds:tiny", data_dir=str(tmp_path))


def test_records_are_read_in_any_order(tmp_path):
    payloads = [bytes([number]) * number for number in range(1, 30)]
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    for path, part in zip(files, (payloads[:13], payloads[13:]), strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for payload in part:
                writer.write(payload)
    index = index_records(files)
    assert len(index) == len(payloads)
    for number in (28, 0, 13, 12):
        assert index.read(tf.constant(number)).numpy() == payloads[number]


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match="knows no data set 'no_such_set'"):
        data.load("tfds:no_such_set", data_dir=str(tmp_path))


def test_sets_that_are_no_images_are_refused_before_any_download(tmp_path):
    with pytest.raises(UsageError, match="tfds:imdb_reviews is no image classification set"):
        data.load("tfds:imdb_reviews", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("no network\nmore"),
            r"mnist is not in .* and cannot be downloaded \(no network\); give the data_dir",
        ),
        (ModuleNotFoundError("No module named 'scipy'"), r"needs a package that is not installed \(.*'scipy'\)"),
    ],
)
def test_a_download_that_fails_says_what_to_do(tmp_path, monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UsageError, match=message):
        data.load("tfds:mnist", data_dir=str(tmp_path))


def test_a_set_that_must_be_downloaded_by_hand_is_one_line(tmp_path, caplog):
    with pytest.raises(UsageError, match=r"imagenet2012 is not in .* downloaded by hand: .*ILSVRC2012_img_train"):
        data.load("tfds:imagenet2012", data_dir=str(tmp_path), input_shape=(64, 64, 3))
    assert caplog.text == ""


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 is not on this machine")
def test_cifar10():
    loaded = data.load("tfds:cifar10", data_dir=str(CIFAR10), normalization="cifar10")
    assert (loaded.train.size, loaded.test.size, loaded.num_classes) == (50_000, 10_000, 10)
    assert loaded.class_names[3] == "cat"
    np.testing.assert_array_equal(np.bincount(loaded.test.labels), 1000)
    images = loaded.train.representative(2000)
    np.testing.assert_allclose(images.mean((0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(images.std((0, 1, 2)), 1, atol=0.05)
