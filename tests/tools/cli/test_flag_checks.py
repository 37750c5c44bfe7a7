"""No setting on the command line is ignored without a line."""

import pytest
from tool_inputs import SHORT, kept_channels

from dcp_tf.tools import prune


def said(capsys, *flags):
    """The exit code and the lines of a run that ends where the model is looked for."""
    code = prune.run(["--model=nowhere.keras", "--dataset=digits", "--output_dir=nowhere", *flags])
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("target", ["target_macs=50%", "target_params=50%", "target_latency=60%"])
def test_a_rate_beside_a_target_is_refused(capsys, target):
    code, (line,) = said(capsys, "--rate=0.3", f"--{target}")
    assert code == 2
    assert "not both: the target sets the rate" in line


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        (["--method=l1", "--epsilon=0.1"], ["epsilon"]),
        (["--method=l1", "--per_step=2", "--rate=0.3"], ["per_step"]),
        (["--method=dcp", "--epsilon=0.1", "--per_step=2"], ["epsilon"]),
        (["--method=thinet", "--losses=joint", "--selection_samples=64"], ["losses"]),
        (["--method=taylor", "--selection_samples=64", "--aux_epochs=1"], ["aux_epochs"]),
        (["--losses=reconstruction", "--aux_lr=0.1", "--cache_gib=1"], ["aux_lr"]),
        (["--method=width_multiplier", "--auxiliary_losses=1", "--aux_epochs=1"], ["aux_epochs"]),
        (["--method=l1", "--update", "--per_step=2", "--aux_epochs=1", "--losses=joint"], []),
        (["--method=l1", "--allocation=global", "--target_macs=50%", "--selection_samples=64"], []),
        (["--method=adapt_dcp", "--epsilon=0.1", "--rate=0.3", "--round_to=2"], []),
    ],
)
def test_what_has_no_effect_is_named(capsys, flags, idle):
    _, lines = said(capsys, *flags)
    notes = [line for line in lines if line.startswith("note:")]
    assert len(notes) == bool(idle)
    given = {flag[2:].partition("=")[0] for flag in flags} - {"method"}
    assert not idle or {name for name in given if f"--{name}" in notes[0].partition("no effect")[0]} == set(idle)
    assert "no model file" in lines[-1]


def test_a_setting_named_without_effect_has_none(inputs, tmp_path):
    plans = []
    for number, more in enumerate(([], ["--per_step=7", "--losses=reconstruction", "--epsilon=0.5"])):
        folder = tmp_path / str(number)
        given = [inputs.plain, inputs.data(), *SHORT, "--method=l1", "--quantization=", f"--output_dir={folder}"]
        assert prune.run([*given, *more]) == 0
        plans.append(kept_channels(folder))
    assert plans[0] == plans[1]
