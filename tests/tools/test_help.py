"""The programs start fast and quietly, say what they take, and run from a checkout that is not installed."""

import importlib
import re
import sys
import time

import pytest
from tool_inputs import CHECKOUT, PROGRAMS, run_process

from dcp_tf.tools.cli import help_text
from dcp_tf.tools.cli.typed_command import as_typed

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
    for text in (done.stdout, importlib.import_module(f"dcp_tf.tools.{program}").PROGRAM.help()):
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        assert f"    dcp-tf {program.removesuffix('_model')} --" in text
        flags = [i for i, line in enumerate(lines) if line.startswith("  --")]
        assert flags
        for i in flags:
            assert "  " in lines[i][2:] or lines[i + 1].startswith("      "), "a flag without a description"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_what_is_used_most_and_helpfull_all(program):
    program = importlib.import_module(f"dcp_tf.tools.{program}").PROGRAM
    short, full = help_text.short(program), help_text.full(program)
    names = {flag.name for flag in program.flags_in_order()}
    shown, all_shown = (
        set(re.findall(r"^  --(?:no(?=reload|bias))?(\w+)", text, re.MULTILINE)) for text in (short, full)
    )
    everywhere = {"help", "helpfull", "debug", "flagfile"}
    assert all_shown == names
    assert everywhere < shown <= names
    assert len(shown - everywhere) <= 25
    assert (shown == names) == ("--helpfull shows" not in short) == (len(names - everywhere) <= 25)


def test_the_help_of_prune_has_targets_beside_the_rate_and_a_table_of_methods():
    from dcp_tf.pruning import METHODS
    from dcp_tf.tools import prune

    text = help_text.short(prune.PROGRAM)
    flags = re.findall(r"^  --(\w+)", text, re.MULTILINE)
    assert flags[flags.index("rate") + 1 :][:5] == [
        f"target_{kind}" for kind in ["macs", "params", "bytes", "latency", "file"]
    ]
    assert "  --model=PATH  " in text
    table = text.partition("\n  --method=")[2].partition("\n  --plan=")[0]
    rows = re.findall(r"^      (\w[\w, ]*?)  +\S", table, re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} == {
        name for name, method in METHODS.items() if method.__module__.startswith("dcp_tf.")
    }
    assert len(text.splitlines()) < 140


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        (("-m", "dcp_tf.tools.report"), "python -m dcp_tf.tools.report"),
        (("-m", "dcp_tf.tools", "report"), "python -m dcp_tf.tools report"),
        (("-m", "dcp_tf", "report"), "python -m dcp_tf report"),
        ((CHECKOUT / "tools" / "report.py",), f"python {CHECKOUT / 'tools' / 'report.py'}"),
    ],
)
def test_help_shows_commands_as_the_user_typed_them(command, usage):
    done = run_process(*command, "--help")
    assert done.stdout.startswith(f"usage: {usage} [FLAGS]\n")
    assert f"    {usage} --output_dir=runs/mine\n" in done.stdout


def test_errors_name_programs_as_the_user_types_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dcp-tf", "prune"])
    assert as_typed("no group 'a'; inspect_model lists them") == "no group 'a'; dcp-tf inspect lists them"
    assert as_typed("see dcp-tf prune or my_inspect_model") == "see dcp-tf prune or my_inspect_model"


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
        *(
            "still running, ",
            "loading baseline.keras, ",
            "written to ",
            "recovery: ",
            "kept ",
            "pruned_int8.tflite is slower here",
            "pruned_int8.tflite gains ",
            "pruned_int8.tflite: outside of XNNPACK",
        ),
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
