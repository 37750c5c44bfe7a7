"""`compare`: equal cost, every run kept, a stopped comparison goes on, bad input is found before anything runs."""

import contextlib
import io
import json
import pathlib
import re
import shutil
import types

import pytest
from tool_inputs import contents

from dcp_tf.report import comparison_text
from dcp_tf.tools import compare, report
from dcp_tf.tools.app import comparison

SHORT = (
    *("--target_macs=70%", "--round_to=1", "--seeds=2", "--batch_size=32", "--aux_epochs=1", "--finetune_epochs=1"),
    *("--selection_samples=64", "--selection_batch=32", "--allocation=uniform"),
)
METHODS = ("l1", "dcp:losses=reconstruction")


def flags(inputs, folder, *more):
    return [inputs.residual, inputs.data(), f"--output_dir={folder}", *SHORT, *more]


def read(folder):
    return json.loads((folder / "compare.json").read_text())


def without_seconds(found):
    return [{k: v for k, v in record.items() if not k.endswith("_seconds")} for record in found["runs"]]


@pytest.fixture(scope="module")
def compared(inputs, tmp_path_factory):
    """The folder of one whole comparison, which tests only read, and what it printed."""
    folder = tmp_path_factory.mktemp("compare") / "out"
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        assert compare.run(flags(inputs, folder, f"--methods={','.join(METHODS)}")) == 0
    return folder, types.SimpleNamespace(stdout=stdout.getvalue(), stderr=stderr.getvalue())


def test_every_method_is_run_with_every_seed(compared):
    folder, done = compared
    runs = read(folder)["runs"]
    assert [(r["seed"], r["method"]) for r in runs] == [(seed, method) for seed in (0, 1) for method in METHODS]
    assert {path.name for path in folder.iterdir()} == {
        *("compare.html", "compare.json", "compare.md", "compare.png", "compare.svg", "flags.txt", "state")
    }
    assert "written to" in done.stderr
    assert all(method in done.stdout for method in METHODS)
    page = (folder / "compare.html").read_text()
    assert f"--flagfile={folder}/flags.txt" in re.sub("<wbr>|</?span[^>]*>", "", page)


def test_all_cost_the_same_and_no_more_than_the_target(compared):
    found = read(compared[0])
    assert len({(r["macs"], r["params"]) for r in found["runs"]}) == 1
    assert found["runs"][0]["macs"] <= 0.7 * found["baseline"]["macs"]


def test_kernels_are_compared_by_what_they_nominally_cost(inputs, tmp_path):
    more = ("--methods=dkp", "--seeds=1", "--selection_passes=0")
    assert compare.run(flags(inputs, tmp_path, *more)) == 0
    found = read(tmp_path)
    assert found["runs"][0]["nominal_macs"] <= 0.7 * found["baseline"]["macs"] < found["runs"][0]["macs"]
    assert "without zeros" in (tmp_path / "compare.md").read_text()


def test_what_does_not_draw_is_fine_tuned_with_each_seed(compared):
    first, second = (r for r in read(compared[0])["runs"] if r["method"] == "l1")
    assert first["top1_before_finetuning"] == second["top1_before_finetuning"]
    assert len(first["top1_by_epoch"]) == 1
    assert first["top1"] in (first["top1_before_finetuning"], first["top1_by_epoch"][-1])


@pytest.mark.parametrize(("held_out", "top1"), [({"kept_epoch": 0}, 0.5), ({"kept_epoch": 2}, 0.7), (None, 0.6)])
def test_what_is_compared_are_the_weights_that_fine_tuning_ended_with(held_out, top1):
    phase = {"name": "fine-tuning", **({} if held_out is None else {"held_out": held_out})}
    assert comparison._of_kept_epoch(phase, 0.5, [0.4, 0.7, 0.6]) == top1
    assert comparison._of_kept_epoch(phase, 0.5, []) is None


def test_the_table_is_that_of_the_json(compared):
    folder, done = compared
    text = comparison_text(read(folder))
    assert (folder / "compare.md").read_text() == text
    for line in text.splitlines():
        if line.startswith("| l1 "):
            assert all(cell.strip() in done.stdout for cell in line.split("|"))


def test_a_resumed_comparison_does_not_repeat_what_is_done(compared, inputs, tmp_path, monkeypatch):
    whole = read(compared[0])
    stopped = whole | {"runs": whole["runs"][:3]}
    (tmp_path / "compare.json").write_text(json.dumps(stopped))
    asked, measure = [], comparison.measure
    monkeypatch.setattr(comparison, "measure", lambda *a: asked.append((a[1].label, a[2])) or measure(*a))
    methods = f"--methods={','.join(METHODS)}"
    assert compare.run(flags(inputs, tmp_path, methods, "--resume")) == 0
    assert asked == [("dcp:losses=reconstruction", 1)]
    assert without_seconds(read(tmp_path)) == without_seconds(whole)


def test_more_methods_and_seeds_can_be_added(compared, inputs, tmp_path):
    whole = read(compared[0])
    (tmp_path / "compare.json").write_text(json.dumps(whole))
    assert compare.run(flags(inputs, tmp_path, "--methods=l1", "--seeds=3", "--resume")) == 0
    added = read(tmp_path)["runs"][len(whole["runs"]) :]
    assert [(r["method"], r["seed"]) for r in added] == [("l1", 2)]


def test_variants_of_one_seed_share_the_auxiliary_fine_tuning(inputs, tmp_path, capsys):
    args = ("--methods=l1:update,dcp,dcp:selection=exact", "--seeds=1", "--finetune_epochs=0")
    assert compare.run(flags(inputs, tmp_path, *args)) == 0
    assert capsys.readouterr().err.count("auxiliary classifiers on held-out images") == 1
    runs = read(tmp_path)["runs"]
    assert len({r["auxiliary_seconds"] for r in runs}) == 1
    assert all(r["top1"] is None and r["top1_by_epoch"] == [] for r in runs)


def test_a_run_that_fails_is_named_and_tried_again(inputs, tmp_path, capsys, monkeypatch):
    from dcp_tf.errors import RunError

    def fail(model_and_data, variant, *rest):
        if variant.label == "l1":
            raise RunError("the lamp went out")
        return measure(model_and_data, variant, *rest)

    measure = comparison.measure
    monkeypatch.setattr(comparison, "measure", fail)
    args = flags(inputs, tmp_path, "--methods=l1,random", "--seeds=1", "--finetune_epochs=0")
    assert compare.run(args) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "compare: l1 with seed 0: the lamp went out"
    assert "failed: l1, seed 0: the lamp went out" in printed.out
    monkeypatch.setattr(comparison, "measure", measure)
    assert compare.run([*args, "--resume"]) == 0
    assert [(r["method"], "failure" in r) for r in read(tmp_path)["runs"]] == [("random", False), ("l1", False)]


def test_few_training_images_are_drawn_evenly_for_each_seed(inputs):
    import numpy as np

    from dcp_tf import data
    from dcp_tf.training import TrainConfig

    train = data.load(f"npz:{inputs.folder / 'four.npz'}", input_shape=(8, 8, 3)).train
    schedule = comparison.Schedule(TrainConfig(1), TrainConfig(1), train_samples=40)
    first, again, other = (schedule.images(train, seed) for seed in (0, 0, 1))
    assert np.bincount(first.labels).tolist() == [10, 10, 10, 10]
    np.testing.assert_array_equal(first.source.images, again.source.images)
    assert not np.array_equal(first.source.images, other.source.images)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("--methods=dcp,l7", "unknown method 'l7'; choose among dcp, adapt_dcp"),
        ("--methods=", "--methods names no method"),
        ("--methods=dcp:speed=2", "dcp:speed=2: dcp has no option 'speed'; there are"),
        ("--methods=dcp:epsilon=1", "dcp:epsilon=1: dcp has no option 'epsilon'"),
        (
            "--methods=dcp:selection=slow",
            "dcp:selection=slow: flag --selection=slow: value should be",
        ),
        ("--methods=dcp:selection_lr=0", "dcp:selection_lr=0: "),
        ("--methods=dcp:rate=.3", "dcp:rate=.3: all methods have the same rate"),
        ("--methods=dcp_dkp:kernel_rate=.3", "all methods have the same kernel_rate"),
        ("--methods=l1,l1:update=false", "l1 and l1:update=false are the same"),
        ("--target_macs=101%", "the target for macs must be"),
        ("--target_macs=0.001%", "cannot be reached"),
        ("--finetune_lr=0", "--finetune_lr must be above 0"),
        ("--seeds=0", "--seeds"),
    ],
)
def test_bad_input_is_one_line_and_nothing_runs(wrong, line, inputs, tmp_path, capsys):
    folder = tmp_path / "out"
    assert compare.run(flags(inputs, folder, wrong)) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1, printed.err
    assert line in printed.err
    assert not folder.exists()


def test_resuming_under_other_conditions_is_refused(compared, inputs, tmp_path, capsys):
    (tmp_path / "compare.json").write_bytes((compared[0] / "compare.json").read_bytes())
    before = contents(tmp_path)
    assert compare.run(flags(inputs, tmp_path, "--methods=l1", "--finetune_epochs=2", "--resume")) == 2
    assert "--finetune_epochs 1 -> 2" in capsys.readouterr().err
    assert compare.run(flags(inputs, tmp_path, "--methods=l1", "--target_macs=80%", "--resume")) == 2
    assert "--target_macs 70% -> 80%" in capsys.readouterr().err
    assert contents(tmp_path) == before
    (tmp_path / "compare.json").write_text("{}")
    assert compare.run(flags(inputs, tmp_path, "--resume")) == 2
    assert "is not a comparison" in capsys.readouterr().err


def test_report_makes_the_page_of_a_comparison_again(tmp_path, capsys):
    saved = pathlib.Path(__file__).resolve().parents[1] / "saved_runs" / "compared" / "compare.json"
    shutil.copy(saved, tmp_path)
    assert report.run([f"--output_dir={tmp_path}"]) == 0
    assert f"written: {tmp_path / 'compare.html'}" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json", "compare.html"}
