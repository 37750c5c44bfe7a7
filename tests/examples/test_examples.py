"""The scripts in examples/: short, alike, and running from end to end."""

import importlib.util
import pathlib

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SHORT = {"unet": (640, 6), "detector": (160, 3), "keyword_spotting": (400, 3), "image_and_metadata": (320, 3)}


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_short_documented_and_runs_here():
    assert set(SCRIPTS) == SHORT.keys()
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    for name in SCRIPTS:
        assert len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) < 100
        assert f"python examples/{name}.py" in readme


def test_a_detectors_boxes_hold_their_shapes():
    module = load("detector")
    images, labels, weights = module.draw(20, seed=0)
    again, *_ = module.draw(20, seed=0)
    np.testing.assert_array_equal(images, again)
    assert images.shape == (20, 64, 64, 3)
    is_object = labels["classes"] > 0
    assert is_object.sum() >= 20  # at least one in each image, unless a later one has the same cell
    np.testing.assert_array_equal(weights["boxes"] > 0, is_object)
    boxes = labels["boxes"][is_object]
    sides = np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]])
    assert ((sides > 0.9) & (sides < 3.5)).all()  # in cells of 8 pixels; radii are 6 to 12
    np.testing.assert_allclose(module.iou(boxes, boxes), 1, atol=1e-5)
    np.testing.assert_allclose(module.iou(boxes, boxes / 2), 1 / 4, atol=1e-5)
    assert not np.any(module.iou(boxes, -boxes))


def test_only_image_and_metadata_together_tell_the_class():
    """The same image and camera at another distance is another class."""
    module = load("image_and_metadata")
    inputs, labels = module.draw(600, seed=0)
    assert inputs["metadata"].shape == (600, 4)
    distance, large = inputs["metadata"][:, 0], labels >= 3
    # Each alone says nothing of the size: distances of small and large shapes are drawn alike.
    assert abs(distance[large].mean() - distance[~large].mean()) < 0.1
    assert np.bincount(labels, minlength=6).min() > 60


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs_from_training_to_int8(name, capsys, monkeypatch, tmp_path):
    count, epochs = SHORT[name]
    monkeypatch.chdir(tmp_path)
    rows = load(name).main(count=count, epochs=epochs)
    assert [row[0] for row in rows] == ["original", "dcp", "l1", "random"]
    original = rows[0]
    for _, macs, before, after, in_8_bits, size in rows[1:]:
        assert macs <= original[1] / 2
        assert size < original[-1]
        for value in (before, after, in_8_bits):
            assert np.all(np.greater_equal(value, 0) & np.less_equal(value, 1))
        assert np.allclose(in_8_bits, after, atol=0.05)
    table = capsys.readouterr().out.splitlines()[-4:]
    assert [line.split()[0] for line in table] == [row[0] for row in rows]
