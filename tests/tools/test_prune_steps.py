"""`prune --steps`: rows for each step, and one plan.json for baseline.keras."""

import json

import pytest
from tool_inputs import SHORT, kept_channels

import dcp_tf
from dcp_tf.tools import prune


def test_a_run_of_steps_leaves_one_plan_and_a_row_for_each_step(inputs, tmp_path, capsys):
    import keras

    given = [
        inputs.residual,
        inputs.data(),
        f"--output_dir={tmp_path}",
        *SHORT,
        "--method=l1",
        "--rate=0.7",
        "--seed=3",
    ]
    assert prune.run([*given, "--steps=2"]) == 0
    assert "pruned in steps" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [step["step"] for step in summary["steps"]] == [1, 2]
    first, last = summary["steps"]
    page = (tmp_path / "report.html").read_text()
    steps = page[page.index('id="steps"') :]
    assert all(f"<td>{step['macs']:,}</td>" in steps[: steps.index("</section>")] for step in (first, last))
    assert summary["baseline"]["macs"] > first["macs"] > last["macs"] == summary["pruned"]["macs"]
    assert last["top1"] == summary["pruned"]["top1"]
    plan = dcp_tf.PruningPlan.load(tmp_path / "plan.json")
    shapes = [v.shape for v in plan.apply(keras.models.load_model(tmp_path / "baseline.keras")).variables]
    assert shapes == [v.shape for v in keras.models.load_model(tmp_path / "pruned.keras").variables]
    kept = kept_channels(tmp_path)
    assert prune.run([*given, "--steps=2", "--resume"]) == 0
    assert kept_channels(tmp_path) == kept
    assert prune.run([*given, "--overwrite"]) == 0
    assert {name: len(k) for name, k in kept_channels(tmp_path).items()} == {name: len(k) for name, k in kept.items()}


@pytest.mark.parametrize("flags", [["--method=dkp"], ["--target_latency=60%"], ["--target_file=int8:60%"]])
def test_what_cannot_go_in_steps_is_refused_at_once(inputs, tmp_path, flags, capsys):
    given = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", "--steps=2", *flags]
    assert prune.run(given) == 2
    assert "steps" in capsys.readouterr().err.splitlines()[-1]
