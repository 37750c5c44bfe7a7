"""In which settings two runs differ, by the names of the flags, for the one line that refuses to resume."""

import json
import re
from collections.abc import Mapping
from typing import Any

# What is no setting, by what a user calls it.
_NOT_SETTINGS = {
    **dict.fromkeys(("fingerprint", "weights"), "another model"),
    **dict.fromkeys(("images", "data"), "other training images, normalization or augmentation"),
    "objective": "another loss",
    "trainable": "other layers are frozen, see --unfreeze",
}
_FLAGS = {
    **{f"auxiliary.{name}": f"aux_{name}" for name in ("epochs", "schedule", "boundaries")},
    "auxiliary.learning_rate": "aux_lr",
    "finetuning.epochs": "finetune_epochs",
    "finetuning.learning_rate": "finetune_lr",
    "steps_per_epoch": "max_steps_per_epoch",
    **dict.fromkeys(("reconstruction", "discrimination"), "losses"),
}
# What Python sets but no flag does.
_WITHOUT_FLAG = ("batch_norm_momentum", "factor", "masks", "momentum", "nesterov", "phase")
_COPIES = ("auxiliary.seed", "finetuning.seed")  # of the run's seed, which counts
_LONGEST = 40  # characters of a value


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, as in "--seed 0 -> 1, --rate 0.5 -> 0.3"; empty where none does.

    Args:
        before: settings of the stopped run, as JSON holds them; parts may be dictionaries.
        now: of this run.
    """
    before, now = _flat(before), _flat(now)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if "method" in changed:  # another method has other settings, which nobody changed
        changed = [key for key in changed if key == "method" or (key in before and key in now)]
    lines = [_line(key, before.get(key), now.get(key)) for key in changed]
    return ", ".join(dict.fromkeys(lines))


def _line(key: str, before: Any, now: Any) -> str:
    if key in _NOT_SETTINGS:
        return _NOT_SETTINGS[key]
    own = key.split(".", 1)[-1]
    flag = _FLAGS.get(key) or _FLAGS.get(own) or own
    if flag == "losses":
        return "--losses"
    return f"{'' if flag in _WITHOUT_FLAG else '--'}{flag} {_short(before)} -> {_short(now)}"


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those inside of parts called PART.NAME; a target counts as one, by the name of its flag."""
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
