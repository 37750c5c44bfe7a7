"""The interface between a layer rule and the graph: `RuleCall`, what a rule reads and states; the table of rules.

A rule is a function `rule(call: RuleCall) -> labels` (or a list of labels for several outputs). It moves or makes
labels and states which axes of which weights, which config entries and which arguments follow them. Surgery, masks,
costs and scores are all derived from these statements.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.ops import core
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.blocks import ResidualBlock
from dcp_tf.graph.channelwise import follows, resized
from dcp_tf.graph.identity import does_nothing
from dcp_tf.graph.labels import LabelSpace, compress, head_axis, place, varying_axes
from dcp_tf.graph.trace import BATCH_MAY_MOVE, Call

Labels = np.ndarray


Axis = int | tuple[int, ...]  # of a weight; several ones, in order, where a head and its channels lie on them


class KeptChannels:
    """Which channels stay: answers for any label array which of its positions are kept.

    Attributes:
        removed: the residual blocks that go as a whole.
    """

    def __init__(
        self,
        class_of_label: np.ndarray,
        kept_class: np.ndarray,
        head_of_label: np.ndarray | None = None,
        removed: Sequence[ResidualBlock] = (),
    ):
        self._kept = kept_class[class_of_label]
        self._heads = np.full(len(class_of_label), -1) if head_of_label is None else head_of_label
        self._kept = self._kept & ((self._heads < 0) | kept_class[self._heads])
        self.removed = tuple(removed)

    def mask(self, labels: Labels) -> np.ndarray:
        """Boolean array of the shape of `labels`."""
        return self._kept[labels]

    def count(self, labels: Labels) -> int:
        """How many positions of a label vector stay."""
        return int(self.mask(labels).sum())

    def along(self, labels: Labels, axis: int) -> np.ndarray:
        """Which positions stay along one axis of a label array (which is a full rectangle, see `close_rectangles`)."""
        return _any_along(self.mask(labels), axis)

    def counts(self, labels: Labels) -> tuple[int, ...]:
        """How many positions stay along each axis of a label array."""
        mask, heads = self.mask(labels), self._heads[labels]
        counts = [int(_any_along(mask, axis).sum()) for axis in range(mask.ndim)]
        axis = head_axis(heads) if len(varying_axes(labels)) > 1 else None
        if axis is not None and counts[axis]:  # each head may keep other channels, but all keep as many
            other = next(a for a in reversed(varying_axes(labels)) if a != axis)
            counts[other] = 1
            counts[other] = int(mask.sum()) // math.prod(counts)
        return tuple(counts)

    def take(self, array: np.ndarray, axes: dict[Axis, Labels]) -> np.ndarray:
        """`array` without the removed positions along each of `axes`."""
        for axis, labels in axes.items():
            if isinstance(axis, int):
                array = np.compress(self.mask(labels), array, axis=axis)
                continue
            front = range(len(axis))
            rows = np.moveaxis(array, axis, front)[self.mask(labels)]
            array = np.moveaxis(rows.reshape(*self.counts(labels), *rows.shape[1:]), front, axis)
        return array


def _any_along(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))


def across(axis: Axis, values: np.ndarray, rank: int) -> np.ndarray:
    """Values along an axis of a weight (or a table over several) in a shape that broadcasts against its `rank` axes."""
    axes = (axis,) if isinstance(axis, int) else axis
    return values.reshape([values.shape[axes.index(a)] if a in axes else 1 for a in range(rank)])


@dataclasses.dataclass
class Multiplication:
    """The multiply-accumulates of one weight in one call: `positions` times the size of the (sliced) weight.

    With `labels` they are that times the number of labels that stay: of those of a product of two tensors, whose
    `weight` is None, or of channels among the positions.
    """

    weight: int | None
    positions: int | None
    output_axis: int | tuple[int, ...] | None = None
    bias: bool = False
    labels: Labels | None = None


@dataclasses.dataclass
class OperationRecord:
    """What the rule stated about one operation, over all of its calls.

    Attributes:
        operation: the layer or operation.
        path: its name with the names of the enclosing models.
        weights: index in `operation.weights` -> {axis: label vector, or several axes: label array}.
        consumes: (index of the weight, axis) pairs whose slices read the channels: zero slices mean a removed channel.
        silences: by index of the weight and axis, where its slices make channels that are only multiplied with those of
            another tensor and summed up (boolean): zero slices there mean a removed pair of channels too.
        zeroed: (index of the weight, axis) pairs whose slices make channels over which a sum of squares is taken: a
            removed channel has zeros there too, so that it adds nothing to the sum.
        produces: label vectors that this operation made.
        config: config key -> function (kept, old value) -> new value.
        factors: index of the weight -> function (kept) -> what the values that stay are multiplied by.
        passes: whether channels pass its kernel along another axis, as those of a stream whose positions are mixed: it
            cannot make them zero.
        counted: whether a rule covers the operation, so that its multiplications are known.
        is_new: whether earlier versions labelled it otherwise; see `ChannelGraph.fingerprints`.
    """

    operation: keras.Operation
    path: str
    weights: dict[int, dict[Axis, Labels]] = dataclasses.field(default_factory=dict)
    consumes: list[tuple[int, Axis]] = dataclasses.field(default_factory=list)
    silences: dict[tuple[int, Axis], np.ndarray] = dataclasses.field(default_factory=dict)
    zeroed: list[tuple[int, Axis]] = dataclasses.field(default_factory=list)
    produces: dict[str, Labels] = dataclasses.field(default_factory=dict)
    config: dict[str, Callable[[KeptChannels, Any], Any]] = dataclasses.field(default_factory=dict)
    factors: dict[int, Callable[[KeptChannels], float]] = dataclasses.field(default_factory=dict)
    ties: dict[str, Labels] = dataclasses.field(default_factory=dict)
    passes: bool = False
    counted: bool = True
    is_new: bool = False

    @property
    def kernel(self) -> int:
        """The index of the weight that the layer calls its kernel; -1 if there is none."""
        kernel = getattr(self.operation, "kernel", None)
        return next((i for i, weight in enumerate(getattr(self.operation, "weights", ())) if weight is kernel), -1)


def kept_shape(record: OperationRecord, index: int, kept: KeptChannels) -> tuple[int, ...]:
    """The shape of a weight in the rebuilt model."""
    shape = list(record.operation.weights[index].shape)
    for axis, labels in record.weights.get(index, {}).items():
        axes = (axis,) if isinstance(axis, int) else axis
        for a, count in zip(axes, kept.counts(labels), strict=True):
            shape[a] = count
    return tuple(shape)


@dataclasses.dataclass(eq=False)
class RuleCall:
    """One call of an operation, as its rule reads it and states facts about it.

    Attributes:
        operation: the layer or operation.
        inputs: label arrays of the tensor arguments, one for each, with the batch axis.
        input_shapes: shapes of the tensor arguments, with the batch axis; None if unknown.
        output_shapes: shapes of the outputs.
        ignore_statistics: whether channels may be removed although a layer takes statistics over them.
        as_earlier: whether to label as earlier versions did, which knew plans of the model by that.
        batch_axis: of the tensor arguments; 0 but for what `BATCH_MAY_MOVE` reads.
    """

    call: Call
    record: OperationRecord
    _space: LabelSpace
    inputs: list[Labels]
    input_shapes: list[tuple]
    output_shapes: list[tuple]
    ignore_statistics: bool = False
    _silence: Callable[[int], bool] = lambda tensor: False
    _zero: Callable[[int], str | None] = lambda tensor: "something else"
    batch_axis: int = 0
    as_earlier: bool = False
    multiplications: list[Multiplication] = dataclasses.field(default_factory=list)
    arguments: dict[int | str, tuple[Callable, Labels]] = dataclasses.field(default_factory=dict)
    residual: list[Labels] = dataclasses.field(default_factory=list)
    recurrent: list[Labels] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.operation: keras.Operation = self.call.operation

    # Labels

    def table(self, which: int, axes: Sequence[int], others: bool = False) -> Labels:
        """The labels of input `which` along some axes as an array of their sizes; ties them along all other axes.

        Labels that lie along none of the axes are pinned, unless the rule keeps `others`.
        """
        rows, shape = self.rows(self.inputs[which], axes, others), self.input_shapes[which]
        sizes = [n if shape[axis] is None else shape[axis] for axis, n in zip(axes, rows.shape, strict=True)]
        return np.broadcast_to(rows, sizes)

    def rows(self, labels: Labels, axes: Sequence[int], others: bool = False) -> Labels:
        """Labels along some axes, tied along all others; see `table`."""
        factors = self._space.factors(labels)
        along = [x for x in factors if any(x.shape[axis] > 1 for axis in axes)]
        if len(along) == 1:
            for factor in () if others else factors:
                if factor is not along[0]:
                    self.pin(factor, f"{self.call.path} reads channels along another axis")
            labels = along[0]
        rows = np.moveaxis(labels, axes, range(-len(axes), 0))
        rows = rows.reshape(-1, *rows.shape[-len(axes) :])
        self._space.tie(rows[:1], rows)
        return rows[0]

    def apart(self, which: int, axes: Sequence[int]) -> list[Labels]:
        """The labels of input `which` that lie along other axes than some: of each such axis or table of axes."""
        factors = self._space.factors(self.inputs[which])
        return [x for x in factors if varying_axes(x) and all(x.shape[axis] == 1 for axis in axes)]

    def plainer(self, a: Labels, b: Labels) -> Labels:
        """That of two tied arrays which lies along fewer axes of channels."""
        return min((a, b), key=lambda labels: len(self._space.factors(labels)))

    def cross(self, a: Labels, b: Labels) -> Labels:
        """Labels of positions that stay where both `a` and `b` (broadcast) stay; neither may be made by this."""
        return self._space.cross(a, b)

    def channels(self, which: int, axis: int, others: bool = False) -> Labels:
        """Returns the labels of input `which` along `axis` as a vector and ties them along all other axes.

        Args:
            which: of the tensor arguments.
            axis: of the channels.
            others: whether the output has the labels that lie along other axes only; else those are pinned.

        Returns:
            A vector with one label per position, shape (size of the axis,).
        """
        labels, size = self.rows(self.inputs[which], (axis,), others), self.input_shapes[which][axis]
        return np.broadcast_to(labels, (size if size is not None else len(labels),))

    def fresh(self, count: int, key: str = "output") -> Labels:
        """Labels for `count` channels that this operation creates: the same ones at each of its calls."""
        if key not in self.record.produces:
            self.record.produces[key] = self._space.fresh(count)
        return self.record.produces[key]

    def unnamed(self, count: int) -> Labels:
        """Labels of channels that always stay and belong to no group."""
        return self._space.fresh(count)

    def place(self, vector: Labels, axis: int, output: int = 0) -> Labels:
        """Labels of an output that change along `axis` only."""
        return place(vector, axis, len(self.output_shapes[output]))

    def tie(self, a: Labels, b: Labels) -> None:
        """Ties the channels `a` and `b`: they stay or go together."""
        self._space.tie(a, b)

    def part(self, labels: Labels) -> None:
        """States that an output holds only `labels`, a part of its input: one of them must stay."""
        self._space.part(labels)

    def pin(self, labels: Labels, reason: str) -> None:
        """Pins `labels`: they can never be removed, for the given reason (a clause that names this operation)."""
        self._space.pin(labels, reason)

    def stays(self, labels: Labels) -> bool:
        """Whether all of some labels are pinned already."""
        return bool(np.isin(labels, np.concatenate([pinned for pinned, _ in self._space.pins])).all())

    def opaque(self, why: str) -> list[Labels]:
        """Pins all inputs and gives every output one label that is pinned too."""
        name = f"{self.call.path} ({type(self.operation).__name__})"
        for labels in self.inputs:
            self.pin(labels, f"it is read by {name}, {why}")
        outputs = []
        for shape in self.output_shapes:
            label = self._space.fresh(1)
            self.pin(label, f"it is made by {name}, {why}")
            outputs.append(label.reshape([1] * len(shape)))
        self.record.counted = False
        return outputs

    # What follows the labels

    def weight(self, weight: str | keras.Variable, axes: dict[Axis, Labels]) -> int:
        """States that axes of a weight follow label vectors.

        Args:
            weight: the variable, or the attribute of the layer that holds it (None there: nothing to do).
            axes: axis (negative ones count from the end) -> label vector of the axis' length; or a tuple of axes that
                follow each other -> label array of their lengths.

        Returns:
            The index of the weight in `operation.weights`, -1 if there is none.
        """
        variable = getattr(self.operation, weight) if isinstance(weight, str) else weight
        if variable is None:
            return -1
        # A wrapper lists the weights of the layer inside of it, whose rule this may be.
        index = next((i for i, v in enumerate(self.record.operation.weights) if v is variable), None)
        if index is None:
            raise ValueError(
                f"{self.call.path}: {weight!r} is not one of the weights of {type(self.operation).__name__}"
            )
        axis_labels = self.record.weights.setdefault(index, {})
        for axis, labels in axes.items():
            axis = _from_front(axis, len(variable.shape))
            sizes = tuple(variable.shape[a] for a in ((axis,) if isinstance(axis, int) else axis))
            if labels.shape != sizes:
                has, gave = (" x ".join(map(str, shape)) for shape in (sizes, labels.shape))
                raise ValueError(
                    f"{self.call.path}: axis {axis} of {variable.path} has {has} positions, its rule gave {gave}"
                )
            self._space.tie(axis_labels.setdefault(axis, labels), labels)
        return index

    def consume(self, weight: str | keras.Variable, axis: Axis, labels: Labels) -> int:
        """Like `weight`, for the axis that reads input channels: zeros there remove a channel's effect."""
        index = self.weight(weight, {axis: labels})
        axis = _from_front(axis, len(self.record.operation.weights[index].shape))
        if (index, axis) not in self.record.consumes:
            self.record.consumes.append((index, axis))
        return index

    def factor(self, weight: str, value: Callable[[KeptChannels], float]) -> None:
        """States that what stays of a weight is multiplied by a number, such as one that a count of channels changes.

        Args:
            weight: the attribute of the layer that holds it.
            value: a function (kept) -> the factor; 1 where all channels stay.
        """
        self.record.factors[self.weight(weight, {})] = value

    def zero(self, which: int) -> str | None:
        """States that a removed channel of input `which` is zero where it is made: a sum of squares does not see it.

        Returns:
            None if kernels and their like make the channels, else the name of what makes them and has no zeros.
        """
        return self._zero(self.call.inputs[which])

    def within(self, labels: Labels, heads: Labels) -> None:
        """States that `labels` lie in attention heads (broadcast against each other): a head goes with all of them."""
        self._space.within(labels, heads)

    def in_all_heads(self, alike: Labels, heads: Labels, table: Labels | None = None) -> Labels:
        """Labels of a table of heads and what lies in each of them: of each the channels `alike`.

        Args:
            alike: labels that lie in no head.
            heads: labels of the heads.
            table: labels that are known already.

        Returns:
            Labels with the axes of the heads, then those of the channels.
        """
        if table is None:
            table = self.unnamed(heads.size * alike.size).reshape(*heads.shape, *alike.shape)
        self.tie(table, alike)
        self.within(table, heads.reshape(*heads.shape, *(1 for _ in alike.shape)))
        self._space.in_all_heads.append(alike)
        return table

    def config(
        self, key: str, value: Labels | Callable[[KeptChannels, Any], Any], depends_on: Labels | None = None
    ) -> None:
        """States how an entry of the config changes.

        Args:
            key: the key of `get_config()`.
            value: a label vector (the entry becomes the number of labels that stay) or a function (kept, old) -> new.
            depends_on: the labels that a function looks at; several calls of one layer tie them.
        """
        labels = depends_on if callable(value) else value
        self.alike(self.record.ties.setdefault(key, labels), labels)
        self.record.config.setdefault(key, value if callable(value) else lambda kept, _old: kept.count(labels))

    def argument(self, key: int | str, change: Callable[[KeptChannels, Any], Any], depends_on: Labels) -> None:
        """States how a constant argument of this call changes.

        Args:
            key: number of the positional argument, or name of the keyword argument.
            change: a function (kept, old) -> new.
            depends_on: the labels that the function looks at; calls that come from one node tie them.
        """
        self.arguments[key] = (change, depends_on)

    def alike(self, first: Labels, second: Labels) -> None:
        """Ties label arrays that two calls of one operation follow, or pins both if their shapes differ."""
        if first is second:
            return
        if first.shape == second.shape:
            self._space.tie(first, second)
            return
        for labels in (first, second):
            self.pin(labels, f"{self.call.path} is shared between tensors of different layouts")

    def multiplies(
        self,
        weight: int,
        positions: int | None,
        output_axis: int | tuple[int, ...] | None = None,
        bias: bool = False,
        labels: Labels | None = None,
    ) -> None:
        """States that every entry of a weight is multiplied `positions` times in this call, for the costs.

        Args:
            weight: index of the weight, as `weight` and `consume` return it.
            positions: how many; None if a spatial size is unknown.
            output_axis: the axis or axes of the weight that count output channels (for the papers' FLOPs).
            bias: whether a bias is added.
            labels: of positions among which some may go: there are `positions` for each of them.
        """
        self.multiplications.append(Multiplication(weight, positions, output_axis, bias, labels))

    def multiplies_tensors(self, labels: Labels, positions: int | None) -> None:
        """States that two tensors are multiplied: each of the channels `labels` at so many pairs of positions."""
        self.multiplications.append(Multiplication(None, positions, labels=labels))

    def silence(self, which: int) -> bool:
        """States that zeros in the kernel that makes input `which` remove its channels from a sum of products.

        Returns:
            Whether there is such a kernel: that of a linear layer whose outputs were only moved or scaled since.
        """
        return self._silence(self.call.inputs[which])


def _from_front(axis: Axis, rank: int) -> Axis:
    return axis % rank if isinstance(axis, int) else tuple(a % rank for a in axis)


Rule = Callable[[RuleCall], Labels | Sequence[Labels]]
_RULES: dict[type | str, Rule] = {}
_DESCRIPTIONS = {"get_config", "from_config", "compute_output_shape", "compute_output_spec", "compute_mask"}


def register_rule(*operation_classes: type | str) -> Callable[[Rule], Rule]:
    """Registers a label rule for layer classes, custom ones included.

    Example:
        A layer that scales each channel by a weight `gamma` and has no other setting:

        >>> @dcp_tf.register_rule(LayerScale)
        ... def layer_scale(call):
        ...     channels = call.channels(0, axis=-1)
        ...     call.weight("gamma", {0: channels})
        ...     return call.inputs[0]

    Args:
        *operation_classes: the classes that the rule is for, or "module.Class" where a module may not be installed. A
            subclass has the rule too, unless it overrides a method.

    Returns:
        A decorator that returns the rule itself.
    """

    def register(rule: Rule) -> Rule:
        for operation_class in operation_classes:
            _RULES[operation_class] = rule
        return rule

    return register


def keeps_zeros(call: Call) -> bool:
    """Whether an operation only moves or scales the values of its first input: zeros stay zeros, wherever they are."""
    operation = call.operation
    if isinstance(operation, _MOVES):
        return True
    if isinstance(operation, (numpy_ops.Multiply, numpy_ops.Divide, numpy_ops.TrueDivide)):
        first, second = call.arguments[:2]
        return isinstance(first, keras.KerasTensor) and np.ndim(second) == 0 and len(call.inputs) == 1
    return False


_MOVES = (
    *(keras.layers.Reshape, keras.layers.Permute, keras.layers.Identity, keras.layers.Dropout),
    *(numpy_ops.Reshape, numpy_ops.Transpose, numpy_ops.Swapaxes, numpy_ops.Moveaxis, numpy_ops.Squeeze),
    *(numpy_ops.ExpandDims, numpy_ops.GetItem, numpy_ops.Split, numpy_ops.Take, core.Unstack),
)


def find_rule(operation: keras.Operation) -> Rule | None:
    """The rule for an operation, or None."""
    for base in type(operation).__mro__:
        rule = _RULES.get(base) or _RULES.get(f"{base.__module__}.{base.__qualname__}")
        if rule is not None:
            return None if _overrides(type(operation), base) else rule
    return None


@functools.cache
def _overrides(kind: type, base: type) -> bool:
    """Whether `kind` computes something other than its base class: it overrides a method that is not a description.

    Keras names `convolution_op` and others as extension points, so `call` is not the only one that matters.
    """
    between = kind.__mro__[: kind.__mro__.index(base)]
    names = {name for cls in between for name in vars(cls) if name == "__call__" or not name.startswith("__")}
    return any(callable(getattr(base, name, None)) for name in names - _DESCRIPTIONS)


def _altered(operation: keras.Operation) -> bool:
    """Whether the layer has other weights than its class describes: quantized ones, or LoRA weights."""
    return bool(getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False))


def _without_rule(call: RuleCall) -> Labels | Sequence[Labels]:
    """A custom layer that does nothing or treats each channel alone, found by a trial, needs no rule; others pin."""
    if does_nothing(call.operation, call.input_shapes, call.output_shapes):
        return call.inputs
    alone = len(call.inputs) == len(call.output_shapes) == 1 and call.batch_axis == 0 and not call.as_earlier
    axes = varying_axes(call.inputs[0]) if alone else []
    found = follows(call.operation, call.input_shapes[0], call.output_shapes[0], axes[0]) if len(axes) == 1 else None
    if found is None:
        return call.opaque("for which there is no rule")
    call.record.is_new = True
    labels = call.channels(0, axes[0])
    for index, axis in found.weights.items():
        weight = call.operation.weights[index]
        call.weight(weight, {axis: labels})
        sizes = zip(reversed(weight.shape), reversed(call.input_shapes[0]), strict=False)
        # Another weight, as a depthwise kernel, is multiplied with each position.
        call.record.counted &= all(n in (1, size) for n, size in sizes) and len(weight.shape) <= len(
            call.input_shapes[0]
        )
    for key in found.config:
        call.config(key, lambda kept, old: resized(old, len(labels), kept.count(labels)), depends_on=labels)
    if found.takes_statistics and not call.ignore_statistics:
        call.pin(labels, f"{call.call.path} ({type(call.operation).__name__}) takes statistics over the channels")
    return call.place(labels, axes[0])


def run_rule(call: RuleCall) -> list[Labels]:
    """Runs the operation's rule (without one it is opaque) and returns compressed labels, one array per output."""
    rule = find_rule(call.operation)
    if rule is None:
        outputs = _without_rule(call)
    elif call.batch_axis and not isinstance(call.operation, BATCH_MAY_MOVE):
        outputs = call.opaque("which reads a tensor whose batch axis was moved")
    elif _altered(call.operation):
        outputs = call.opaque("which is quantized or has LoRA weights")
    else:
        outputs = rule(call)
    if isinstance(outputs, np.ndarray):
        outputs = [outputs]
    return [compress(labels) for labels in outputs]
