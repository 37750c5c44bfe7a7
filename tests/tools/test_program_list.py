"""`python -m dcp_tf` lists the programs at once, and runs them."""

import pathlib

import pytest
from tool_inputs import PROGRAMS, run_process

from dcp_tf.tools import __main__ as listing
from dcp_tf.tools import inspect_model, prune


@pytest.mark.parametrize("module", ["dcp_tf", "dcp_tf.tools"])
def test_the_programs_are_listed_without_tensorflow(module):
    done = run_process("-X", "importtime", "-m", module)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if "tensorflow" in line or "keras" in line]
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line[:3].strip() and line.startswith("  ")} == set(PROGRAMS)


def test_every_program_with_flags_is_listed():
    folder = pathlib.Path(listing.__file__).parent
    programs = {path.stem for path in folder.glob("*.py") if "PROGRAM.run(" in path.read_text()}
    assert programs == set(listing.PROGRAMS)


def test_a_program_is_run_by_its_name_and_another_is_one_line(capsys):
    assert listing.run(["inspect_model", "--help"]) == 0
    assert "--input_shape" in capsys.readouterr().out
    assert listing.run(["prun"]) == 2
    assert "did you mean prune?" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "rate"), [("30%", 0.3), ("12.5 %", 0.125), ("0.3", 0.3)])
def test_rates_are_taken_in_percent(text, rate):
    for program in (prune, inspect_model):
        assert program.PROGRAM.flags["rate"].parser.parse(text) == rate
    assert prune.PROGRAM.flags["distillation"].parser.parse(text) == rate
    from dcp_tf.tools.cli.flags_from_settings import read_rates

    assert read_rates([f"stage1_.*={text}"]) == (("stage1_.*", rate),)
