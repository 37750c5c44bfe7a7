"""Faces by identity, in folders and in TFRecord files."""

import io
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dcp_tf import data
from dcp_tf.data import FaceSettings, pixel_sources
from dcp_tf.errors import UsageError

COUNTS = {"ann": 6, "bob": 2, "cid": 4, "dan": 1, "eve": 3}
LFW = pathlib.Path(__file__).parents[3] / "shared/data/lfw112x96"


def faces(shape=(10, 8, 3)):
    """By person: one image per number, its pixels saying who and which it is."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (count, *shape), dtype=np.uint8) for name, count in COUNTS.items()}


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_folder(root, **kwargs):
    for name, images in faces(**kwargs).items():
        (root / name).mkdir(parents=True)
        for number, pixels in enumerate(images):
            (root / name / f"{name}_{number:04}.png").write_bytes(png(pixels))
    return root


def example(image, identity):
    whole = isinstance(identity, int)
    identity = (
        tf.train.Feature(int64_list=tf.train.Int64List(value=[identity]))
        if whole
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[identity.encode()]))
    )
    features = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])), "identity": identity}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(root, numbered=False, **kwargs):
    root.mkdir(exist_ok=True)
    people = list(faces(**kwargs).items())
    for shard, part in enumerate((people[:2], people[2:])):
        with tf.io.TFRecordWriter(str(root / f"faces.tfrecord-{shard:05}-of-00002")) as writer:
            for name, images in part:
                for pixels in images:
                    writer.write(example(png(pixels), list(COUNTS).index(name) if numbered else name))
    return root


@pytest.fixture(params=[write_folder, write_records])
def root(request, tmp_path):
    return request.param(tmp_path / "faces")


def read(split, **kwargs):
    images, labels = zip(*split.batches(4, **kwargs).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def pixels_by_name(loaded):
    found = {name: set() for name in loaded.class_names}
    for split in (loaded.train, loaded.test):
        for image, label in zip(*read(split), strict=True):
            found[loaded.class_names[label]].add(image.astype(np.uint8).tobytes())
    return found


def expected(*names):
    return {name: {image.tobytes() for image in faces()[name]} for name in names}


def test_identities_are_the_classes_and_people_with_one_image_are_left_out(root, capsys):
    loaded = data.load(f"faces:{root}", normalization="raw")
    assert (loaded.name, loaded.num_classes, loaded.input_shape) == ("faces", 4, (10, 8, 3))
    assert pixels_by_name(loaded) == expected("ann", "bob", "cid", "eve")
    assert "4 of 5 people, 15 images" in capsys.readouterr().err
    for split in (loaded.train, loaded.test):
        assert set(split.labels) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (FaceSettings(min_images=4), ("ann", "cid")),
        (FaceSettings(keep=["eve", "bob", "dan", "zoe"]), ("bob", "eve")),
        (FaceSettings(leave_out={"ann"}), ("bob", "cid", "eve")),
        (FaceSettings(min_images=3, keep=("ann", "bob", "eve", "cid"), leave_out=("ann",)), ("cid", "eve")),
    ],
)
def test_settings_choose_the_people(root, settings, names):
    loaded = data.load(f"faces:{root}", normalization="raw", faces=settings)
    assert loaded.class_names == names
    assert pixels_by_name(loaded) == expected(*names)


def test_streamed_and_decoded_faces_are_equal(root, monkeypatch):
    arguments = {"input_shape": (6, 5, 3), "normalization": "face"}
    decoded = data.load(f"faces:{root}", **arguments)
    monkeypatch.setattr(pixel_sources, "MEMORY_LIMIT", 10)
    streamed = data.load(f"faces:{root}", **arguments)
    assert isinstance(streamed.train.source, pixel_sources.StreamSource)
    for kwargs in ({}, {"shuffle": True, "augment": True, "seed": 3}):
        for first, second in zip(read(decoded.train, **kwargs), read(streamed.train, **kwargs), strict=True):
            np.testing.assert_array_equal(first, second)


def test_faces_are_mirrored_by_chance_and_nothing_else(root):
    train = data.load(f"faces:{root}", normalization="raw", test_fraction=0.1).train
    plain, _ = read(train)
    mirrored = []
    for epoch in range(10):
        changed, _ = read(train, augment=True, seed=5, epoch=epoch)
        same = (changed == plain).all((1, 2, 3))
        np.testing.assert_array_equal(changed[~same], plain[~same][:, :, ::-1])
        mirrored.append(~same)
        np.testing.assert_array_equal(changed, read(train, augment=True, seed=5, epoch=epoch)[0])
    assert 0.3 < np.mean(mirrored) < 0.7
    assert len({tuple(flags) for flags in mirrored}) > 5


def test_a_subset_is_balanced_over_the_people(root):
    train = data.load(f"faces:{root}", faces=FaceSettings(min_images=3)).train
    assert np.bincount(train.labels[train.balanced_subset(6)]).tolist() == [2, 2, 2]


def test_identities_may_be_numbers(tmp_path):
    loaded = data.load(f"faces:{write_records(tmp_path / 'faces', numbered=True)}", normalization="raw")
    assert loaded.class_names == ("00000000", "00000001", "00000002", "00000004")
    single = data.load(f"faces:{tmp_path}/faces/faces.tfrecord-00001-of-00002", normalization="raw")
    assert single.class_names == ("00000002", "00000004")


def test_gray_crops_stay_gray_unless_the_network_takes_color(tmp_path):
    for number, write in enumerate((write_folder, write_records)):
        root = write(tmp_path / str(number), shape=(10, 8))
        assert data.load(f"faces:{root}").input_shape == (10, 8, 1)
        assert data.load(f"faces:{root}", input_shape=(10, 8, 3)).input_shape == (10, 8, 3)


def test_lists_of_identities(tmp_path):
    (tmp_path / "people.txt").write_text("# of folds 9 and 10\nann\n\n eve \n")
    assert data.read_identities(str(tmp_path / "people.txt")) == ("ann", "eve")
    (tmp_path / "people.txt").write_text("ann\neve\n", encoding="utf-8-sig")
    assert data.read_identities(str(tmp_path / "people.txt")) == ("ann", "eve")
    with pytest.raises(UsageError, match=r"none\.txt is no readable list"):
        data.read_identities(str(tmp_path / "none.txt"))


def test_what_is_missing_or_wrong_is_one_clear_line(tmp_path):
    root = write_folder(tmp_path / "faces")
    cases = [
        (lambda: data.load(f"faces:{tmp_path}/none"), r"faces:.*none: there is no such folder; expected .*NAME/IMAGE"),
        (lambda: data.load(f"faces:{root}", faces=FaceSettings(min_images=5)), "5 people, but 1 of them .* 5 images"),
        (lambda: data.load(f"faces:{root}", faces=FaceSettings(keep=["zoe"])), "but 0 of them"),
        (lambda: FaceSettings(min_images=1), "at least 2"),
        (lambda: data.load("digits", faces=FaceSettings()), "go with faces:DIR"),
        (lambda: data.load(f"faces:{root}", augmentation="crop"), "one size"),
    ]
    for make, message in cases:
        with pytest.raises(UsageError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_folder_of_another_form_is_told_what_was_expected(tmp_path):
    (tmp_path / "empty/a").mkdir(parents=True)
    (tmp_path / "empty/b").mkdir()
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/train.rec").write_bytes(b"faces")
    cases = {"archive": "fewer than two folders", "empty": "no images", "archive/train.rec": "no folder"}
    for name, found in cases.items():
        with pytest.raises(UsageError, match=rf"faces:.*{name}: .*{found}.*; expected .*NAME/IMAGE.*tfrecord"):
            data.load(f"faces:{tmp_path / name}")


def test_people_without_images_have_too_few(tmp_path, capsys):
    root = write_folder(tmp_path / "faces")
    (root / "nobody").mkdir()
    assert data.load(f"faces:{root}").num_classes == 4


def test_faces_of_another_size_are_stretched_unless_that_is_forbidden(root):
    """Also where one alone is: the first image tells nothing of the others."""
    larger = png(np.zeros((20, 8, 3), np.uint8))
    if (root / "eve").is_dir():
        (root / "eve" / "eve_0002.png").write_bytes(larger)
    else:
        with tf.io.TFRecordWriter(str(root / "more.tfrecord")) as writer:
            writer.write(example(png(faces()["eve"][0]), "eve"))
            writer.write(example(larger, "eve"))
    assert data.load(f"faces:{root}", input_shape=(10, 8, 3)).num_classes == 4
    wrong = r"(eve_0002\.png|record 2 of .*more\.tfrecord) has 20 x 8 .* takes 10 x 8"
    with pytest.raises(UsageError, match=wrong) as caught:
        data.load(f"faces:{root}", input_shape=(10, 8, 3), faces=FaceSettings(resize=False))
    assert ("give landmarks" in str(caught.value)) == (root / "eve").is_dir()  # crops in records have none
    others = FaceSettings(leave_out=["eve"], resize=False)
    assert data.load(f"faces:{root}", input_shape=(10, 8, 3), faces=others).num_classes == 3


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (tf.train.Example().SerializeToString(), "has the features none; expected 'image'"),
        (b"\xff\xff\xff", "no tf.train.Example"),
        (example(bytes(300), "ann"), "record 1 of .* 300 bytes as 'image' that are no JPEG or PNG file"),
    ],
)
def test_records_of_another_form_are_refused(tmp_path, record, message):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(record)
    with pytest.raises(UsageError, match=message):
        data.load(f"faces:{tmp_path}")


def test_a_damaged_image_among_records_is_named(tmp_path):
    root, whole = write_records(tmp_path / "faces"), png(faces()["ann"][0])
    with tf.io.TFRecordWriter(str(root / "more.tfrecord")) as writer:
        writer.write(example(whole, "ann"))
        writer.write(example(whole[:-60], "ann"))
    with pytest.raises(UsageError, match=r"record 2 of .*more\.tfrecord holds a damaged image"):
        data.load(f"faces:{root}")


def test_compressed_records_are_no_damaged_ones(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
        writer.write(example(png(faces()["ann"][0]), "ann"))
    with pytest.raises(UsageError, match="is compressed; unpack it"):
        data.load(f"faces:{tmp_path}")


def test_landmarks_of_none_of_the_images_show_where_they_were_looked_for(tmp_path):
    people, name = write_folder(tmp_path / "faces"), "ann/ann_0000.png"
    (tmp_path / "points.txt").write_text(f"{name} 1 1 3 1 2 2 1 4 3 4")
    expected = rf"none of the 16 images .*: {people}/{name} was looked for, .* means {tmp_path}/{name};"
    with pytest.raises(UsageError, match=expected) as caught:
        data.load(f"faces:{people}", faces=FaceSettings(landmarks=str(tmp_path / "points.txt")))
    assert "\n" not in str(caught.value)


def test_records_need_no_landmarks(tmp_path):
    root = write_records(tmp_path / "faces")
    with pytest.raises(UsageError, match="crops are aligned"):
        data.load(f"faces:{root}", faces=FaceSettings(landmarks="points.txt"))
    (root / "faces.tfrecord-00000-of-00002").write_bytes(b"")
    (root / "faces.tfrecord-00001-of-00002").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no records"):
        data.load(f"faces:{root}")


@pytest.mark.skipif(not LFW.is_dir(), reason="LFW is not on this machine")
def test_people_of_lfw_whom_no_fold_verifies():
    pairs = data.read_pairs(str(LFW.parent / "lfw_pairs.txt"), str(LFW))
    verified = pairs.people([9, 10])
    settings = FaceSettings(min_images=20, leave_out=verified)
    loaded = data.load(f"faces:{LFW}", normalization="face", faces=settings)
    assert loaded.input_shape == (112, 96, 3)
    assert loaded.num_classes > 40
    assert not verified & set(loaded.class_names)
