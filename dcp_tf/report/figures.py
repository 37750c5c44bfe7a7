"""The metrics of a model: their names and how they are formatted."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dcp_tf.report import formats


@dataclasses.dataclass(frozen=True)
class Figure:
    """One metric.

    Attributes:
        key: in summary.json.
        label: of a row or column.
        noun: in a sentence, after "the" or "its".
        is_share: whether it is a fraction of 1, shown in percent.
        is_difference: whether a change is shown as a difference, because a percentage would be meaningless.
    """

    key: str
    label: str
    noun: str
    is_share: bool = True
    is_difference: bool = False

    @property
    def factor(self) -> int:
        """The factor from the value to what is shown."""
        return 100 if self.is_share else 1

    @property
    def axis(self) -> str:
        """The axis label of a plot."""
        label = self.label if self.label.isupper() else self.label[:1].lower() + self.label[1:]
        return f"{label} (%)" if self.is_share else label

    def write(self, value: Any) -> str:
        """The value as text."""
        return formats.percent(value) if self.is_share else formats.short(value)

    def compare(self, before: Any, after: Any) -> str:
        """The change as text: in points for fractions, else a difference or a percentage."""
        if self.is_share:
            return formats.points(before, after)
        return formats.difference(before, after) if self.is_difference else formats.change(before, after)


# In the order in which they are shown; in a summary without `metric` the first one present is the primary one.
FIGURES = {
    figure.key: figure
    for figure in (
        Figure("top1", "Top-1", "top-1 accuracy"),
        Figure("verification_accuracy", "Verification", "verification accuracy"),
        Figure("top5", "Top-5", "top-5 accuracy"),
        Figure("map", "mAP", "mean average precision"),
        Figure("mean_iou", "Mean IoU", "mean IoU"),
        Figure("step_accuracy", "Step accuracy", "accuracy per step"),
        Figure("mse", "MSE", "mean squared error", is_share=False),
        Figure("recall_at_1", "Recall at 1", "recall at 1"),
        Figure("f1", "F1", "F1 score"),
        Figure("pixel_accuracy", "Pixel accuracy", "pixel accuracy"),
        Figure("sequence_accuracy", "Sequence accuracy", "share of sequences without an error"),
        Figure("mae", "MAE", "mean absolute error", is_share=False),
        Figure("r2", "R2", "explained variance", is_share=False, is_difference=True),
        # Compare the outputs of two models, without labels.
        Figure("baseline_agreement", "Same as baseline", "agreement with the baseline"),
        Figure("baseline_r2", "R2 to baseline", "R2 of its outputs and the baseline's", False, True),
        Figure("baseline_cosine", "Cosine to baseline", "cosine with the baseline's outputs", False, True),
        Figure("baseline_mse", "MSE to baseline", "squared difference from the baseline's outputs", False, True),
        Figure("baseline_snr_db", "SNR to baseline, dB", "SNR of its outputs to the baseline's", False, True),
    )
}
# Of embedding models, whose files are compared with them by cosine.
EMBEDDING_FIGURES = ("verification_accuracy", "recall_at_1")


def primary(summary: Mapping[str, Any]) -> Figure:
    """The primary metric of a run."""
    if summary.get("metric") in FIGURES:
        return FIGURES[summary["metric"]]
    measured = [summary.get("baseline") or {}, summary.get("pruned") or {}]
    return next((f for key, f in FIGURES.items() if any(key in model for model in measured)), FIGURES["top1"])


def of_record(record: Mapping[str, Any]) -> Figure:
    """The primary metric of a TFLite file."""
    return next((f for key, f in FIGURES.items() if formats.is_number(record.get(key))), FIGURES["top1"])


def is_accuracy(key: str) -> bool:
    """Whether the metric `key` is a fraction of 1 that is shown in percent."""
    key = key.removeprefix("held_out_")
    known = key in FIGURES and FIGURES[key].is_share
    return known or any(word in key for word in ("top1", "top5", "accuracy")) or key.startswith("top")
