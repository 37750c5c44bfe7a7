"""From what a user says in a line (`method="dcp", macs="50%"`) to a method with its settings."""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from dcp_tf.errors import UsageError, did_you_mean
from dcp_tf.pruning.importance.criterion import METHODS
from dcp_tf.pruning.methods import Method
from dcp_tf.settings.budget import MEASURES, Target
from dcp_tf.settings.table import rules

MEASURED = ("latency", "file", "ram")  # targets that a TFLite file is made for
BUDGETS = ("rate", *MEASURES, *MEASURED)


def one_budget(given: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The budget that was given, by name; None without any.

    Raises:
        UsageError: there are several, or it is no number or share.
    """
    stated = {name: value for name, value in given.items() if value is not None}
    if len(stated) > 1:
        raise UsageError(f"give one of {' and '.join(stated)}: each says how much to remove")
    for name, value in stated.items():
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number and not isinstance(value, str):
            raise UsageError(f"{name} must be a number or a text such as '50%', received {value!r:.80}")
        if name == "rate":
            return name, _share(value)
        if is_number and name != "latency":
            if 0 < value < 1:
                raise UsageError(
                    f"{name} is what the smaller model may cost: write a share as {name}='{100 * value:g}%'"
                )
            return name, f"{value:.0f}"
        return name, str(value)
    return None


def method_from(method: Any, settings: Mapping[str, Any], budget: tuple[str, Any] | None) -> Method:
    """A method with its settings; of targets that are measured only after they were bound.

    Args:
        method: a name such as "dcp", a class such as `dcp_tf.DCP`, or a method, whose settings stay.
        settings: fields of the method.
        budget: what `one_budget` returned.

    Raises:
        UsageError: an unknown name or setting, or a value that cannot be.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise UsageError(f"unknown method {method!r}; {did_you_mean(method, list(METHODS))}")
        method = METHODS[method]
    is_class = isinstance(method, type) and issubclass(method, Method)
    if not is_class and not isinstance(method, Method):
        raise UsageError(f"method must be a name such as 'dcp' or a dcp_tf.DCP(...), received {method!r:.80}")
    known = [name for name in rules(method if is_class else type(method)) if name not in ("target", "rate")]
    for name in settings:
        if name not in known:
            raise UsageError(f"{method.name} has no setting {name!r}; {did_you_mean(name, [*BUDGETS, *known])}")
    values = dict(settings)
    if budget and budget[0] == "rate":
        values |= {"rate": budget[1], "target": None}
    elif budget and budget[0] in MEASURES:
        values["target"] = Target(*budget)
    return method(**values) if is_class else dataclasses.replace(method, **values)


def _share(value: Any) -> Any:
    """A rate; a text such as "50%" is a share."""
    text = str(value).strip()
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError as error:
        raise UsageError(f"rate must be a share such as 0.5 or '50%', received {value!r:.80}") from error
