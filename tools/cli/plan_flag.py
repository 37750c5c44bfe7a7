"""`--plan`: channels that were chosen before."""

from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.flags_from_settings import flag_names
from dcp_tf.tools.cli.program import Program


def define_plan(program: Program) -> None:
    """`--plan`."""
    program.path(
        "plan",
        None,
        "A plan.json to apply in place of a choice, such as one that an earlier run wrote or that was edited; all else "
        "(fine-tuning, files, report) follows as usual.",
    )


def given_plan(flags: Any) -> Any:
    """The plan that `--plan` names as a method, None without the flag.

    Raises:
        UsageError: it cannot be read, or other flags choose channels too.
    """
    if "plan" not in flags or not flags.plan:
        return None
    from dcp_tf.pruning import METHODS, GivenPlan, PruningPlan

    settings = {"method", *(flag for method in METHODS.values() for flag in flag_names(method).values())}
    given = [n for n in flags if flags[n].present and (n in settings or n.startswith("target_"))]
    if given:
        raise UsageError(f"--plan says which channels stay: leave out --{', --'.join(given)}")
    return GivenPlan.of(PruningPlan.load(flags.plan))
