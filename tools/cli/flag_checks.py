"""Whether the settings on the command line mean something to the method that was chosen."""

from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.selection import Selection
from dcp_tf.tools.cli.flags_from_settings import flag_names
from dcp_tf.tools.cli.training_flags import PHASES

# Flags that say which images a criterion looks at, though nothing is fitted.
_IMAGES = ("selection_samples", "selection_batch")
# Flags that only the training with auxiliary losses reads.
_OF_HEADS = {"auxiliary_trains", *(change["flag"] for change in PHASES["auxiliary"][1].values())}
_OF_SELECTION = set(flag_names(Selection).values())


def check_given(flags: Any, method: Any) -> None:
    """Refuses settings that exclude each other or belong to methods of another kind; names those without effect.

    Settings without effect are no error, so that one command line can serve several methods in turn.

    Args:
        flags: of the program.
        method: that they make.

    Raises:
        UsageError: a rate stands beside a target, or a setting belongs to channels where kernels go, or the reverse.
    """
    from dcp_tf.pruning import METHODS

    given = [name for name in flags if flags[name].present]
    targets = [name for name in given if name.startswith("target_")]
    if "rate" in given and targets:
        raise UsageError(f"give --rate or --{targets[0]}, not both: the target sets the rate")
    flags_of = {key: set(flag_names(kind).values()) for key, kind in METHODS.items()}
    owners = {name: [key for key, known in flags_of.items() if name in known] for name in given}
    idle = []
    for name, methods in owners.items():
        if methods and method.name not in methods:
            if method.chooses_kernels or name == "kernel_rate":
                raise UsageError(f"--{name} means nothing to {method.name}; it belongs to {', '.join(methods)}")
            idle.append(name)
        elif not _is_read(name, method):
            idle.append(name)
    if idle:
        has = "has" if len(idle) == 1 else "have"
        progress.say(f"note: --{', --'.join(idle)} {has} no effect with --method={method.name} and the other settings")


def _is_read(name: str, method: Any) -> bool:
    """Whether a setting that the method has, or any setting of training, counts in the state that it is in."""
    if name in _OF_HEADS:
        return method.uses_heads and not method.from_scratch
    if method.guided or name not in _OF_SELECTION:
        return True
    looks_at_images = getattr(method, "looks_at_images", False) or method.allocates == "global"
    return (name in _IMAGES and looks_at_images) or method.from_scratch
