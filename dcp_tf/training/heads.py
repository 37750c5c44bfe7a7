"""Auxiliary classifiers: their positions, the model augmented with them, and whether they learned anything."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.trace import Trace
from dcp_tf.models.signature import pack
from dcp_tf.training.losses import Loss

if TYPE_CHECKING:
    from dcp_tf.training.objectives import Objective


@dataclasses.dataclass(frozen=True)
class Position:
    """A position for an auxiliary classifier.

    Attributes:
        tensor: number of the traced tensor that the classifier reads.
        layer: path of the operation that produces it.
        depth: the number of layers with kernels before it.
        names: of the outputs that the classifier serves, where the model has several.
    """

    tensor: int
    layer: str
    depth: int
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class AugmentedModel:
    """A model with auxiliary classifier outputs.

    Attributes:
        model: outputs are those of the heads, shallow to deep, and last the model's own (after its loss head). It
            shares its layers with the model that it was made from.
        positions: of the heads.
        heads: the classifiers, from feature maps to outputs.
        depth: the number of layers with kernels in the whole model, the depth of its own loss.
        loss_head: from the model's output to the input of its loss, such as the classes of an embedding; or None.
    """

    model: keras.Model
    positions: tuple[Position, ...]
    heads: tuple[keras.Model, ...]
    depth: int
    loss_head: keras.Model | None = None

    def losses(self, objective: "Objective") -> list[Loss]:
        """The losses of the heads, and last the model's own."""
        return [*(objective.head_loss_of(position.names) for position in self.positions), objective.loss]

    def describe_positions(self, outputs: int = 1) -> str:
        """The layers of the heads, with the outputs that they serve unless they serve all of so many."""
        served = [f" (for {', '.join(p.names)})" if 0 < len(p.names) < outputs else "" for p in self.positions]
        return ", ".join(p.layer + names for p, names in zip(self.positions, served, strict=True))

    def loss_weights(self) -> list[float]:
        """`gamma_k = max(0.01, (L_k / L_K)^2)` with the depth L_k of head k (Guo et al., arXiv:1611.01773)."""
        return [max(0.01, (position.depth / self.depth) ** 2) for position in self.positions] + [1.0]


def augment(
    graph: ChannelGraph,
    count: int,
    objective: "Objective",
    at: Sequence[str] = (),
    data_format: str = "channels_last",
    loss_head: keras.Model | None = None,
) -> AugmentedModel:
    """Adds auxiliary classifiers to a model (Liu et al. 2021, eq. 3 and 4).

    Of several outputs a head serves those that depend on its feature map and whose kind it can predict: vectors from
    vectors and maps, maps from maps of their rank. It has one output for each.

    Args:
        graph: of the model; its layers are shared with the result.
        count: how many heads to spread over the depth; fewer if the model has fewer positions.
        objective: makes the heads.
        at: names of layers whose outputs the heads read, instead of `count`.
        data_format: of the feature maps.
        loss_head: from the model's output to the input of its loss; None: the output itself.

    Returns:
        The augmented model; its heads are untrained.

    Raises:
        UsageError: an output is one number per image, or a named layer cannot carry a head.
    """
    trace = graph.trace
    positions = find_positions(graph, count, objective, at)
    shape = pack([trace.shapes[t] for t in trace.outputs])
    heads = tuple(
        objective.head(f"auxiliary_{i}", trace.shapes[p.tensor], shape, data_format, *([p.names] if p.names else []))
        for i, p in enumerate(positions, start=1)
    )
    closed, number = trace.closed()  # the model's own layers, each under its own name
    inputs = {t: keras.Input(batch_shape=closed.shapes[t], dtype=closed.dtype(t)) for t in closed.inputs}
    values = closed.run(inputs, [*(number[p.tensor] for p in positions), *closed.outputs])
    outputs = [head(values[number[p.tensor]]) for head, p in zip(heads, positions, strict=True)]
    final = closed.pack_outputs(values)
    outputs.append(final if loss_head is None else loss_head(final))
    model = keras.Model(pack(list(inputs.values())), outputs, name=f"{trace.model.name}_augmented")
    return AugmentedModel(model, positions, heads, max(_depths(graph).values()), loss_head)


def find_positions(
    graph: ChannelGraph, count: int, objective: "Objective", at: Sequence[str] = ()
) -> tuple[Position, ...]:
    """The positions of the heads of `augment`, shallow to deep; arguments and errors are the same."""
    trace = graph.trace
    shapes = [trace.shapes[t] for t in trace.outputs]
    if any(len(shape) < 2 for shape in shapes):
        raise UsageError(f"auxiliary classifiers need outputs of shape (batch, ..., values), the model has {shapes}")
    served, depths = _Served(trace, objective), _depths(graph)
    return _named(trace, depths, at, served) if at else _spread(trace, depths, count, served)


class _Served:
    """Which outputs a head at a tensor can serve."""

    def __init__(self, trace: Trace, objective: "Objective"):
        self._trace = trace
        parts = getattr(objective, "parts", [("", objective, 1.0)])
        if len(parts) != len(trace.outputs):
            raise UsageError(
                f"the model has {len(trace.outputs)} outputs; auxiliary classifiers need an objective of each"
            )
        ranks = [part.head_ranks(len(trace.shapes[t])) for (_, part, _), t in zip(parts, trace.outputs, strict=True)]
        self._outputs = list(zip([name for name, *_ in parts], ranks, strict=True))
        self._before = [set(trace.needed([t], trace.inputs)) for t in trace.outputs] if len(parts) > 1 else []

    def names(self, tensor: int) -> tuple[str, ...] | None:
        """Names of the outputs, empty for the only one; None if there is none."""
        rank = len(self._trace.shapes[tensor])
        if not self._before:
            return () if rank in self._outputs[0][1] else None
        call = self._trace.producer[tensor]
        served = zip(self._outputs, self._before, strict=True)
        return tuple(name for (name, ranks), before in served if rank in ranks and call in before) or None


def _depths(graph: ChannelGraph) -> dict[int, int]:
    """Per call index the most layers with kernels on a path to its outputs, its own included."""
    reading = {id(record.operation) for record in graph.records.values() if record.consumes}
    of_tensor: dict[int, int] = {}
    depths = {}
    for index, call in enumerate(graph.trace.calls):
        depth = max((of_tensor.get(t, 0) for t in call.inputs), default=0)
        depths[index] = depth + (id(call.operation) in reading)
        of_tensor.update(dict.fromkeys(call.outputs, depths[index]))
    return depths


def bottlenecks(trace: Trace) -> list[int]:
    """Indices of the calls with one output that every path to the model's outputs passes through."""
    last_use = {t: index for index, call in enumerate(trace.calls) for t in call.inputs}
    last_use.update(dict.fromkeys(trace.outputs, len(trace.calls)))
    live = set(trace.inputs)
    indices = []
    for index, call in enumerate(trace.calls):
        live |= set(call.outputs)
        live = {t for t in live if last_use.get(t, -1) > index}
        if live == set(call.outputs) and not call.is_inside:
            indices.append(index)
    return indices


def _candidates(trace: Trace, depths: dict[int, int], served: _Served, indices: Sequence[int]) -> list[Position]:
    """The outputs of the calls in `indices` that can carry a head for the most outputs.

    Vectors are among them only if there are no feature maps.
    """
    total = max(depths.values(), default=0)
    positions = [
        Position(call.outputs[0], call.path, depths[index], names)
        for index in indices
        for call in [trace.calls[index]]
        for names in [served.names(call.outputs[0])]
        if 0 < depths[index] < total and _one_row(trace, call.outputs[0]) and names is not None
    ]
    most = max((len(p.names) for p in positions), default=0)
    positions = [p for p in positions if len(p.names) == most]
    maps = [p for p in positions if len(trace.shapes[p.tensor]) > 2]
    return maps or positions


def _one_row(trace: Trace, tensor: int) -> bool:
    """Whether each image has one row of the batch, as its label has; windows or steps as rows have more."""
    return trace.rows[tensor] in (None, 1) and trace.batch_axes[tensor] == 0


def _spread(trace: Trace, depths: dict[int, int], count: int, served: _Served) -> tuple[Position, ...]:
    """Evenly by blocks, as in the papers: `step = blocks // (P + 1) + 1`, positions `min(step * i, blocks - 1)`.

    A block ends at a merge that every path passes through; if there are too few of these, at each layer with a kernel.
    A net with skips from its encoder to its decoder has few tensors that every path passes through, as have nets with
    several inputs or outputs. If its outputs are maps or several, or its inputs are, heads may read other tensors too.
    """
    positions = _evenly(trace, _candidates(trace, depths, served, bottlenecks(trace)), count)
    has_branches = len(trace.inputs) > 1 or len(trace.outputs) > 1
    if len(positions) < count and (has_branches or len(trace.shapes[trace.outputs[0]]) > 2):
        ones = [i for i, c in enumerate(trace.calls) if len(c.outputs) == 1 and not c.is_inside]
        others = _candidates(trace, depths, served, ones)
        positions = max(positions, _evenly(trace, sorted(others, key=lambda p: p.depth), count), key=len)
    return positions


def _evenly(trace: Trace, candidates: list[Position], count: int) -> tuple[Position, ...]:
    merges = [p for p in candidates if len(trace.calls[trace.producer[p.tensor]].inputs) > 1]
    last_of_depth = list({p.depth: p for p in candidates}.values())
    blocks = merges if len(merges) > count else last_of_depth
    step = len(blocks) // (count + 1) + 1
    numbers = sorted({min(step * i, len(blocks) - 1) for i in range(1, count + 1)} - {0, -1})
    return tuple(blocks[number - 1] for number in numbers)


def _named(trace: Trace, depths: dict[int, int], names: Sequence[str], served: _Served) -> tuple[Position, ...]:
    by_path = {call.path: index for index, call in enumerate(trace.calls) if not call.is_inside}
    positions = []
    for name in names:
        if name not in by_path:
            raise UsageError(
                f"the model has no layer {name!r} to put an auxiliary classifier at; inspect_model --layers lists them"
            )
        call = trace.calls[by_path[name]]
        shape, outputs = trace.shapes[call.outputs[0]], served.names(call.outputs[0])
        if len(call.outputs) != 1 or outputs is None or not _one_row(trace, call.outputs[0]):
            raise UsageError(f"layer {name!r} cannot carry an auxiliary classifier: its output is {shape}")
        positions.append(Position(call.outputs[0], name, depths[by_path[name]], outputs))
    return tuple(sorted(positions, key=lambda p: p.depth))


def block_ends(graph: ChannelGraph) -> list[int]:
    """Indices of the calls that end a block, shallow to deep.

    Such a call is a merge that every path passes through, before the activation that may follow, or without a merge the
    last call that every path passes through before the next kernel. If skips span most of the depth, as from an encoder
    to its decoder, every merge ends a block too.
    """
    trace, depths = graph.trace, _depths(graph)
    passed = [i for i in bottlenecks(trace) if depths[i]]
    outer = [(i, call) for i, call in enumerate(trace.calls) if not call.is_inside]
    merges = [i for i, call in outer if len(set(call.inputs)) > 1 and len(call.outputs) == 1]
    ends = {depths[i]: i for i in passed} | {depths[i]: i for i in passed if i in merges}
    if 4 * len(ends) < max(depths.values(), default=0):
        ends = {depths[i]: i for i in merges if depths[i]} | ends
    return sorted(ends.values())
