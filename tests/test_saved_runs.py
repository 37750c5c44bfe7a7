"""What version 0.1.0 wrote is still read: plans, summaries, benchmarks, and the folders of killed runs."""

import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf.tools import compare, prune, report

SAVED = pathlib.Path(__file__).parent / "saved_runs"
DATA = (f"--model={SAVED / 'digits.keras'}", "--dataset=digits", "--augmentation=none")
LAST = ("--quantization=", "--noreload_check")
SHORT = ("--round_to=2", "--selection_samples=256", "--aux_epochs=1")
# Channels that `inside`, `middle` and `last` keep of 12, 12 and 16, and kernels that are not zero in the smaller model.
WIDTHS = {
    "dcp": ([6, 6, 8], None),
    "l1": ([6, 6, 8], None),
    "global": ([6, 12, 16], None),
    "edited": ([7, 12, 13], None),
    "dkp": ([12, 12, 16], 240),
    "dcp_dkp": ([6, 6, 8], 136),
}


@pytest.fixture(autouse=True)
def short_recovery(monkeypatch):
    """What a plan holds is chosen before the weights are recovered."""
    for name, value in (("_LEAST_STEPS", 12), ("_PASSES", 1)):
        monkeypatch.setattr(f"dcp_tf.pruning.recovery.block_outputs.{name}", value)


def read(*names):
    return json.loads(SAVED.joinpath(*names).read_text())


@pytest.fixture(scope="module")
def network():
    return keras.models.load_model(SAVED / "digits.keras")


@pytest.mark.parametrize("name", WIDTHS)
def test_a_saved_plan_is_loaded_applied_and_written_as_it_was(name, network, tmp_path):
    plan = dcp_tf.PruningPlan.load(SAVED / "plans" / f"{name}.json")
    small = plan.apply(network)
    widths, kernels = WIDTHS[name]
    assert [small.get_layer(layer).kernel.shape[-1] for layer in ("inside", "middle", "last")] == widths
    for group in read("plans", f"{name}.json")["groups"]:
        scale = network.get_layer(f"{group['name']}_norm").gamma.numpy()[group["kept"]]
        np.testing.assert_array_equal(small.get_layer(f"{group['name']}_norm").gamma.numpy(), scale)
    if kernels is not None:
        chosen = [small.get_layer(layer).kernel.numpy() for layer in ("inside", "back", "middle", "last")]
        assert sum(int(kernel.any((0, 1)).sum()) for kernel in chosen) == kernels
    plan.save(tmp_path / "plan.json")
    written, before = json.loads((tmp_path / "plan.json").read_text()), read("plans", f"{name}.json")
    assert before.items() <= written.items() or name == "edited"


def test_a_saved_plan_can_be_given_to_a_run(tmp_path):
    plan = f"--plan={SAVED / 'plans' / 'dcp.json'}"
    assert prune.run([*DATA, *LAST, plan, "--finetune_epochs=0", f"--output_dir={tmp_path}"]) == 0
    pruned = keras.models.load_model(tmp_path / "pruned.keras")
    assert [pruned.get_layer(layer).kernel.shape[-1] for layer in ("inside", "middle", "last")] == WIDTHS["dcp"][0]


def test_a_saved_run_gets_its_page_and_its_table(tmp_path, capsys):
    shutil.copytree(SAVED / "finished", tmp_path / "run")
    assert report.run([f"--output_dir={tmp_path / 'run'}"]) == 0
    table = capsys.readouterr().out
    for figure in ("98.33%", "98.05%", "96.10%", "4,666", "1,954", "136,096", "68,624", "float32 latency"):
        assert figure in table
    page = (tmp_path / "run" / "report.html").read_text().replace("<wbr>", "")
    for word in (
        "inside",
        "pruned_float32.tflite",
        "fine-tuning",
        "98.05%",
        "68,624",
        "held out top1 from 0.972 to 0.979",
        "finetune_lr",
        "Measured with",  # from the benchmark alone
    ):
        assert word in page


# Where a run was killed: its flags, the plan that it ends with, and how its first lines begin when it is resumed.
# (A line stands in the log before its file is written, so the last step that was logged is done again.)
DCP = (*SHORT, "--finetune_epochs=3")
RESUMED = {
    "selection": (DCP, "dcp", "selected 2/3", "fine-tuning 1/3"),
    "recovery": (DCP, "dcp", None, "fine-tuning 1/3"),
    "finetuning": (DCP, "dcp", None, "fine-tuning 3/3"),
    "kernels": ((*SHORT, "--method=dcp_dkp", "--finetune_epochs=0"), "dcp_dkp", "selected 5/7", None),
    "given_plan": (
        (f"--plan={SAVED / 'plans' / 'edited.json'}", "--finetune_epochs=2"),
        "edited",
        None,
        "fine-tuning 2/2",
    ),
}


# What is killed in the fine-tuning reads the file of a recovery too.
@pytest.mark.parametrize(
    "where", [pytest.param(name, marks=pytest.mark.slow if name == "recovery" else ()) for name in RESUMED]
)
def test_a_killed_run_resumes_and_ends_with_the_expected_plan(where, tmp_path, capsys):
    flags, plan, *first = RESUMED[where]
    shutil.copytree(SAVED / f"stopped_in_{where}", tmp_path / "run")
    assert prune.run([*DATA, *flags, *LAST, f"--output_dir={tmp_path / 'run'}", "--resume"]) == 0
    lines = capsys.readouterr().err.splitlines()
    for kind, begin in zip((r"selected \d", r"fine-tuning \d"), first, strict=True):
        logged = next((line for line in lines if re.match(kind, line)), None)
        assert logged is None if begin is None else logged.startswith(begin)
    expected, written = read("plans", f"{plan}.json"), json.loads((tmp_path / "run" / "plan.json").read_text())
    kept = {group["name"]: group["kept"] for group in expected["groups"]}
    assert {group["name"]: group["kept"] for group in written["groups"]} == kept
    kernels = [(kernel["layer"], kernel["kept"]) for kernel in expected.get("kernels", [])]
    assert [(kernel["layer"], kernel["kept"]) for kernel in written["kernels"]] == kernels
    assert expected.get("settings", {}).items() <= written["settings"].items()


def test_another_setting_than_the_killed_run_had_is_refused(tmp_path, capsys):
    shutil.copytree(SAVED / "stopped_in_selection", tmp_path / "run")
    flags = (*DATA, *DCP, *LAST, f"--output_dir={tmp_path / 'run'}", "--resume")
    assert prune.run([*flags, "--rate=0.3", "--finetune_lr=0.02"]) == 2
    assert "(--finetune_lr 0.01 -> 0.02, --rate 0.5 -> 0.3)" in capsys.readouterr().err.splitlines()[-1]


COMPARED = (*DATA, *SHORT, "--methods=dcp,l1", "--seeds=2", "--finetune_epochs=1", "--train_samples=400")


def test_a_killed_comparison_resumes_after_its_finished_runs(tmp_path, capsys):
    before, whole = read("stopped_comparison", "compare.json"), read("compared", "compare.json")["runs"]
    finished = [*before["runs"], whole[2]]
    (tmp_path / "compare.json").write_text(json.dumps(before | {"runs": finished}))
    assert compare.run([*COMPARED, f"--output_dir={tmp_path}", "--resume"]) == 0
    assert "run 1 of 1: l1, seed 1" in capsys.readouterr().err
    now = json.loads((tmp_path / "compare.json").read_text())
    assert now["runs"][:3] == finished
    assert now["baseline"] == before["baseline"]
    assert [(run["method"], run["seed"], run["kept"], run["macs"]) for run in now["runs"]] == [
        (run["method"], run["seed"], run["kept"], run["macs"]) for run in whole
    ]


def test_a_finished_comparison_resumes_without_a_run(tmp_path, capsys):
    shutil.copytree(SAVED / "compared", tmp_path / "run")
    assert compare.run([*COMPARED, f"--output_dir={tmp_path / 'run'}", "--resume"]) == 0
    printed = capsys.readouterr()
    assert "run 1 of" not in printed.err
    assert "98.33" in printed.out
    assert (
        json.loads((tmp_path / "run" / "compare.json").read_text())["runs"] == read("compared", "compare.json")["runs"]
    )
