"""Measures the model that a run starts from and logs how good it is; warns where it is no better than chance."""

from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.program import Program, name_flags


def define_expected(program: Program) -> None:
    """`--expected`."""
    program.float(
        "expected",
        None,
        "The figure that the model should reach, such as its top-1 in training (0.95). Far below it the run warns and "
        "looks for the cause; a model no better than chance is always warned about.",
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


def report_baseline(
    flags: Any,
    model_and_data: Any,
    *,
    model: Any = None,
    figures: Any = None,
    what: str = "baseline",
    is_trained: bool | None = None,
) -> Any:
    """Measures the model that a run starts from, and logs how good it is.

    Args:
        flags: of the program.
        model_and_data: the model, its data and its objective.
        model: the model to measure; None: that of `model_and_data`.
        figures: the figures of the test images, if they are known.
        what: what the log calls the model.
        is_trained: whether the weights are trained; None: read off the flags.

    Returns:
        A `dcp_tf.training.BaselineCheck`, or None if nothing can be measured.
    """
    from dcp_tf import progress
    from dcp_tf.training.baseline_check import check_baseline

    objective = model_and_data.objective
    if objective is None:
        return None
    expected = read_expected(flags, objective.primary) if "expected" in flags else None
    if is_trained is None:
        is_trained = not model_and_data.source.startswith(("zoo:", "keras:")) or flags["weights"].value is not None
    if figures is None and model_and_data.dataset.test.labels is not None and model is None:
        from dcp_tf.tools.app import answers
        from dcp_tf.tools.app.run_summary import measure_figures

        measured = answers.recorded(model_and_data, "baseline", model_and_data.model)
        figures = measure_figures(measured, model_and_data.dataset, objective)
    check = check_baseline(
        model or model_and_data.model,
        objective,
        model_and_data.dataset.train,
        model_and_data.dataset.test,
        expected=expected,
        figures=figures,
        is_trained=is_trained,
        class_names=tuple(getattr(model_and_data.dataset, "class_names", ())),
        seed=flags.seed,
    )
    if check is not None:
        for line in [check.headline(what), *check.lines()]:
            progress.say(_with_flags(line))
        for line in _of_outputs(model or model_and_data.model, model_and_data, check) if is_trained else ():
            progress.say(_with_flags(line))
    return check


def _of_outputs(model: Any, model_and_data: Any, check: Any) -> list[str]:
    """Warnings about single outputs of several, whose sum of losses tells nothing of chance."""
    import keras

    from dcp_tf.training.baseline_check import check_baseline
    from dcp_tf.training.joint_objective import Joint, each_output

    objective, train, test = model_and_data.objective, model_and_data.dataset.train, model_and_data.dataset.test
    if not isinstance(objective, Joint) or not isinstance(model, keras.Model):
        return []
    lines = []
    for name, part, own_model, (own_train, own_test) in each_output(objective, model, train, test):
        start = f"{name}_"
        own = {key.removeprefix(start): value for key, value in check.figures.items() if key.startswith(start)}
        if own and part.primary in own:
            own_check = check_baseline(own_model, part, own_train, own_test, figures=own)
            lines += [f"output {name!r}: {line}" for line in (own_check.lines() if own_check is not None else ())]
    return lines


def as_json(check: Any) -> dict[str, Any]:
    """A check of the baseline as summary.json holds it, with flags in place of settings."""
    record = check.to_json() | {"warning": [_with_flags(line) for line in check.lines()]}
    for alternative in (*record["pixel_ranges"], *record["class_orders"]):
        settings = alternative.pop("settings")
        alternative["flags"] = settings and _with_flags(settings)
    return record


def _with_flags(text: str) -> str:
    """A text of the check with the flags of its settings."""
    settings = [name for name in ("normalization", "mean", "std") if f"{name}=" in text]
    return name_flags(text, settings).replace(", --", " --")
