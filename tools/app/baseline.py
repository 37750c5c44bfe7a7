"""The first look of every run at the model that it is given: one line, and a warning where the model is at chance."""

from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.program import Program


def define_expected(program: Program) -> None:
    """`--expected`."""
    program.float(
        "expected",
        None,
        "What the model's figure should be about, such as the top-1 that it had in training (0.95): far below it the "
        "run warns and looks for the cause. At chance it does so without the flag.",
    )


def read_expected(flags: Any, metric: str) -> float | None:
    """The value of `--expected`.

    Raises:
        UsageError: it cannot be a value of this figure.
    """
    expected = flags.expected
    if expected is None:
        return None
    is_share = metric not in ("mse", "loss")
    if not 0 <= expected <= (1 if is_share else float("inf")):
        raise UsageError(f"--expected={expected:g} is no {metric}" + (": give a fraction of 1" if is_share else ""))
    return expected


def look(
    flags: Any,
    subject: Any,
    *,
    model: Any = None,
    figures: Any = None,
    what: str = "baseline",
    is_trained: bool | None = None,
) -> Any:
    """Measures the model that a run begins with, and says how good it is.

    Args:
        flags: of the program.
        subject: the model, its data and its objective.
        model: the one that is measured, None for the subject's own.
        figures: of the test images, where they are known already.
        what: what the model is called.
        is_trained: whether its weights mean something; None: unless they are a network's random ones.

    Returns:
        A `dcp_tf.training.BaselineCheck`, or None where there is nothing to measure by.
    """
    from dcp_tf import progress
    from dcp_tf.training.baseline_check import check_baseline

    objective = subject.objective
    if objective is None:
        return None
    expected = read_expected(flags, objective.primary) if "expected" in flags else None
    if is_trained is None:
        is_trained = not subject.source.startswith(("zoo:", "keras:")) or flags["weights"].value is not None
    if figures is None and subject.dataset.test.labels is not None and model is None:
        from dcp_tf.tools.app.deployment import figures as measured

        figures = measured(subject.model, subject.dataset, objective)
    check = check_baseline(
        model or subject.model,
        objective,
        subject.dataset.train,
        subject.dataset.test,
        expected=expected,
        figures=figures,
        is_trained=is_trained,
        class_names=tuple(getattr(subject.dataset, "class_names", ())),
        seed=flags.seed,
    )
    if check is not None:
        for line in [check.headline(what), *check.lines()]:
            progress.say(line)
    return check
