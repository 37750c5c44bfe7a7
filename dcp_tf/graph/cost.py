"""Parameters, multiply-accumulates and FLOPs of a model, as it is or as a plan would leave it."""

import collections
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from dcp_tf.errors import UsageError
from dcp_tf.graph.blocks import replaced_tensors, without_calls
from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import KeptChannels, Multiplication, OperationRecord, kept_shape
from dcp_tf.text_table import ShownAsTables, Table, print_tables

_STATISTICS = {
    keras.layers.BatchNormalization: ("moving_mean", "moving_variance"),
    keras.layers.Normalization: ("adapt_mean", "adapt_variance", "count"),
}


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """The cost of one layer over all of its calls, for one image."""

    path: str
    kind: str
    params: int
    macs: int | None
    flops: int | None


@dataclasses.dataclass(frozen=True)
class Cost(ShownAsTables):
    """The cost of a model for one image.

    Attributes:
        params: weights, BatchNorm's gamma and beta among them, its moving statistics not (as the papers count; Keras'
            `count_params()` counts them too).
        macs: multiply-accumulates of convolutions, fully connected and recurrent layers, and of products of tensors
            such as those of attention; None if sizes are open.
        flops: the papers' count: (2 * kh * kw * C_in / groups - [no bias]) * H_out * W_out * C_out for a convolution,
            2 * C_in * C_out for a fully connected layer (Liu et al. 2021, tables).
        layers: one entry per operation with parameters or multiplications.
        uncounted: paths of operations with weights that no rule covers: their multiplications are missing here.
        activations: the largest number of values in memory at one time (inputs and outputs of the running operation,
            and what later ones still need); None if an image size is unknown.
    """

    params: int
    macs: int | None
    flops: int | None
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...]
    activations: int | None

    @property
    def bytes(self) -> int:
        """What the weights take as float32; a TFLite file adds its graph to that."""
        return 4 * self.params

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the cost of each layer and of the whole."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        rows = [(x.path, x.kind, x.params, x.macs, x.flops) for x in self.layers]
        columns = ("layer", "kind", "parameters", "MACs", "FLOPs")
        return [Table("cost of one sample", columns, [*rows, ("all", "", self.params, self.macs, self.flops)])]

    def __repr__(self) -> str:
        figures = {"parameters": self.params, "MACs": self.macs, "FLOPs": self.flops}
        shown = ", ".join(f"{'?' if value is None else f'{value:,}'} {name}" for name, value in figures.items())
        return f"<Cost {shown}, {len(self.layers)} layers>"


def count_cost(
    model: keras.Model | ChannelGraph,
    kept: KeptChannels | None = None,
    input_shape: tuple | None = None,
    open_sizes: bool = False,
) -> Cost:
    """Counts a model's cost without running it.

    Args:
        model: a functional model, or its graph.
        kept: counts the rebuilt model, from `ChannelGraph.kept`, without building it.
        input_shape: the shape of one input image, where the model leaves its size open and has one input.
        open_sizes: takes models whose sizes are open: their multiply-accumulates are None then.

    Returns:
        The cost for one image.

    Raises:
        UsageError: a size that is needed is unknown, or one shape was given for several inputs.
    """
    if not isinstance(model, ChannelGraph):
        if input_shape is not None and len(model.inputs) != 1:
            raise UsageError(
                f"{model.name!r} has {len(model.inputs)} inputs and one input_shape was given: "
                "make a ChannelGraph with input_shapes, one for each input, and count that"
            )
        model = ChannelGraph(model, None if input_shape is None else [(None, *input_shape)])
    kept = model.kept({}) if kept is None else kept
    if not isinstance(kept, KeptChannels):
        raise UsageError(
            f"kept must be what ChannelGraph.kept gives, received {kept!r:.80}; shapes are input_shape=..."
        )
    gone = removed_operations(model, kept)
    records = {key: record for key, record in model.records.items() if key not in gone}
    macs, flops = dict.fromkeys(records, 0), dict.fromkeys(records, 0)
    for record, call, multiplications in model.multiplications:
        if id(record.operation) in gone:
            continue
        key = id(record.operation)
        for multiplication in multiplications:
            if multiplication.positions is None and not open_sizes:
                raise UsageError(
                    f"the output size of {call.path!r} is unknown; state the shape of one input, such as "
                    "input_shape=(224, 224, 3)",
                    setting="input_shape",
                )
            call_macs, call_flops = _multiply(record, multiplication, kept)
            macs[key], flops[key] = _sum(macs[key], call_macs), _sum(flops[key], call_flops)
    layers = [
        LayerCost(record.path, type(record.operation).__name__, count_params(record, kept), macs[key], flops[key])
        for key, record in records.items()
    ]
    return Cost(
        sum(c.params for c in layers),
        _sum(*macs.values()),
        _sum(*flops.values()),
        tuple(c for c in layers if c.params or c.macs),
        tuple(r.path for r in records.values() if not r.counted and getattr(r.operation, "weights", ())),
        count_activations(model, kept),
    )


def layer_widths(graph: ChannelGraph, kept: KeptChannels) -> list[dict[str, Any]]:
    """Each layer with a kernel, in the order in which they run: its output channels and MACs before and after.

    Returns:
        Of each layer `layer` (its path), `kind`, `before`, `after`, `macs_before` and `macs_after`.
    """
    macs = [{x.path: x.macs for x in count_cost(graph, k, open_sizes=True).layers} for k in (graph.kept({}), kept)]
    rows, gone = {}, removed_operations(graph, kept)
    for record, call, _ in graph.multiplications:
        if all(len(weight.shape) < 2 for weight in getattr(record.operation, "weights", ())):
            continue
        labels = graph.labels[call.outputs[0]]
        axis = max(varying_axes(labels), default=labels.ndim - 1)
        rows[record.path] = {
            "layer": record.path,
            "kind": type(record.operation).__name__,
            "before": labels.shape[axis],
            "after": 0 if id(record.operation) in gone else kept.counts(labels)[axis],
            "macs_before": macs[0].get(record.path),
            "macs_after": 0 if id(record.operation) in gone else macs[1].get(record.path),
        }
    return list(rows.values())


def removed_operations(graph: ChannelGraph, kept: KeptChannels) -> set[int]:
    """The `id()` of the operations that go with whole blocks."""
    return {id(graph.trace.calls[index].operation) for index in without_calls(kept.removed)}


def _sum(*counts: int | None) -> int | None:
    """The sum of counts; None if one of them is unknown."""
    return None if None in counts else sum(counts)


def count_activations(graph: ChannelGraph, kept: KeptChannels) -> int | None:
    """The peak number of values alive while the calls run in the order of the trace, for one image."""
    trace = graph.trace
    if any(None in trace.sizes(t) for t in range(len(trace.shapes))) or None in trace.rows:
        return None
    sizes = [int(trace.rows[t] * _values(graph, t, kept)) for t in range(len(trace.shapes))]
    gone, replaced = without_calls(kept.removed), replaced_tensors(kept.removed)
    running = [(index, call) for index, call in enumerate(trace.calls) if index not in gone]
    last_use = {replaced.get(t, t): index for index, call in running for t in (*call.outputs, *call.inputs)}
    last_use.update(dict.fromkeys((replaced.get(t, t) for t in trace.outputs), len(trace.calls)))
    ending = collections.defaultdict(list)
    for tensor, index in last_use.items():
        ending[index].append(tensor)
    alive = peak = sum(sizes[t] for t in trace.inputs)
    for index, call in running:
        alive += sum(sizes[t] for t in call.outputs)
        peak = max(peak, alive)
        alive -= sum(sizes[t] for t in ending[index])
    return peak


def _values(graph: ChannelGraph, tensor: int, kept: KeptChannels) -> int:
    """The values of one tensor for one image, without the removed channels."""
    labels, batch_axis = graph.labels[tensor], graph.trace.batch_axes[tensor]
    counts = kept.counts(labels)
    along_channels = {axis: counts[axis] for axis in varying_axes(labels)}
    sizes = enumerate(graph.trace.shapes[tensor])
    return math.prod(along_channels.get(axis, size) for axis, size in sizes if axis != batch_axis)


def count_params(record: OperationRecord, kept: KeptChannels) -> int:
    """The parameters of one operation in the rebuilt model, statistics left out."""
    weights = getattr(record.operation, "weights", ())
    counted = [i for i, w in enumerate(weights) if not is_statistic(record.operation, w)]
    return sum(math.prod(kept_shape(record, i, kept)) for i in counted)


def is_statistic(operation: keras.Operation, weight: keras.Variable) -> bool:
    """Whether a weight was measured on data, not trained: the papers do not count those."""
    names = next((n for kind, n in _STATISTICS.items() if isinstance(operation, kind)), ())
    return any(weight is getattr(operation, name, None) for name in names)


def _multiply(
    record: OperationRecord, multiplication: Multiplication, kept: KeptChannels
) -> tuple[int | None, int | None]:
    """MACs and FLOPs; None, None if the number of positions is unknown."""
    positions, axes = multiplication.positions, multiplication.output_axis
    if positions is None:
        return None, None
    if multiplication.labels is not None:
        positions *= int(kept.mask(multiplication.labels).sum())
    if multiplication.weight is None:
        return positions, 2 * positions
    shape = kept_shape(record, multiplication.weight, kept)
    macs = positions * math.prod(shape)
    if multiplication.bias or axes is None:
        return macs, 2 * macs
    return macs, 2 * macs - positions * math.prod(shape[axis] for axis in ([axes] if isinstance(axes, int) else axes))
