"""The answers of both models for the test images, as the page shows them."""

import base64
import json
import types

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import ArraySplit
from dcp_tf.settings.normalization import NORMALIZATIONS
from dcp_tf.tools.app import answers
from dcp_tf.training import Classification

LABELS = np.arange(40) % 4


def given(images, labels=LABELS, **split):
    test = ArraySplit(images, labels)
    for name, value in split.items():
        object.__setattr__(test, name, value)
    dataset = types.SimpleNamespace(test=test, class_names=("a", "b", "c", "d"))
    return types.SimpleNamespace(dataset=dataset, objective=Classification(), answers={})


def measure(made, name, classes):
    """Runs a model that gives these classes over all images, in two batches."""
    scores = iter(np.split(np.eye(4, dtype=np.float32)[classes], [25]))
    predict = answers.recorded(made, name, lambda images: next(scores))
    for batch in made.dataset.test.batches(25):
        predict(batch[0])


def pixels(example):
    kind, data = example["picture"].removeprefix("data:image/").split(";base64,")
    return kind, tf.io.decode_image(base64.b64decode(data)).numpy()


def test_lost_and_gained_answers_are_counted_and_shown(tmp_path):
    made = given(np.random.default_rng(0).random((40, 8, 6, 3)).astype(np.float32))
    before, after = LABELS.copy(), LABELS.copy()
    before[:2] = (LABELS[:2] + 1) % 4  # gained
    after[10:25] = (LABELS[10:25] + 1) % 4  # lost
    measure(made, "baseline", before)
    measure(made, "pruned", after)
    answers.write_answers(made, tmp_path)
    found = json.loads((tmp_path / "answers.json").read_text())
    assert found["changed"] == {"lost": 15, "gained": 2, "other": 0}
    assert [sum(column) for column in zip(*found["per_class"], strict=True)] == [40, 38, 25]
    assert found["p_value"] == pytest.approx(0.0023, abs=1e-4)
    verdicts = [example["baseline"] == example["label"] for example in found["examples"]]
    assert (verdicts.count(True), verdicts.count(False)) == (8, 2)
    for example in found["examples"]:
        kind, picture = pixels(example)
        assert kind == "png"
        np.testing.assert_allclose(picture / 255, made.dataset.test.inputs[example["image"]], atol=0.003)


@pytest.mark.parametrize("name", ["caffe", "imagenet", "tf", "raw"])
def test_a_picture_shows_the_pixels_before_the_normalization(tmp_path, name):
    rng = np.random.default_rng(1)
    shades = np.repeat(np.repeat(rng.random((40, 4, 4, 3)), 60, 1), 50, 2).astype(np.float32)  # smooth, for JPEG
    normalization = NORMALIZATIONS[name]
    made = given(normalization.apply(shades * normalization.float_white), normalization=normalization)
    measure(made, "baseline", LABELS)
    measure(made, "pruned", np.where(np.arange(40) == 9, 0, LABELS))
    answers.write_answers(made, tmp_path)
    (example,) = json.loads((tmp_path / "answers.json").read_text())["examples"]
    kind, picture = pixels(example)
    assert (kind, picture.shape) == ("jpeg", (96, 80, 3))
    np.testing.assert_allclose(picture[12::24, 10::20] / 255, shades[9, ::60, ::50], atol=0.06)


@pytest.mark.parametrize("split", [{"labels": None}, {"order_may_change": True}])
def test_where_answers_have_no_labels_the_file_of_an_earlier_run_goes(tmp_path, split):
    made = given(np.zeros((40, 8, 8, 1), np.float32), **split)
    (tmp_path / "answers.json").write_text("{}")
    assert answers.recorded(made, "baseline", "a model") == "a model"
    answers.write_answers(made, tmp_path)
    assert not list(tmp_path.iterdir())


def test_inputs_that_are_no_images_have_no_pictures(tmp_path):
    made = given(np.zeros((40, 9), np.float32))
    measure(made, "baseline", LABELS)
    measure(made, "pruned", LABELS[::-1])
    answers.write_answers(made, tmp_path)
    assert not any("picture" in example for example in json.loads((tmp_path / "answers.json").read_text())["examples"])
