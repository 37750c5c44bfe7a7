"""Metrics that a model is compiled with, measured beside those of its objective."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

# How Keras finds "accuracy" and what else has several forms; it has no public name.
from keras.src.trainers.compile_utils import get_metric

from dcp_tf import progress
from dcp_tf.errors import UsageError, first_line
from dcp_tf.evaluation import predict_function
from dcp_tf.training.objectives import Objective
from dcp_tf.training.targets import split_batch


class KerasMetrics:
    """The compiled metrics of one output.

    Args:
        plain: objects, functions or names.
        weighted: those that sample weights count in.

    Attributes:
        leaves_out_failing: whether a metric that cannot take the labels is left out with a line, not an error.
    """

    leaves_out_failing = False

    def __init__(self, plain: Sequence[Any], weighted: Sequence[Any] = ()):
        self._given = [(metric, False) for metric in plain] + [(metric, True) for metric in weighted]
        self._metrics: list[tuple[keras.Metric, bool]] | None = None

    def __bool__(self) -> bool:
        return bool(self._given)

    def measure(self, batches: Iterable[tuple]) -> dict[str, float]:
        """Their values over batches of (outputs, labels, weights or None), by name; only single numbers.

        Raises:
            UsageError: a metric cannot take these labels.
        """
        for metric, _ in self._metrics or []:
            metric.reset_state()
        for outputs, labels, weights in batches:
            if self._metrics is None:
                self._metrics = [(get_metric(metric, labels, outputs), weighs) for metric, weighs in self._given]
            for metric, weighs in [*self._metrics]:
                try:
                    metric.update_state(labels, outputs, *([weights] if weighs and weights is not None else []))
                except Exception as error:  # a user's own code, or labels of another form
                    failure = f"the compiled metric {metric.name!r} failed: {first_line(error)}"
                    if not self.leaves_out_failing:
                        raise UsageError(failure) from error
                    progress.say(f"note: {failure}; it is left out")
                    self._metrics.remove((metric, weighs))
        figures: dict[str, float] = {}
        for metric, weighs in self._metrics or []:
            result = metric.result()
            for name, value in (result if isinstance(result, dict) else {metric.name: result}).items():
                if np.ndim(value) == 0:
                    figures[f"weighted_{name}" if weighs and name in figures else name] = float(value)
        return figures


def with_metrics(objective: Objective, metrics: KerasMetrics | None) -> Objective:
    """The objective, which measures these metrics too. Binding it to other data loses them."""
    if not metrics:
        return objective
    measured = copy.copy(objective)
    object.__setattr__(measured, "keras_metrics", metrics)

    def evaluate(model_or_predict: keras.Model | Callable, batches: Iterable) -> dict[str, float]:
        predict, stored = predict_function(model_or_predict), []

        def labelled():
            for batch in batches:
                inputs, labels, weights = split_batch(batch)
                stored.append((np.asarray(predict(inputs), np.float32), labels, weights))
                yield stored[-1] if weights is not None else stored[-1][:2]

        figures = objective.evaluate(lambda outputs: outputs, labelled())
        return {**metrics.measure(stored), **figures}

    object.__setattr__(measured, "evaluate", evaluate)
    return measured
