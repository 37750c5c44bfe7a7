"""Faces brought into the standard pose by five landmarks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcp_tf import data
from dcp_tf.data.faces.alignment import align_face, face_template, read_landmarks, similarity_transform
from dcp_tf.data.faces.identities import FaceSettings
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)


def pose(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return lambda points: points @ turn.T + shift


def dots(points, size, radius=2.5):
    """A black image with a soft white dot at each point, and a gray level that tells the dots apart."""
    rows, columns = np.indices(size)
    image = np.zeros(size)
    for number, (x, y) in enumerate(points, start=1):
        image += (100 + 30 * number) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def centers(image, expected, reach=6):
    """Where the dots of an image lie: the center of mass around where each is expected."""
    pixels, found = np.asarray(image, float), []
    for x, y in expected:
        rows, columns = np.indices(pixels.shape)
        weight = pixels * (np.hypot(columns - x, rows - y) < reach)
        found.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
    return np.array(found)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-50, 50), st.floats(-50, 50))
def test_a_similarity_is_found_exactly(angle, scale, x, y):
    points = RNG.normal(size=(5, 2)) * 20
    target = pose(angle, scale, [x, y])(points)
    matrix = similarity_transform(points, target)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], target, atol=1e-6)


def test_noisy_points_get_the_least_squares_without_mirroring():
    from scipy.optimize import minimize

    points = RNG.normal(size=(5, 2)) * 20
    for target in (pose(0.3, 1.4, [5, -2])(points) + RNG.normal(size=(5, 2)), points * [-1, 1]):
        matrix = similarity_transform(points, target)

        def squares(a, target=target):
            turn = np.array([[a[0], -a[1]], [a[1], a[0]]])
            return ((points @ turn.T + a[2:] - target) ** 2).sum()

        found = squares([matrix[0, 0], matrix[1, 0], *matrix[:, 2]])
        assert found == pytest.approx(minimize(squares, [1, 0, 0, 0]).fun, rel=1e-5)
        assert np.linalg.det(matrix[:, :2]) > 0


def test_points_at_one_place_give_no_pose():
    with pytest.raises(UsageError, match="all have one position"):
        similarity_transform(np.ones((5, 2)), face_template())


def test_the_templates_of_arcface_and_sphereface():
    np.testing.assert_allclose(face_template()[0], [38.2946, 51.6963])
    np.testing.assert_allclose(face_template((112, 96))[[0, 4]], [[30.2946, 51.6963], [62.7299, 92.2041]])
    np.testing.assert_allclose(face_template((224, 224)), 2 * face_template())


@pytest.mark.parametrize("size", [(112, 112), (112, 96), (64, 64)])
@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.4, 0.8), (-0.3, 1.7), (0.2, 4.5)])
def test_landmarks_lie_on_the_template_after_alignment(size, angle, scale):
    target = face_template(size)
    landmarks = pose(angle, scale, [60, 40])(target)
    landmarks += 10 - landmarks.min(0)
    width, height = (landmarks.max(0) + 10).astype(int)
    image = dots(landmarks, (height, width), radius=max(1.5, scale * 1.5))
    aligned = align_face(image, landmarks, size)
    assert aligned.size == size[::-1]
    np.testing.assert_allclose(centers(aligned, target), target, atol=0.25)


def test_an_aligned_face_is_left_alone():
    pixels = RNG.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    aligned = np.asarray(align_face(Image.fromarray(pixels), face_template()), int)
    np.testing.assert_allclose(aligned, pixels, atol=1)  # Pillow cuts fractions off


def write_face(path, angle, size=(200, 180)):
    landmarks = pose(angle, 1.3, [30, 50])(face_template())
    path.parent.mkdir(parents=True, exist_ok=True)
    dots(landmarks, size, radius=3).convert("RGB").save(path)
    return landmarks


@pytest.mark.parametrize("separator", [" ", ", ", "\t"])
def test_faces_with_landmarks_are_aligned_and_others_left_out(tmp_path, separator, capsys):
    lines = ["# five landmarks of each image", ""]
    for person in ("ann", "bob", "cid"):
        for number in range(3):
            name = f"{person}/{number}.png"
            landmarks = write_face(tmp_path / name, 0.1 * number)
            lines.append(separator.join([name, *(f"{value:.3f}" for value in landmarks.ravel())]))
    write_face(tmp_path / "ann" / "unseen.png", 0)
    (tmp_path / "landmarks.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    loaded = data.load(f"faces:{tmp_path}", normalization="raw")
    assert (loaded.input_shape, loaded.num_classes) == ((112, 112, 3), 3)
    assert loaded.train.size + loaded.test.size == 9
    assert "1 of 10 images have no landmarks" in capsys.readouterr().err
    for split in (loaded.train, loaded.test):
        for images, _ in split.batches(4).as_numpy_iterator():
            for image in images:
                np.testing.assert_allclose(centers(image[..., 0], face_template()), face_template(), atol=0.3)
    (tmp_path / "landmarks.txt").rename(tmp_path / "elsewhere.txt")
    narrow = data.load(
        f"faces:{tmp_path}",
        input_shape=(112, 96, 1),
        faces=FaceSettings(landmarks=str(tmp_path / "elsewhere.txt")),
    )
    assert narrow.input_shape == (112, 96, 1)


@pytest.mark.parametrize("separator", [" ", ", ", ",", "\t"])
@pytest.mark.parametrize("name", ["Ann Lee/Ann Lee, 1.jpg", "a/1 2 3.png", "ann.jpg"])
def test_the_paths_of_images_may_hold_spaces_and_commas(tmp_path, separator, name):
    points = np.arange(10.0).reshape(5, 2)
    (tmp_path / "points.txt").write_text(separator.join([name, *map(str, points.ravel())]) + "\n")
    found = read_landmarks(str(tmp_path / "points.txt"))
    assert list(found) == [tmp_path / name]
    np.testing.assert_array_equal(found[tmp_path / name], points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no landmarks"),
        ("a.jpg 1 2 3 4 5 6 7 8 9", "line 1 .* ten numbers"),
        ("# fine\na.jpg 1 2 3 4 5 6 7 8 9 x", "line 2"),
        ("a.jpg 1 2 3 4 5 6 7 8 9 nan", "line 1"),
        ("a.jpg", "line 1"),
        ("a.jpg 1 1 1 1 1 1 1 1 1 1", "line 1"),
    ],
)
def test_files_that_hold_no_landmarks_are_refused(tmp_path, text, message):
    (tmp_path / "points.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_landmarks(str(tmp_path / "points.txt"))
    with pytest.raises(UsageError, match=r"none\.txt is no readable file of landmarks"):
        read_landmarks(str(tmp_path / "none.txt"))
