"""--plan: a plan that was found or edited before is applied, and the run goes on as usual."""

import json

import pytest
from tool_inputs import SHORT, contents, kept_channels

from dcp_tf.tools import prune

QUIET = [flag for flag in SHORT if not flag.startswith(("--round_to", "--selection"))]


def edited(folder, path, **changed):
    plan = json.loads((folder / "plan.json").read_text())
    plan["groups"][0] |= changed
    path.write_text(json.dumps(plan))
    return path


def test_an_edited_plan_is_applied_and_the_run_goes_on(whole_run, inputs, tmp_path):
    plan = edited(whole_run, tmp_path / "mine.json", kept=[0, 1, 5])
    out = tmp_path / "out"
    flags = [inputs.residual, inputs.data(), *QUIET, f"--plan={plan}", f"--output_dir={out}", "--quantization=float32"]
    assert prune.run(flags) == 0
    name = next(iter(kept_channels(whole_run)))
    assert kept_channels(out) == {**kept_channels(whole_run), name: [0, 1, 5]}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["method"] == "plan"
    assert summary["pruned"]["params"] < summary["baseline"]["params"]
    assert {"pruned_float32.tflite", "report.html", "pruned.keras"} <= {path.name for path in out.iterdir()}
    other = edited(whole_run, tmp_path / "other.json", kept=[0, 1])
    before = contents(out)
    assert prune.run([*flags[:-3], f"--plan={other}", *flags[-2:], "--resume"]) == 2  # it is another run
    assert contents(out) == before


@pytest.mark.parametrize("more", ["--rate=0.3", "--method=l1", "--target_macs=50%", "--round_to=8", "--exclude=a"])
def test_a_choice_beside_a_plan_is_refused(whole_run, inputs, tmp_path, capsys, more):
    flags = [inputs.residual, inputs.data(), f"--plan={whole_run}/plan.json", f"--output_dir={tmp_path}/o"]
    assert prune.run([*flags, more]) == 2
    assert f"leave out {more.partition('=')[0]}" in capsys.readouterr().err


def test_a_plan_of_another_model_is_refused_before_anything_is_written(whole_run, inputs, tmp_path, capsys):
    flags = [inputs.plain, inputs.data(), f"--plan={whole_run}/plan.json", f"--output_dir={tmp_path}/o"]
    assert prune.run([*flags, *QUIET]) == 2
    assert "fingerprint" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
