"""summary.json tells what a run took where a flag was not given."""

import json

RESOLVED = {
    "distillation": 0.5,
    "allocation": "uniform",
    "auxiliary_losses": 2,
    "auxiliary_trains": "heads",
    "selection_passes": 0,
    "outputs": "probabilities",
    "normalization": "none",
    "augmentation": "shift",
}


def test_settings_that_were_not_given_are_written_as_they_were_taken(whole_run):
    settings = json.loads((whole_run / "summary.json").read_text())["settings"]
    assert {name: settings[name] for name in RESOLVED} == RESOLVED
    assert isinstance(settings["clip_norm"], float)
    assert settings["model"].endswith("residual.keras")
