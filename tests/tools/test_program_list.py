"""`python -m dcp_tf` lists the programs at once, and runs them."""

import pathlib
import shutil
import subprocess

import pytest
from tool_inputs import PROGRAMS, run_process

import dcp_tf
from dcp_tf.tools import __main__ as listing
from dcp_tf.tools import inspect_model, prune


@pytest.mark.parametrize("module", ["dcp_tf", "dcp_tf.tools"])
def test_the_programs_are_listed_without_tensorflow(module):
    done = run_process("-X", "importtime", "-m", module)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if "tensorflow" in line or "keras" in line]
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = {line.split()[0] for line in lines if line[:3].strip() and line.startswith("  ")}
    assert names == {*PROGRAMS, "inspect", "completion"} - {"inspect_model"}
    assert lines[0] == f"usage: python -m {module} NAME [FLAGS]"


def test_every_program_with_flags_is_listed():
    folder = pathlib.Path(listing.__file__).parent
    programs = {path.stem for path in folder.glob("*.py") if "PROGRAM.run(" in path.read_text()}
    assert programs == set(listing.PROGRAMS)


def test_a_program_is_run_by_its_name_and_another_is_one_line(capsys):
    assert listing.run(["inspect_model", "--help"]) == 0
    assert "--input_shape" in capsys.readouterr().out
    for words in (["inspect", "--help"], ["inspect-model", "--help"], ["help", "inspect"]):
        assert listing.run(words) == 0
        assert "--input_shape" in capsys.readouterr().out
    assert listing.run(["prun"]) == 2
    assert "did you mean prune?" in capsys.readouterr().err
    assert listing.run(["--version"]) == 0
    assert capsys.readouterr().out == f"dcp_tf {dcp_tf.__version__}\n"


BASH = """
source /dev/stdin
for words in "dcp-tf pr" "dcp-tf prune --target" "dcp-tf prune --method = ada" "dcp-tf evaluate --outputs =" \
    "dcp-tf completion z"; do
    COMP_WORDS=($words) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _dcp_tf 2>/dev/null
    echo "${COMPREPLY[@]}"
done
"""


def test_bash_completes_programs_flags_and_values(capsys):
    assert listing.run(["completion", "bash"]) == 0
    done = subprocess.run(
        ["bash", "-c", BASH], input=capsys.readouterr().out, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "prune",
        "--target_macs= --target_params= --target_bytes= --target_latency= --target_file= --target_ram=",
        "adapt_dcp adapt_dkp",
        "logits probabilities",
        "zsh",
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_scripts_that_they_can_read(shell, capsys):
    assert listing.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "target_macs" in script
    assert "dcp adapt_dcp dkp" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_told_what_there_is(capsys):
    assert listing.run(["completion", "tcsh"]) == 2
    assert "dcp-tf completion fish" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "rate"), [("30%", 0.3), ("12.5 %", 0.125), ("0.3", 0.3)])
def test_rates_are_taken_in_percent(text, rate):
    for program in (prune, inspect_model):
        assert program.PROGRAM.flags["rate"].parser.parse(text) == rate
    assert prune.PROGRAM.flags["distillation"].parser.parse(text) == rate
    from dcp_tf.tools.cli.flags_from_settings import read_rates

    assert read_rates([f"stage1_.*={text}"]) == (("stage1_.*", rate),)
