"""`prune` with each method and switch, and on each kind of model."""

import json

import numpy as np
import pytest
from tool_inputs import SHORT, architecture, kept_channels

import dcp_tf
from dcp_tf.tools import prune


def run(folder, *flags):
    """Runs `prune` and returns its plan's kept counts, after checking that plan, model and summary agree."""
    import keras

    assert prune.run([f"--output_dir={folder}", *SHORT, *flags]) == 0
    baseline, pruned = (keras.models.load_model(folder / f"{name}.keras") for name in ("baseline", "pruned"))
    again = dcp_tf.PruningPlan.load(folder / "plan.json").apply(baseline)
    assert architecture(again) == architecture(pruned)
    assert pruned.count_params() < baseline.count_params()
    assert all(np.isfinite(w).all() for w in pruned.get_weights())
    return {name: len(kept) for name, kept in kept_channels(folder).items()}


ONE_SHOT = ["random", "l1", "l2", "fpgm", "taylor", "apoz", "thinet", "lasso", "width_multiplier"]


QUICK = ("thinet", "width_multiplier")


@pytest.mark.parametrize("method", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in ONE_SHOT])
def test_one_shot_methods(method, inputs, tmp_path):
    assert run(tmp_path, inputs.residual, inputs.data(), f"--method={method}") == {"inside": 4, "wide": 6}


def test_l1_keeps_the_filters_with_the_largest_norm(inputs, tmp_path):
    import keras

    run(tmp_path, inputs.residual, inputs.data(), "--method=l1", "--finetune_epochs=0", "--rate=0.25")
    kernel = keras.models.load_model(inputs.folder / "residual.keras").get_layer("inside").kernel
    norms = np.abs(np.asarray(kernel)).sum((0, 1, 2))
    assert kept_channels(tmp_path)["inside"] == sorted(np.argsort(-norms)[:6].tolist())


def test_adapt_dcp_on_a_nested_model_keeps_at_most_what_the_rate_allows(inputs, tmp_path):
    kept = run(tmp_path, inputs.nested, inputs.data(), "--method=adapt_dcp", "--rate=0.25", "--epsilon=0.001")
    assert set(kept) == {"outer", "inner/a", "inner/b"}
    assert all(1 <= count <= 6 for count in kept.values())


def losses_of(folder, part):
    """All values of one part of the loss in a plan's histories."""
    groups = json.loads((folder / "plan.json").read_text())["groups"]
    return {value for group in groups for value in group["history"][part]}


@pytest.mark.slow
def test_reconstruction_alone(inputs, tmp_path):
    kept = {"inside": 4, "wide": 6}
    assert run(tmp_path, inputs.residual, inputs.data(), "--losses=reconstruction", "--selection=exact") == kept
    assert losses_of(tmp_path, "discrimination") == {0.0}
    assert losses_of(tmp_path, "reconstruction") != {0.0}


def test_discrimination_alone_in_stages_with_residual_streams_and_distillation(inputs, tmp_path):
    flags = ("--selection=exact", "--losses=discrimination", "--per_stage", "--prune_residual", "--distillation=0.5")
    kept = run(tmp_path, inputs.residual, inputs.data(), *flags, "--auxiliary_layers=joined")
    assert kept == {"inside": 4, "stem": 4, "wide": 6}
    assert losses_of(tmp_path, "reconstruction") == {0.0}
    assert losses_of(tmp_path, "discrimination") != {0.0}
    phases = [phase["name"] for phase in json.loads((tmp_path / "summary.json").read_text())["phases"]]
    assert {"stage_1", "stage_2"} <= set(phases)


def test_sequential_model_with_one_sigmoid(inputs, tmp_path, capsys):
    kept = run(tmp_path, inputs.sequential, inputs.data("two"), "--quantization=float32")
    assert kept == {"first": 4, "second": 4}
    assert "outputs: sigmoid" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["outputs"] == "sigmoid"
    assert summary["tflite"]["pruned_float32.tflite"]["top1"] == summary["pruned"]["top1"]


def test_model_open_to_any_size_takes_that_of_the_images(inputs, tmp_path):
    import keras

    kept = run(tmp_path, inputs.open, inputs.data("larger"), "--quantization=int8")
    assert kept == {"first": 4, "second": 4}
    assert keras.models.load_model(tmp_path / "pruned.keras").input_shape == (None, None, None, 3)
    summary = json.loads((tmp_path / "summary.json").read_text())
    # 3x3 kernels at each of the 16 x 16 positions, 3 -> 8 -> 8 channels, and 8 -> 4 classes.
    assert summary["baseline"]["macs"] == 16 * 16 * 9 * (3 * 8 + 8 * 8) + 8 * 4
    assert set(summary["tflite"]) == {"baseline_int8.tflite", "pruned_int8.tflite"}


def test_without_fine_tuning_the_model_is_the_plan_alone(inputs, tmp_path):
    import keras

    run(tmp_path, inputs.residual, inputs.data(), "--method=random", "--finetune_epochs=0")
    baseline, pruned = (keras.models.load_model(tmp_path / f"{name}.keras") for name in ("baseline", "pruned"))
    again = dcp_tf.PruningPlan.load(tmp_path / "plan.json").apply(baseline)
    for ours, theirs in zip(again.weights, pruned.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_excluded_groups_keep_all_channels(inputs, tmp_path):
    assert run(tmp_path, inputs.residual, inputs.data(), "--method=l1", "--exclude=inside", "--finetune_epochs=0") == {
        "wide": 6
    }


def test_outputs_flag_overrides_what_the_activation_says(inputs, tmp_path, capsys):
    run(tmp_path, inputs.plain, inputs.data(), "--method=l1", "--outputs=logits", "--finetune_epochs=0")
    assert "outputs:" not in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text())["outputs"] == "logits"


def test_a_network_of_the_zoo_is_built_for_images_of_many_sizes(tmp_path, capsys):
    import copy

    from PIL import Image

    from dcp_tf.tools.cli import data_flags

    for name, sides in (("one", (9, 12)), ("two", (20, 11))):
        (tmp_path / name).mkdir()
        for side in sides:
            Image.new("RGB", (side, side + 1)).save(tmp_path / name / f"{side}.png")
    arguments = ["--model=zoo:preresnet20", f"--dataset=folder:{tmp_path}", f"--output_dir={tmp_path / 'run'}"]
    assert prune.run(arguments) == 2
    assert "--image_size" in capsys.readouterr().err
    flags = copy.deepcopy(prune.PROGRAM.flags)
    flags(["prune", *arguments, "--image_size=24"])
    model_and_data = data_flags.load_model_and_data(flags)
    assert model_and_data.model.input_shape == (None, 24, 24, 3)
    assert model_and_data.dataset.input_shape == (24, 24, 3)


def test_rotated_streams_resume_and_their_plan_applies_to_the_baseline_of_the_run(inputs, tmp_path, monkeypatch):
    from dcp_tf.models.networks.vit import vit_cifar
    from dcp_tf.tools.app import run as run_module

    vit_cifar((8, 8, 3), 4, width=8, blocks=1, heads=2, patch=2).save(tmp_path / "vit.keras")
    flags = (f"--model={tmp_path / 'vit.keras'}", inputs.data(), "--method=l1", "--finetune_epochs=0")
    rotated = ("--rotate_streams", "--prune_residual")
    with monkeypatch.context() as patch:  # stopped once all is chosen
        patch.setattr(run_module, "_measure", lambda *_: (_ for _ in ()).throw(dcp_tf.RunError("stopped")))
        assert prune.run([f"--output_dir={tmp_path / 'run'}", *SHORT, *flags, *rotated]) == 1
    kept = run(tmp_path / "run", *flags, *rotated, "--resume")
    assert kept["tokens_rotated"] == 4
    again = [f"--plan={tmp_path / 'run' / 'plan.json'}", f"--model={tmp_path / 'run' / 'baseline.keras'}"]
    again += [inputs.data(), "--finetune_epochs=0", "--quantization=", "--noreload_check"]
    assert prune.run([f"--output_dir={tmp_path / 'again'}", *again]) == 0
    assert kept_channels(tmp_path / "again") == kept_channels(tmp_path / "run")
