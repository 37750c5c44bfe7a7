"""`--class_weight` stands for the `class_weight` of Keras, by number or by name, for one output or several."""

import numpy as np
import pytest

from dcp_tf.data import as_split, with_class_weight
from dcp_tf.errors import UsageError
from dcp_tf.tools import prune
from dcp_tf.tools.cli.class_weight_flag import read_class_weight

NAMES = ("cat", "dog", "cow")


@pytest.mark.parametrize(
    ("entries", "outputs", "expected"),
    [
        (["0:1", "2:5"], (), {0: 1.0, 2: 5.0}),
        (["cat:1", "cow:0.5"], (), {0: 1.0, 2: 0.5}),
        (["balanced"], (), "balanced"),
        (["kind=dog:3", "box=balanced", "kind=0:2"], ("kind", "box"), {"kind": {1: 3.0, 0: 2.0}, "box": "balanced"}),
    ],
)
def test_the_flag_is_read(entries, outputs, expected):
    assert read_class_weight(entries, NAMES, outputs) == expected


@pytest.mark.parametrize(
    ("entries", "outputs", "words"),
    [
        (["cat"], (), "takes CLASS:WEIGHT"),
        (["cat:much"], (), "takes CLASS:WEIGHT"),
        (["cta:2"], (), "did you mean 'cat'?"),
        (["0:1", "cat:2"], (), "two things"),
        (["0:1"], ("kind", "box"), "OUTPUT=CLASS:WEIGHT"),
        (["kin=0:1"], ("kind", "box"), "did you mean 'kind'?"),
    ],
)
def test_what_cannot_be_read_is_one_line(entries, outputs, words):
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        read_class_weight(entries, NAMES, outputs)


def test_balanced_weights_give_each_class_the_same_share():
    labels = np.array([0] * 6 + [2] * 2, np.int32)
    split = with_class_weight(as_split((np.zeros((8, 3), np.float32), labels)), "balanced")
    np.testing.assert_allclose([split.weights[labels == c].sum() for c in (0, 2)], [4.0, 4.0])
    rows = with_class_weight(as_split((np.zeros((8, 3), np.float32), np.eye(3, dtype=np.float32)[labels])), "balanced")
    np.testing.assert_allclose(rows.weights, split.weights)
    with pytest.raises(UsageError, match="class numbers as labels"):
        with_class_weight(as_split((np.zeros((8, 3), np.float32), np.linspace(0, 1, 8))), "balanced")


def test_a_run_counts_them_and_does_not_resume_with_others(inputs, tmp_path, capsys):
    flags = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}", "--method=l1", "--finetune_epochs=0"]
    flags += ["--quantization=", "--noreload_check"]
    assert prune.run([*flags, "--class_weight=balanced"]) == 0
    assert prune.run([*flags, "--class_weight=balanced", "--resume"]) == 0
    assert prune.run([*flags, "--class_weight=0:1,1:7", "--resume"]) == 2
    assert "other training images" in capsys.readouterr().err.splitlines()[-1]
    assert prune.run([*flags, "--class_weight=0:1,red:7", "--overwrite"]) == 2
    assert "there is no class 'red'; give its number" in capsys.readouterr().err
