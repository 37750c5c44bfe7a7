"""Runs that fail, and runs that are stopped: exit code 1, what existed stays whole, and --resume gives the same."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tool_inputs import CHECKOUT, SHORT, WHOLE, Stop, contents, kept_channels

from dcp_tf.tools import export, finetune, prune, train


@pytest.mark.parametrize(
    ("flag", "phase"),
    [
        ("--aux_lr", "auxiliary fine-tuning"),
        ("--selection_lr", "selection of inside"),
        ("--finetune_lr", "fine-tuning"),
    ],
)
def test_a_loss_that_becomes_nan_names_phase_and_flag(flag, phase, inputs, tmp_path, capsys):
    # The fast selection keeps what it has where passes of SGD make the loss worse.
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--selection=exact", f"{flag}=1e30"]
    assert prune.run([*flags, "--method=l1"] if flag == "--finetune_lr" else flags) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("prune: ")
    assert "NaN" in line
    assert phase in line
    assert f"lower {flag}" in line


def test_nan_in_the_other_programs(inputs, tmp_path, capsys):
    given = [inputs.data(), f"--output_dir={tmp_path}", "--batch_size=32"]
    assert train.run(["--model=zoo:preresnet8", *given, "--epochs=1", "--learning_rate=1e30"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "training" in line
    assert "lower --learning_rate" in line
    assert finetune.run([inputs.residual, *given, "--finetune_epochs=1", "--finetune_lr=1e30"]) == 1
    assert "lower --finetune_lr" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("*.keras"))


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("function", ["os.replace", "numpy.savez"])
def test_full_disk_leaves_what_existed(function, copied_run, inputs, capsys, monkeypatch):
    before = {name: data for name, data in contents(copied_run).items() if not name.startswith(("state", "events"))}
    monkeypatch.setattr(function, no_space)
    flags = [inputs.residual, inputs.data(), f"--output_dir={copied_run}", *SHORT, "--quantization=float32"]
    assert prune.run([*flags, "--overwrite"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "No space left" in line
    assert "free some space" in line
    after = contents(copied_run)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if ".writing" in name]


def test_full_disk_in_export(copied_run, inputs, capsys, monkeypatch):
    before = contents(copied_run)
    monkeypatch.setattr(os, "replace", no_space)
    assert export.run([f"--model={copied_run}/pruned.keras", inputs.data(), "--quantization=float32"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert contents(copied_run) == before


def test_short_memory_and_errors_of_our_own_are_one_line():
    from dcp_tf.tools.cli.program import explain

    assert explain(MemoryError()) == ("out of memory; lower --batch_size, --selection_samples or --cache_gib", 1)
    line, code = explain(KeyError("surprise"))
    assert code == 1
    assert "internal error: KeyError" in line
    assert "--debug" in line


def test_an_image_that_turns_out_broken_while_a_large_folder_is_read_is_named(tmp_path, monkeypatch):
    from PIL import Image

    from dcp_tf import data
    from dcp_tf.data import pixel_sources
    from dcp_tf.tools.cli.program import explain

    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    broken = tmp_path / "a" / "1.png"
    broken.write_bytes(broken.read_bytes()[:500])  # the header is whole, so nothing shows before it is decoded
    monkeypatch.setattr(pixel_sources, "MEMORY_LIMIT", 0)
    images = data.load(f"folder:{tmp_path}", test_fraction=0.1)
    with pytest.raises(Exception, match="no readable image") as caught:
        [*images.train.batches(8), *images.test.batches(8)]
    line, code = explain(caught.value)
    assert code == 1
    assert line.startswith(f"the data set cannot be read to its end: {broken} is no readable image")
    assert len(line.splitlines()) == 1
    assert "Traceback" not in line


def test_debug_shows_the_traceback(inputs):
    from dcp_tf.errors import UsageError

    with pytest.raises(UsageError):
        prune.run([inputs.residual, inputs.data(), "--debug"])


@pytest.mark.parametrize("write", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6, 7, 8))])
def test_a_run_stopped_between_two_writes_and_resumed_gives_the_same_plan(
    write, whole_run, inputs, tmp_path, capsys, monkeypatch
):
    import keras

    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", *WHOLE]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", Stop(os.replace, write, KeyboardInterrupt()))
        assert prune.run(flags) == 130
    assert "stopped (run again with --resume to go on)" in capsys.readouterr().err
    assert prune.run([*flags, "--resume"]) == 0
    assert (tmp_path / "plan.json").read_bytes() == (whole_run / "plan.json").read_bytes()
    models = [keras.models.load_model(folder / "pruned.keras") for folder in (tmp_path, whole_run)]
    for resumed, whole in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(resumed, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_any_moment_and_resumed_gives_the_same_plan(seed, whole_run, inputs, tmp_path):
    command = [sys.executable, "-m", "dcp_tf.tools.prune", inputs.residual, inputs.data(), f"--output_dir={tmp_path}"]
    command += [*WHOLE, "--quantization=float32,int8", "--resume"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    rng = random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        process.stderr.readline()  # the outputs; work begins now
        time.sleep(rng.uniform(0.0, 10.0))
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGSEGV]))
        process.wait()
        process.stderr.close()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kept_channels(tmp_path) == kept_channels(whole_run)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in whole_run.iterdir()}
    assert not [name for name in contents(tmp_path) if ".writing" in name]
