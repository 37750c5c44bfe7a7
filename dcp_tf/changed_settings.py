"""In which settings two runs differ, for the one line that refuses to resume."""

import json
import re
from collections.abc import Mapping
from typing import Any

# What is no setting, by what a user calls it.
_NOT_SETTINGS = {
    **dict.fromkeys(("fingerprint", "weights"), "another model"),
    **dict.fromkeys(("images", "data"), "other training images, normalization or augmentation"),
    "objective": "another loss",
    "trainable": "{before} weights were trainable, {now} are now: freeze the same layers, or unfreeze as before",
}
_COPIES = ("auxiliary.seed", "finetuning.seed")  # of the run's seed, which counts
_LONGEST = 40  # characters of a value


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The settings that differ, as in "seed 0 -> 1, auxiliary.epochs 3 -> 1"; empty where none does.

    Args:
        before: settings of the stopped run, as JSON holds them; parts may be dictionaries.
        now: of this run.

    Returns:
        The changes in words, and the names of the settings in them.
    """
    before, now = _flat(before), _flat(now)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if "method" in changed:  # another method has other settings, which nobody changed
        changed = [key for key in changed if key == "method" or (key in before and key in now)]
    names: dict[str, list[str]] = {}  # by what is said of them: trainings have settings in common
    for key in changed:
        values = {"before": _short(before.get(key)), "now": _short(now.get(key))}
        own = f"{key.split('.')[-1]} {values['before']} -> {values['now']}"
        names.setdefault(_NOT_SETTINGS[key].format(**values) if key in _NOT_SETTINGS else own, []).append(key)
    lines = [
        line if keys[0] in _NOT_SETTINGS else f"{' and '.join(keys)} {line.partition(' ')[2]}"
        for line, keys in names.items()
    ]
    # `unfreeze` is a setting of the programs alone; the sentence reads well without.
    settings = [key for key in changed if key not in _NOT_SETTINGS] + ["unfreeze"] * ("trainable" in changed)
    return ", ".join(lines), settings


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those inside of parts called PART.NAME; a target counts as one, called by its measure."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "target" and isinstance(value, Mapping):
            flat[f"target_{value.get('measure')}"] = value.get("text")
            flat |= {f"target_{name}": value[name] for name in value.keys() - {"measure", "text"}}
        elif key == "target":
            continue
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{name}": part for name, part in value.items()}
        else:
            flat[key] = value
    # compare.json has "finetuning epochs" where the state of a run has a part.
    flat = {re.sub("^(auxiliary|finetuning) ", r"\1.", key): value for key, value in flat.items()}
    return {key: value for key, value in flat.items() if key not in _COPIES}


def _short(value: Any) -> str:
    if value is None:
        return "not given"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
