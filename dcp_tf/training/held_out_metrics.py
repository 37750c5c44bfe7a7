"""Metrics of Keras on the inputs that are held out of a training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.graph_function import graph_function
from dcp_tf.training.losses import Loss
from dcp_tf.training.targets import split_batch


class HeldOutMetrics:
    """Measures metrics of a model's outputs, as `compile(weighted_metrics=...)` does.

    Args:
        metrics: a list for a model with one output, else lists by the output's name.
        model: on one device; its last outputs are measured.
        loss: of these; a joint one has their names.
        batches: gives the held-out inputs, the same each time.

    Raises:
        UsageError: one is no metric, there is no such output, or there are no labels.
    """

    def __init__(
        self,
        metrics: Sequence[keras.metrics.Metric] | Mapping[str, Sequence[keras.metrics.Metric]],
        model: keras.Model,
        loss: Loss,
        batches: Callable[[], tf.data.Dataset],
    ):
        names = getattr(loss, "names", ("",))
        by_output = dict(metrics) if isinstance(metrics, Mapping) else {names[-1]: metrics}
        if not by_output.keys() <= set(names) or (len(names) > 1 and not isinstance(metrics, Mapping)):
            expected = "a list" if names == ("",) else f"lists by the names of outputs, {', '.join(names)}"
            raise UsageError(f"metrics must be {expected}; received {metrics!r:.80}")
        for metric in keras.tree.flatten(list(by_output.values())):
            if not isinstance(metric, keras.metrics.Metric):
                raise UsageError(f"expected an object such as keras.metrics.AUC() in metrics, received {metric!r:.80}")
        self._metrics, self._names, self._model, self._batches = by_output, names, model, batches
        self._compiled = graph_function(self._update, reduce_retracing=True)

    def measure(self) -> dict[str, float]:
        """The metrics of the present weights, as records call them."""
        for metric in keras.tree.flatten(list(self._metrics.values())):
            metric.reset_state()
        for batch in self._batches():
            self._compiled(*split_batch(batch))
        prefixes = {name: f"{name}_" if name else "" for name in self._metrics}
        return {
            f"held_out_{prefixes[name]}{metric.name}": float(metric.result())
            for name, metrics in self._metrics.items()
            for metric in metrics
        }

    def _update(self, inputs: Any, labels: Any, weights: Any) -> None:
        outputs = keras.tree.flatten(self._model(inputs, training=False))[-len(self._names) :]
        for name, output in zip(self._names, outputs, strict=True):
            of_output, weight = (part.get(name) if isinstance(part, dict) else part for part in (labels, weights))
            if self._metrics.get(name) and of_output is None:
                raise UsageError(f"metrics need labels{f' of the output {name}' if name else ''}, the data has none")
            for metric in self._metrics.get(name, ()):
                metric.update_state(of_output, output, weight)
