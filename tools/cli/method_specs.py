"""Methods with options in one word each, such as `dcp`, `l1:update`, `dcp:losses=reconstruction:selection=exact`."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from dcp_tf.errors import UsageError
from dcp_tf.settings.budget import MEASURES, Budget, KernelRate
from dcp_tf.settings.scope import Scope, WidthSettings
from dcp_tf.tools.cli import pruning_flags
from dcp_tf.tools.cli.flags_from_settings import flag_names
from dcp_tf.tools.cli.program import Program, name_flags

# Options are the flags of `prune`; these set what is pruned and what it may cost, which all variants have in common.
COMMON = {
    "method",
    *(flag for settings in (Scope, WidthSettings, Budget, KernelRate) for flag in flag_names(settings).values()),
    *(f"target_{measure}" for measure in MEASURES),
} - {"allocation", "prune_blocks", "search_scope"}

_PROGRAM = Program("variant", "")
pruning_flags.define_pruning(_PROGRAM)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        label: as the user wrote it.
        method: such as `dcp_tf.DCP(...)`.
    """

    label: str
    method: Any


def read_variants(labels: Sequence[str], flags: Any) -> list[Variant]:
    """The methods that `NAME:option=value:option...` stand for.

    Args:
        labels: one for each variant. Options without a value are switched on.
        flags: of the program; settings that a label does not name have the values of its flags of the same name.

    Raises:
        UsageError: an unknown method, an option that it does not have or that all variants share, a value that cannot
            be, or the same variant twice.
    """
    variants: list[Variant] = []
    for label in labels:
        variant = Variant(label, _read(label, flags))
        same = next((v.label for v in variants if v.method == variant.method), None)
        if same is not None:
            raise UsageError(f"{same} and {label} are the same")
        variants.append(variant)
    if not variants:
        raise UsageError("--methods names no method, such as dcp,l1:update")
    return variants


def _read(label: str, flags: Any) -> Any:
    name, *options = label.split(":")
    method = pruning_flags.find_method(name, flags)
    values = copy.deepcopy(_PROGRAM.flags)
    for common in values:
        if common in flags:
            values[common].value = flags[common].value
    for option in options:
        _check_option(label, method, option.partition("=")[0])
    try:
        values([label, f"--method={name}", *(f"--{option}" for option in options)])
        return pruning_flags.read_method(values)
    except (absl_flags.Error, UsageError) as error:
        line = name_flags(str(error), error.settings) if isinstance(error, UsageError) else str(error)
        # Without options it is the program's own flags that are wrong.
        raise UsageError(f"{label}: {line}" if options else line) from error


def _check_option(label: str, method: type, option: str) -> None:
    if option in COMMON and option != "method":
        raise UsageError(f"{label}: all methods have the same {option}; give --{option} for all")
    known = set(flag_names(method).values()) & {*_PROGRAM.flags} - COMMON
    if option not in known:
        raise UsageError(f"{label}: {method.name} has no option {option!r}; there are {', '.join(sorted(known))}")
