"""The programs start fast and quietly, say what they take, and run from a checkout that is not installed."""

import time

import pytest
from tool_inputs import CHECKOUT, PROGRAMS, run_process

HELP = """
import sys, runpy
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_module("dcp_tf.tools." + sys.argv[0], run_name="__main__")
finally:
    heavy = sorted({"tensorflow", "keras", "matplotlib", "sklearn", "rich"} & set(sys.modules))
    print("imported:", *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_instant_readable_and_imports_no_tensorflow(program):
    started = time.perf_counter()
    done = run_process(program, code=HELP)
    seconds = time.perf_counter() - started
    assert done.returncode == 0
    assert done.stderr.strip() == "imported:"
    assert seconds < 2
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 120
    assert f"python -m dcp_tf.tools.{program}" in done.stdout
    flags = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert flags
    assert all(lines[i + 1].startswith("      ") for i in flags), "a flag without a description"


def test_every_flag_of_help_says_its_default():
    from dcp_tf.tools import prune

    text = prune.PROGRAM.help()
    assert "  --rate=0.5\n" in text
    assert "  --quantization=float32,int8\n" in text
    assert "One of: float32, bfloat16, float16." in " ".join(text.split())


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_checkout_works_without_installation_from_any_folder(program, tmp_path):
    done = run_process(CHECKOUT / "tools" / f"{program}.py", "--help", cwd=tmp_path, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert "--debug" in done.stdout


def test_inspect_model_says_nothing_but_the_result(inputs):
    done = run_process("-m", "dcp_tf.tools.inspect_model", inputs.residual)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "inside" in done.stdout
    assert "--prune_residual" in done.stdout


def test_no_noise_of_tensorflow_reaches_the_user_of_a_whole_run(whole_process):
    ours = (
        *("baseline: ", "warning: the model is", "  ", "outputs: ", "loss: ", "2 groups of channels"),
        *("auxiliary ", "selected ", "after surgery", "fine-tuning 1/1", "converting ", "measuring latency"),
        *("loading baseline.keras, ", "written to ", "recovery: ", "kept ", "pruned_int8.tflite is slower here"),
    )
    strange = [line for line in whole_process.stderr.splitlines() if not line.startswith(ours)]
    assert strange == []
    assert "Top-1" in whole_process.stdout


def test_output_into_a_closed_pipe_ends_quietly(inputs):
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'dcp_tf.tools.prune', '--help'], stdout=subprocess.PIPE,"
        " stderr=subprocess.PIPE)\n"
        "p.stdout.close(); error = p.stderr.read(); sys.exit(p.wait() or bool(error))\n"
    )
    assert run_process(code=code).returncode == 0
