"""Measures models on images without labels by comparing their outputs with the baseline's."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dcp_tf.tools.app.file_remarks import LOW_SNR_DB

_VALUES = 2**26  # limit for the baseline's outputs in memory
_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The baseline's outputs for the test images.

    Attributes:
        inputs: (N, ...), or a tuple of such arrays.
        outputs: of the baseline, one array for each output.
        parts: the name and the objective of each output; no name where there is one.
    """

    inputs: Any
    outputs: list[np.ndarray]
    parts: list[tuple[str, Any]]

    @property
    def metric(self) -> str:
        """Name of the primary figure."""
        return self.metrics[0]

    @property
    def metrics(self) -> list[str]:
        """The primary figure of each output."""
        return [f"{name}{'_' * bool(name)}baseline_{objective.fidelity}" for name, objective in self.parts]

    def for_summary(self) -> dict[str, Any]:
        """The names of the figures as summary.json holds them."""
        return {"metric": self.metric, **({"metrics": self.metrics} if len(self.parts) > 1 else {})}

    def compare(self, model_or_predict: Any) -> dict[str, float]:
        """The figures of a model or of a function from inputs to outputs; see `dcp_tf.evaluation.fidelity`."""
        from dcp_tf.evaluation import fidelity

        answers, figures = _answers(model_or_predict, _batches_of(self.inputs)), {}
        for (name, objective), own, expected in zip(self.parts, answers, self.outputs, strict=True):
            measured = fidelity(lambda x: x, [own], expected, objective.decide)
            figures |= {f"{name}{'_' * bool(name)}{metric}": value for metric, value in measured.items()}
        return figures

    def compare_file(self, file: Any) -> dict[str, float]:
        """As `compare`, for a TFLite file."""
        from dcp_tf import tflite

        return self.compare(tflite.Runner(file).predict)

    def remarks(self, measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A line for each model or file whose outputs (images or numbers) differ much from the baseline's."""
        lines = []
        for (name, figures), (output, objective) in itertools.product(measured.items(), self.parts):
            snr = figures.get(f"{output}{'_' * bool(output)}baseline_snr_db")
            is_own = figures.get("model") == "baseline"  # the file was compared with its own model
            if objective.fidelity == "r2" and snr is not None and snr < LOW_SNR_DB and not is_own:
                what = f"output {output!r} of {name} is" if output else f"the outputs of {name} are"
                lines.append(
                    f"warning: {what} {snr:.1f} dB above what it differs by from the baseline's "
                    f"(SNR; below {LOW_SNR_DB:g} dB it shows)"
                )
        return lines


def reference(model: Any, dataset: Any, objective: Any) -> Reference | None:
    """The baseline's outputs for test images without labels; None if they have labels."""
    if dataset.test.labels is not None or objective is None:
        return None
    from dcp_tf.data import values_per_sample
    from dcp_tf.training import output_shape

    shapes = output_shape(model, dataset.test)
    shapes = shapes if isinstance(shapes[0], tuple) else [shapes]
    values = sum(int(np.prod(shape[1:])) for shape in shapes) + values_per_sample(dataset.test.shape)
    inputs = dataset.test.representative(max(1, min(dataset.test.size, _VALUES // values)))
    parts = [part[:2] for part in objective.parts] if hasattr(objective, "parts") else [("", objective)]
    return Reference(inputs, _answers(model, _batches_of(inputs)), parts)


def _batches_of(inputs: Any) -> Iterator[Any]:
    import keras

    for start in range(0, len(keras.tree.flatten(inputs)[0]), _BATCH):
        yield keras.tree.map_structure(lambda array, first=start: array[first : first + _BATCH], inputs)


def _answers(model_or_predict: Any, batches: Iterator[Any]) -> list[np.ndarray]:
    """One array for each output."""
    import keras

    from dcp_tf.evaluation import predict_function

    predict = predict_function(model_or_predict)
    answers = [[np.asarray(x, np.float32) for x in keras.tree.flatten(predict(batch))] for batch in batches]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]
