"""The metrics of a model: their names and how they are formatted."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dcp_tf.report import formats


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        key: in summary.json.
        label: of a row or column.
        noun: in a sentence, after "the" or "its".
        is_fraction: whether it is a fraction of 1, shown in percent.
        is_difference: whether a change is shown as a difference, because a percentage would be meaningless.
    """

    key: str
    label: str
    noun: str
    is_fraction: bool = True
    is_difference: bool = False

    @property
    def factor(self) -> int:
        """The factor from the value to what is shown."""
        return 100 if self.is_fraction else 1

    @property
    def lower_is_better(self) -> bool:
        """Whether it is an error."""
        return self.key.endswith(("mse", "mae", "loss"))

    @property
    def axis(self) -> str:
        """The axis label of a plot."""
        label = self.label if self.label[:2].isupper() else self.label[:1].lower() + self.label[1:]
        return f"{label} (%)" if self.is_fraction else label

    def interval(self, value: Any, images: int | None) -> str:
        """The 95% interval (Wilson) of an accuracy on so many images: "96.05-99.06%"; empty for other metrics."""
        if not (self.key.endswith(("top1", "top5")) and formats.is_number(value) and images and 0 <= value <= 1):
            return ""
        from scipy.stats import binomtest

        low, high = binomtest(round(value * images), images).proportion_ci(method="wilson")
        return f"{100 * low:.2f}-{100 * high:.2f}%"

    def write(self, value: Any) -> str:
        """The value as text."""
        return formats.percent(value) if self.is_fraction else formats.short(value)

    def compare(self, before: Any, after: Any) -> str:
        """The change as text: in points for fractions, else a difference or a percentage."""
        if self.is_fraction:
            return formats.points(before, after)
        return formats.difference(before, after) if self.is_difference else formats.change(before, after)


# In the order in which they are shown; in a summary without `metric` the first one present is the primary one.
METRICS = {
    metric.key: metric
    for metric in (
        Metric("top1", "Top-1", "top-1 accuracy"),
        Metric("verification_accuracy", "Verification", "verification accuracy"),
        Metric("top5", "Top-5", "top-5 accuracy"),
        Metric("map", "mAP", "mean average precision"),
        Metric("mean_iou", "Mean IoU", "mean IoU"),
        Metric("step_accuracy", "Step accuracy", "accuracy per step"),
        Metric("mse", "MSE", "mean squared error", is_fraction=False),
        Metric("recall_at_1", "Recall at 1", "recall at 1"),
        Metric("f1", "F1", "F1 score"),
        Metric("pixel_accuracy", "Pixel accuracy", "pixel accuracy"),
        Metric("sequence_accuracy", "Sequence accuracy", "share of sequences without an error"),
        Metric("mae", "MAE", "mean absolute error", is_fraction=False),
        Metric("loss", "Loss", "loss", is_fraction=False),
        Metric("r2", "R2", "explained variance", is_fraction=False, is_difference=True),
        # Compare the outputs of two models, without labels.
        Metric("baseline_agreement", "Same as baseline", "agreement with the baseline"),
        Metric("baseline_r2", "R2 to baseline", "R2 of its outputs and the baseline's", False, True),
        Metric("baseline_cosine", "Cosine to baseline", "cosine with the baseline's outputs", False, True),
        Metric("baseline_mse", "MSE to baseline", "squared difference from the baseline's outputs", False, True),
        Metric("baseline_snr_db", "SNR to baseline, dB", "SNR of its outputs to the baseline's", False, True),
    )
}
# Of embedding models, whose files are compared with them by cosine.
EMBEDDING_METRICS = ("verification_accuracy", "recall_at_1")


def find_metric(key: str) -> Metric | None:
    """The metric of a key in summary.json; "boxes_mse" is the one of the output "boxes"."""
    if key in METRICS:
        return METRICS[key]
    output, metric = max(
        ((key.removesuffix(f"_{name}"), metric) for name, metric in METRICS.items() if key.endswith(f"_{name}")),
        key=lambda pair: len(pair[1].key),
        default=(key, None),
    )
    if metric is None:
        return None
    label = metric.label if metric.label[:2].isupper() else metric.label[:1].lower() + metric.label[1:]
    return dataclasses.replace(metric, key=key, label=f"{output} {label}", noun=f"{metric.noun} of {output!r}")


def main_metrics(summary: Mapping[str, Any]) -> list[Metric]:
    """The primary metric of a run, and those of the outputs of a model with several."""
    keys = summary.get("metrics") or ()
    others = [metric for key in keys if key != summary.get("metric") and (metric := find_metric(str(key)))]
    return [primary_metric(summary), *others]


def primary_metric(summary: Mapping[str, Any]) -> Metric:
    """The primary metric of a run."""
    if metric := find_metric(str(summary.get("metric"))):
        return metric
    measured = [summary.get("baseline") or {}, summary.get("pruned") or {}]
    return next((f for key, f in METRICS.items() if any(key in model for model in measured)), METRICS["top1"])


def file_metric(record: Mapping[str, Any]) -> Metric:
    """The primary metric of a TFLite file."""
    return next((f for key, f in METRICS.items() if formats.is_number(record.get(key))), METRICS["top1"])


def is_accuracy(key: str) -> bool:
    """Whether the metric `key` is a fraction of 1 that is shown in percent."""
    key = key.removeprefix("held_out_")
    metric = find_metric(key)
    is_known = metric is not None and metric.is_fraction
    if "loss" in key:  # at a layer of any name
        return False
    return is_known or any(word in key for word in ("top1", "top5", "accuracy")) or key.startswith("top")
