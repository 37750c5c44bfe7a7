"""Layers that a model holds frozen: said, and trained where that is asked for."""

import json

import keras
import numpy as np
import pytest
from tool_inputs import SHORT, nested_model

from dcp_tf.tools import finetune, prune


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory):
    """A file of a model with a frozen base, one of a model that is frozen as a whole."""
    folder = tmp_path_factory.mktemp("frozen")
    for name in ("base", "whole"):
        keras.utils.set_random_seed(1)
        model = nested_model()
        (model if name == "whole" else model.get_layer("inner")).trainable = False
        model.save(folder / f"{name}.keras")
    return folder


def run(inputs, model, folder, *flags):
    return prune.run([f"--model={model}", inputs.data(), *SHORT, f"--output_dir={folder}", *flags])


def kernel_of_the_base(path):
    return keras.models.load_model(path).get_layer("inner").get_layer("a").kernel.numpy()


def test_a_frozen_base_is_said_and_kept(inputs, borrowed, tmp_path, capsys):
    base = borrowed / "base.keras"
    assert run(inputs, base, tmp_path / "none", "--method=l1", "--finetune_epochs=0") == 0
    assert run(inputs, base, tmp_path / "frozen", "--method=l1") == 0
    said = capsys.readouterr().err
    assert "2 of 4 layers are frozen (trainable=False)" in said
    assert "--unfreeze trains them too" in said
    before, after = (kernel_of_the_base(tmp_path / name / "pruned.keras") for name in ("none", "frozen"))
    np.testing.assert_array_equal(before, after)


def test_a_frozen_base_is_trained_where_that_is_asked_for(inputs, borrowed, tmp_path, capsys):
    base = borrowed / "base.keras"
    assert run(inputs, base, tmp_path / "none", "--method=l1", "--finetune_epochs=0") == 0
    assert run(inputs, base, tmp_path / "free", "--method=l1", "--unfreeze", "--held_out=0") == 0
    assert "2 frozen layers are trained too" in capsys.readouterr().err
    before, after = (kernel_of_the_base(tmp_path / name / "pruned.keras") for name in ("none", "free"))
    assert before.shape == after.shape
    assert (before != after).any()
    assert json.loads((tmp_path / "free" / "summary.json").read_text())["settings"]["unfreeze"] is True


def test_a_wholly_frozen_model_is_refused_before_anything_is_written(inputs, borrowed, tmp_path, capsys):
    whole = borrowed / "whole.keras"
    assert run(inputs, whole, tmp_path / "out") == 2
    assert "--unfreeze trains them" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert run(inputs, whole, tmp_path / "out", "--unfreeze", "--method=l1", "--finetune_epochs=0") == 0
    flags = [inputs.data(), "--finetune_epochs=1", f"--output_dir={tmp_path / 'more'}"]
    assert finetune.run([f"--model={whole}", *flags]) == 2


def test_resuming_with_another_choice_is_refused(inputs, borrowed, tmp_path, capsys):
    base = borrowed / "base.keras"
    assert run(inputs, base, tmp_path / "out") == 0
    assert run(inputs, base, tmp_path / "out", "--resume", "--unfreeze") == 2
    refusal = capsys.readouterr().err.splitlines()[-1]
    assert "4 weights were trainable, 8 are now: freeze the same layers, or --unfreeze as before" in refusal
    assert "leave out --resume" in refusal
