"""Measures models on images without labels by comparing their outputs with the baseline's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dcp_tf.tools.app.file_remarks import LOW_SNR_DB

_VALUES = 2**26  # limit for the baseline's outputs in memory
_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The baseline's outputs for the test images.

    Attributes:
        images: (N, ...).
        outputs: of the baseline.
        objective: of the models.
    """

    images: np.ndarray
    outputs: np.ndarray
    objective: Any

    @property
    def metric(self) -> str:
        """Name of the primary figure."""
        return f"baseline_{self.objective.fidelity}"

    def compare(self, model_or_predict: Any) -> dict[str, float]:
        """The figures of a model or of a function from images to outputs; see `dcp_tf.evaluation.fidelity`."""
        from dcp_tf.evaluation import fidelity, predict_function

        batches = (self.images[start : start + _BATCH] for start in range(0, len(self.images), _BATCH))
        return fidelity(predict_function(model_or_predict), batches, self.outputs, self.objective.decide)

    def compare_file(self, file: Any) -> dict[str, float]:
        """As `compare`, for a TFLite file."""
        from dcp_tf import tflite

        return self.compare(tflite.Runner(file).predict)

    def remarks(self, measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A line for each model or file whose outputs (images or numbers) differ much from the baseline's."""
        lines = []
        for name, figures in measured.items():
            snr = figures.get("baseline_snr_db")
            is_own = figures.get("model") == "baseline"  # the file was compared with its own model
            if self.objective.fidelity == "r2" and snr is not None and snr < LOW_SNR_DB and not is_own:
                lines.append(
                    f"warning: the outputs of {name} are {snr:.1f} dB above what they differ by from the baseline's "
                    f"(SNR; below {LOW_SNR_DB:g} dB it shows)"
                )
        return lines


def reference(model: Any, dataset: Any, objective: Any) -> Reference | None:
    """The baseline's outputs for test images without labels; None if they have labels."""
    if dataset.test.labels is not None or objective is None:
        return None
    from dcp_tf.training import output_shape
    from dcp_tf.training.objectives import predictions

    values = int(np.prod(output_shape(model, dataset.test)[1:])) + int(np.prod(dataset.test.shape))
    count = max(1, min(dataset.test.size, _VALUES // values))
    outputs, _ = predictions(model, dataset.test, count)
    chosen = dataset.test.balanced_subset(count)
    images = np.concatenate([np.asarray(batch) for batch in dataset.test.batches(_BATCH, indices=chosen)])
    return Reference(images, outputs, objective)
