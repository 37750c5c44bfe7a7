"""Checks a model before anything is done to it: how good it is, and if it is at chance, the likely cause.

A model is useless with pixels of another range, or classes in another order, than in its training. Without this check a
run would continue to the end, and its files would be useless too.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf.data import images_per_measurement, split_batch
from dcp_tf.data.data_split import values_per_sample
from dcp_tf.data.pixel_ranges import PixelRange, other_ranges
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation.chance import Chance, ClassOrder, against_chance, better_order, class_orders
from dcp_tf.evaluation.metrics import predict_function, top1_classes
from dcp_tf.training.layers import batch_norms, batch_statistics
from dcp_tf.training.objectives import Classification, Objective, output_shape

_IMAGES = 400  # to check a model that may be at chance
_MORE = 4000  # if these do not distinguish a weak model from chance
_MORE_VALUES = 2**29  # of their pixels
_UNDECIDED = 0.5  # standard deviations above chance, from which more images are used
_FEWEST = 16
_VALUES = 2**24  # of their pixels, and of the outputs for them
_BATCH = 64
_CLEARLY_RIGHT = 0.5  # of the way from the largest class to 1, beyond which no check is needed
_NO_R2, _BAD_R2 = 0.02, -0.05  # below the first nothing is explained; below the second the scale is wrong
_CORRELATES = 4.0  # standard errors of a significant correlation of numbers with their labels
_RANGE_GAIN = 0.1  # by which another pixel range must be better to be reported if the model is at chance
_GAIN_ELSE = 0.2  # and if it is not
_UNTRAINED = (
    "the model looks untrained: every BatchNormalization still has mean 0 and variance 1. Were its weights loaded?"
)
_COIN = 0.55  # accuracy on pairs of faces; guessing has 0.5
_EXPECTED_SLACK = 0.05  # below what the user expects, beyond the noise of the measurement


@dataclasses.dataclass(frozen=True)
class Alternative:
    """The metric under another assumption.

    Attributes:
        name: of the assumption.
        value: of the metric.
        settings: of `dcp_tf.data.load` for it, or None.
        outputs: for another order of the classes: the output of each label.
    """

    name: str
    value: float
    settings: str | None = None
    outputs: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.value:.4f} {self.name}{f' ({self.settings})' if self.settings else ''}"


@dataclasses.dataclass(frozen=True)
class BaselineCheck:
    """How good a model is on its data, and the likely cause if it is not.

    Attributes:
        metric: the objective's main metric.
        figures: all metrics.
        images: the number of measured images.
        part: "test" or "training" images.
        warning: why the metric is implausible, or None.
        looked_at: the number of images for the alternatives.
        measure: the metric of the alternatives; higher is better.
        chance: the metric with shuffled labels, if measured.
        ranges: the metric with other pixel ranges, the best first.
        orders: the metric with other orders of the classes.
        cause: the likely cause, as a sentence.
    """

    metric: str
    figures: Mapping[str, Any]
    images: int
    part: str = "test"
    warning: str | None = None
    looked_at: int = 0
    measure: str = ""
    chance: float | None = None
    ranges: tuple[Alternative, ...] = ()
    orders: tuple[Alternative, ...] = ()
    cause: str | None = None

    def headline(self, what: str = "baseline") -> str:
        """The metric in one line."""
        images = f"{self.images:,} {'training ' * (self.part == 'training')}images"
        return f"{what}: {self.metric} {self.figures[self.metric]:.4f} on {images}"

    def lines(self) -> list[str]:
        """The warning and its likely causes in order; empty without a warning."""
        if self.warning is None:
            return []
        lines = [f"warning: {self.warning}"]
        measured = f"{self.measure} on {self.looked_at} images"
        if self.ranges:
            lines.append(f"  pixel range? {measured}: {', '.join(map(str, self.ranges))}")
        if self.orders:
            lines.append(f"  class order? {measured}: {', '.join(map(str, self.orders))}")
        if self.cause:
            return [*lines, f"  likely cause: {self.cause}"]
        tried = "; no pixel range or class order that was tried gives more" if self.ranges or self.orders else ""
        return [*lines, f"  wrong data? are these images and labels what the model was trained for{tried}"]

    def to_json(self) -> dict[str, Any]:
        """All but the metrics, which are stored elsewhere."""
        return {
            "metric": self.metric,
            "value": self.figures[self.metric],
            "images": self.images,
            "part": self.part,
            "warning": self.lines(),
            "chance": self.chance,
            "pixel_ranges": [dataclasses.asdict(alternative) for alternative in self.ranges],
            "class_orders": [dataclasses.asdict(order) | {"outputs": list(order.outputs)} for order in self.orders],
        }


def check_baseline(
    model: keras.Model | Callable,
    objective: Objective,
    train: Any,
    test: Any = None,
    *,
    expected: float | None = None,
    figures: Mapping[str, Any] | None = None,
    is_trained: bool = True,
    class_names: Sequence[str] = (),
    seed: int = 0,
) -> BaselineCheck | None:
    """Measures a model on its test images, and searches for the cause if it is at chance or far below `expected`.

    Args:
        model: a Keras model, or a function from images to outputs.
        objective: bound to the model and its data.
        train: training images, some of which are used if there are no test labels.
        test: test images, or None.
        expected: the approximate metric.
        figures: on the test images, if they are already measured.
        is_trained: False for random weights, which are expected to be at chance.
        class_names: by label, for the messages.
        seed: of the choice of images.

    Returns:
        None if there are no labels.

    Raises:
        RunError: the model's outputs are NaN.
    """
    part = "test" if test is not None and test.labels is not None else "training"
    data = test if part == "test" else train
    if data.labels is None:
        return None
    chosen = None if part == "test" else data.balanced_subset(_sample_size(model, data), seed)
    if figures is None:
        figures = objective.evaluate(model, data.batches(images_per_measurement(data.shape), indices=chosen))
    check = BaselineCheck(objective.primary, figures, data.size if chosen is None else len(chosen), part)
    judge = getattr(objective, "of", objective)  # of faces that are verified, the objective of their embeddings
    reason = _below_expected(check, expected)
    if not is_trained:
        return dataclasses.replace(check, warning=reason)
    reason = reason or _guesses_pairs(check, objective)
    source = data if judge is objective else train
    is_clear = reason is None and _is_clearly_right(check, judge, data.labels)
    if is_clear or source.labels is None or judge.primary not in _MEASURES or _lacks_neighbors(judge, source.labels):
        return dataclasses.replace(check, warning=reason)
    if getattr(source, "weights", None) is not None and not np.all(source.weights):
        return dataclasses.replace(check, warning=reason)  # where labels do not count, figures say nothing
    return _Diagnosis(model, judge, source, class_names, seed).complete(check, reason)


# By the objective's main metric, the one that is at most 1 and better the higher it is.
_MEASURES = {name: name for name in ("top1", "map", "mean_iou", "step_accuracy", "recall_at_1")} | {"mse": "r2"}


def _below_expected(check: BaselineCheck, expected: float | None) -> str | None:
    """A sentence if the metric is far from the expected one."""
    value = check.figures.get(check.metric)
    if expected is None or value is None:
        return None
    if check.metric in ("mse", "loss"):
        is_far = value > 1.5 * expected
    else:
        noise = 3 * np.sqrt(max(expected * (1 - expected), 0.0) / check.images)
        is_far = value < expected - max(_EXPECTED_SLACK, noise)
    return f"the model has {check.metric} {value:.4f}, but {expected:g} is expected" if is_far else None


def _guesses_pairs(check: BaselineCheck, objective: Objective) -> str | None:
    """A sentence if pairs of faces are verified no better than by guessing."""
    value = check.figures.get(check.metric)
    if check.metric != "verification_accuracy" or value >= max(_COIN, 0.5 + 1.5 / np.sqrt(len(objective.pairs.same))):
        return None
    return f"the model verifies faces no better than chance: verification_accuracy {value:.4f}"


def _is_clearly_right(check: BaselineCheck, objective: Objective, labels: np.ndarray) -> bool:
    """Whether a classifier or a model of faces is so good that no check is needed."""
    if check.metric == "verification_accuracy":
        return True
    numbers = objective.class_numbers(labels)
    if check.metric != "top1" or numbers is None:
        return False
    largest = np.bincount(numbers).max() / len(numbers)
    return check.figures["top1"] > largest + _CLEARLY_RIGHT * (1 - largest)


def _sample_size(model: Any, data: Any) -> int:
    pixels, outputs = values_per_sample(data.shape), 1
    if isinstance(model, keras.Model):
        shapes = output_shape(model, data)
        outputs = sum(int(np.prod(shape[1:])) for shape in (shapes if isinstance(shapes[0], tuple) else [shapes]))
    return int(np.clip(_VALUES // max(pixels, outputs), _FEWEST, _IMAGES))


class _Diagnosis:
    """A few hundred images (of several inputs a tuple), and a model's outputs for them."""

    def __init__(self, model: Any, objective: Objective, data: Any, class_names: Sequence[str], seed: int):
        self._model, self._objective, self._data, self._seed = model, objective, data, seed
        self._predict = predict_function(model)
        self._class_names = class_names
        self._measure = _MEASURES[objective.primary]
        chosen = data.balanced_subset(_sample_size(model, data), seed)
        if self._measure == "recall_at_1":
            chosen = _whole_classes(data.labels, len(chosen), seed)
        batches = [split_batch(batch)[:2] for batch in data.batches(_BATCH, indices=chosen)]
        self._images, self._labels = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
        self._outputs = self._outputs_for(self._images)

    def complete(self, check: BaselineCheck, reason: str | None) -> BaselineCheck:
        """The check with all results; `reason` is a warning that is already known."""
        check = dataclasses.replace(check, looked_at=len(self._labels), measure=self._measure)
        try:
            value, chance = self._score(self._outputs, self._labels), self._chance()
        except UsageError:  # not measurable on so few images, such as without a positive label
            value = chance = None
        if value is None:
            return dataclasses.replace(check, warning=reason)
        least = 0.0 if chance is None else chance.mean
        check = dataclasses.replace(check, chance=None if chance is None else least)
        reason = reason or self._is_at_chance(check, value, chance)
        if reason is None and value > least + _CLEARLY_RIGHT * (1 - least):
            return check
        explained = self._explained(dataclasses.replace(check, warning=reason), value, self._orders(self._outputs))
        explained = self._with_statistics(explained, value)
        if reason is None and explained.cause is not None:
            reason = f"the model has {self._measure} {value:.4f}, but far more if it is given something else"
            return dataclasses.replace(explained, warning=reason)
        return check if reason is None else explained

    def _explained(self, check: BaselineCheck, value: float, orders: list[ClassOrder]) -> BaselineCheck:
        """The check with other pixel ranges and orders, and the likely cause: one of them, or both."""
        by_range = self._ranges()
        ranges, order = tuple(alternative for alternative, _ in by_range), better_order(orders, value)
        gain = _gain(check, value)
        is_range = bool(ranges) and ranges[0].value > value + gain
        if is_range or (ranges and order is None):
            # Another order of the classes only shows in the correct range.
            candidates = by_range[:1] if is_range else by_range
            in_order = [
                (better_order(self._orders(outputs), best.value), best, outputs) for best, outputs in candidates
            ]
            in_order = [item for item in in_order if item[0] is not None]
            if in_order:
                order, best, outputs = max(in_order, key=lambda item: item[0].value)
                cause = f"{_range_cause(best, self._measure)}, and {self._order_cause(order)}"
                return dataclasses.replace(check, ranges=ranges, orders=_named(self._orders(outputs)), cause=cause)
        if is_range:
            cause = _range_cause(ranges[0], self._measure)
        else:
            cause = self._order_cause(order) if order is not None else self._scale_cause() if check.warning else None
        return dataclasses.replace(check, ranges=ranges, orders=_named(orders), cause=cause)

    def _with_statistics(self, check: BaselineCheck, value: float) -> BaselineCheck:
        """The check with BatchNormalization's moving statistics as the cause, if they explain more than all else."""
        norms = batch_norms(self._model) if isinstance(self._model, keras.Model) else []
        if not norms:
            return check
        try:
            with batch_statistics(self._model):
                in_training = predict_function(self._model)
                score = self._score(self._outputs_for(self._images, in_training), self._labels)
        except RunError:  # NaN: not this
            return check
        best = max([value, *(alternative.value for alternative in (*check.ranges, *check.orders))])
        initial = sum(
            not norm.moving_mean.numpy().any() and (norm.moving_variance.numpy() == 1).all() for norm in norms
        )
        if score <= best + _gain(check, value):
            is_untrained = check.cause is None and check.warning is not None and initial == len(norms)
            return dataclasses.replace(check, cause=_UNTRAINED) if is_untrained else check
        layers = f"{initial} of {len(norms)} layers still have mean 0 and variance 1; " if initial else ""
        cause = (
            f"the moving statistics of BatchNormalization do not fit these images: {layers}with those of each batch "
            f"{self._measure} is {score:.4f}. Train some hundred steps more, or with a momentum below Keras' 0.99"
        )
        return dataclasses.replace(check, cause=cause)

    def _outputs_for(self, images: Any, predict: Callable | None = None) -> np.ndarray:
        rows = [slice(start, start + _BATCH) for start in range(0, len(keras.tree.flatten(images)[0]), _BATCH)]
        batches = [keras.tree.map_structure(lambda array, some=some: array[some], images) for some in rows]
        return np.concatenate([np.asarray((predict or self._predict)(batch), np.float32) for batch in batches])

    def _score(self, outputs: np.ndarray, labels: np.ndarray) -> float | None:
        """The metric of these outputs; None if it is undefined, such as R2 of equal labels."""
        batches = [(np.arange(len(outputs)), labels)]
        return self._objective.evaluate(lambda positions: outputs[positions], batches).get(self._measure)

    def _chance(self) -> Chance | None:
        if self._measure == "r2":
            return None
        chance = against_chance(lambda labels: self._score(self._outputs, labels), self._labels, self._seed)
        is_undecided = chance.is_near and chance.value - chance.mean > _UNDECIDED * chance.std
        if not is_undecided or self._measure == "recall_at_1" or self._objective.is_dense:
            return chance
        count = min(_MORE, max(len(self._labels), _MORE_VALUES // values_per_sample(self._data.shape)))
        batches = self._data.batches(_BATCH, indices=self._data.balanced_subset(count, self._seed))
        batches = (keras.tree.map_structure(np.asarray, split_batch(batch)[:2]) for batch in batches)
        pairs = [(self._outputs_for(images), labels) for images, labels in batches]
        outputs, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return against_chance(lambda shuffled: self._score(outputs, shuffled), labels, self._seed)

    def _is_at_chance(self, check: BaselineCheck, value: float, chance: Chance | None) -> str | None:
        if chance is None:
            value = check.figures.get("r2", value)
            is_near = value < _BAD_R2 or (value < _NO_R2 and not self._correlates())
            return f"the model explains nothing of the labels: r2 {value:.4f}" if is_near else None
        if not chance.is_near:
            return None
        where = "below" if value < chance.mean - 2 * chance.std else "at"
        return f"the model is {where} chance: {self._measure} {value:.4f}, shuffled labels give {chance.mean:.4f}"

    def _correlates(self) -> bool:
        """Whether numbers correlate with their labels."""
        outputs, labels = self._as_rows(self._outputs), self._as_rows(self._labels)
        outputs, labels = outputs - outputs.mean(0), labels - labels.mean(0)
        lengths = np.sqrt((outputs**2).sum(0) * (labels**2).sum(0))
        correlations = (outputs * labels).sum(0)[lengths > 0] / lengths[lengths > 0]
        return bool(len(correlations)) and float(np.mean(correlations)) * np.sqrt(len(outputs)) > _CORRELATES

    def _as_rows(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, self._outputs.shape[-1]).astype(np.float64)

    def _ranges(self) -> list[tuple[Alternative, np.ndarray]]:
        """The metric in other pixel ranges and the outputs for them, the best first."""
        results = []
        for pixels, images in self._other_images():
            try:
                outputs = self._outputs_for(images)
                results.append((Alternative(pixels.name, self._score(outputs, self._labels), pixels.settings), outputs))
            except RunError:  # NaN: not this one
                continue
        return sorted(results, key=lambda pair: -pair[0].value)

    def _other_images(self) -> Iterator[tuple[PixelRange, Any]]:
        """Each other pixel range, and the inputs with it; of several inputs one image at a time changes."""
        if isinstance(self._images, np.ndarray):
            yield from ((pixels, pixels.images) for pixels in other_ranges(self._data, self._images))
        elif isinstance(self._images, tuple):
            for number, part in enumerate(self._images):
                for pixels in other_ranges(self._data, part, number) if part.ndim == 4 else ():
                    yield pixels, (*self._images[:number], pixels.images, *self._images[number + 1 :])

    def _orders(self, outputs: np.ndarray) -> list[ClassOrder]:
        objective = self._objective
        numbers = objective.class_numbers(self._labels)
        if not isinstance(objective, Classification) or numbers is None:
            return []
        kind = objective.outputs_kind
        return class_orders(top1_classes(outputs, kind), numbers, max(2, outputs.shape[-1]))

    def _order_cause(self, order: ClassOrder) -> str:
        if not order.outputs:
            return f"the classes are numbered otherwise: with {order.name} {self._measure} is {order.value:.4f}"
        pairs = [
            f"{label}{self._name_of(label)} is output {output}"
            for label, output in enumerate(order.outputs)
            if output not in (-1, label)
        ]
        shown = ", ".join(pairs[:6]) + ", ..." * (len(pairs) > 6)
        return (
            f"the classes are in another order: {self._measure} is {order.value:.4f} where label {shown}; number the "
            "labels in the order of the outputs (folders are classes in the order of their names)"
        )

    def _name_of(self, label: int) -> str:
        name = self._class_names[label] if label < len(self._class_names) else str(label)
        return "" if name == str(label) else f" ({name})"

    def _scale_cause(self) -> str | None:
        """The cause if numbers correlate with labels in other units."""
        if self._measure != "r2" or not self._correlates():
            return None
        outputs, labels = self._as_rows(self._outputs), self._as_rows(self._labels)
        slope, offset = np.polyfit(outputs[:, 0], labels[:, 0], 1)
        explained = float(np.corrcoef(outputs[:, 0], labels[:, 0])[0, 1] ** 2)
        if explained < 0.5:
            return None
        return (
            f"the labels are in other units: label = {slope:.3g} output {'-' if offset < 0 else '+'} {abs(offset):.3g} "
            f"(first value) explains r2 {explained:.4f}"
        )


def _lacks_neighbors(objective: Objective, labels: np.ndarray) -> bool:
    """Whether too few classes have several images to measure nearest neighbors."""
    return objective.primary == "recall_at_1" and np.sum(np.unique(labels, return_counts=True)[1] > 1) < 2


def _whole_classes(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of about `count` images: all images of some classes with two or more."""
    classes, sizes = np.unique(labels, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[sizes[order] > 1]
    kept = order[: max(2, int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1)]
    return np.flatnonzero(np.isin(labels, classes[kept]))[: 2 * count]


def _gain(check: BaselineCheck, value: float) -> float:
    """By how much another assumption must be better to be a cause."""
    return _RANGE_GAIN if check.warning else _GAIN_ELSE + value / 4


def _range_cause(best: Alternative, measure: str) -> str:
    advice = f": give {best.settings}" if best.settings else ", which the images must be brought to"
    return f"the model takes other pixels, {best.name} ({measure} {best.value:.4f}){advice}"


def _named(orders: list[ClassOrder]) -> tuple[Alternative, ...]:
    return tuple(Alternative(order.name, order.value, outputs=order.outputs) for order in orders)
