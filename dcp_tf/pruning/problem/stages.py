"""The units that Algorithm 2 selects in turn: the channels of a group, or the kernels of a layer, stage by stage."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup, OperationRecord
from dcp_tf.graph.kinds import layers_of
from dcp_tf.models.signature import pack
from dcp_tf.pruning.problem.consumers import Consumer
from dcp_tf.training import Objective
from dcp_tf.training.heads import AugmentedModel


@dataclasses.dataclass(frozen=True, eq=False)
class StageLoss:
    """The discrimination-aware loss of a stage.

    Attributes:
        tensors: numbers of the traced tensors that `outputs` reads.
        outputs: from that tensor, or the tuple of several, to what the loss compares with labels: an auxiliary
            classifier, or the identity for the model's own outputs.
        loss: from labels and outputs to a scalar mean.
    """

    tensors: tuple[int, ...]
    outputs: Callable[[Any], Any]
    loss: Callable[[Any, Any], tf.Tensor]

    def outputs_from(self, values: Mapping[int, tf.Tensor]) -> Any:
        """What the loss compares with labels, from the values of traced tensors by number."""
        return self.outputs(pack([values[tensor] for tensor in self.tensors]))


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """One problem of Algorithm 2.

    Attributes:
        name: of the group or of the layer.
        size: channels of the group, or input channels of the layer.
        consumers: the kernels that consume the group, or the layer's own.
        calls: indices of the calls that use these kernels.
        kernels: whether single kernels are selected, not channels.
        is_map: whether the channels are those of one feature map, which no reader of them changes: not of a residual
            stream (but for one that is normalized by sums of squares, whose readers see about the same), not kernels.
        head: of channels in attention heads the number of each one's, see `ChannelGroup`; else None.
        pairs: whether they are pairs of channels of a query and a key, whose consumer makes those of the key.
    """

    name: str
    size: int
    consumers: tuple[Consumer, ...]
    calls: tuple[int, ...]
    kernels: bool = False
    is_map: bool = False
    head: np.ndarray | None = None
    pairs: bool = False


@dataclasses.dataclass(frozen=True)
class Stage:
    """The units between two losses.

    Attributes:
        number: p, from 1; the last is P + 1.
        units: shallow to deep.
        loss: L_S^p.
    """

    number: int
    units: tuple[Unit, ...]
    loss: StageLoss


def channel_unit(graph: ChannelGraph, group: ChannelGroup) -> Unit:
    """The channels of a group."""
    consumers = tuple(graph.consumers(group))
    calls = sorted({i for record, *_ in consumers for i in graph.calls_of(record)})
    is_map = not group.residual and not {*group.producers} & {*group.consumers}
    is_map = is_map or graph.is_normalized(group)
    head, pairs = group.head, group.silenced
    return Unit(group.name, group.size, consumers, tuple(calls), is_map=is_map, head=head, pairs=pairs)


def kernel_units(graph: ChannelGraph, exclude: Callable[[str], bool] = lambda name: False) -> list[Unit]:
    """The layers whose kernels DKP selects: all convolutions but those that read the image.

    Dense layers, whose kernels are single numbers, keep all as in the paper. In models without any convolution all
    dense layers but the last lose kernels.

    Raises:
        UsageError: the model has no such layer.
    """
    records = [r for r in graph.records.values() if isinstance(r.operation, layers_of("convolution", "transposed"))]
    if records:
        records = [r for r in records if not _reads_image(graph, r)]
    else:
        records = [r for r in graph.records.values() if isinstance(r.operation, layers_of("dense"))][:-1]
    units = []
    for record in records:
        calls = graph.calls_of(record)
        if exclude(record.path):
            continue
        consumers = []
        for index, axis in record.consumes:
            size = record.operation.weights[index].shape[axis]
            consumers.append((record, index, axis, np.arange(size)))
        if consumers:
            units.append(Unit(record.path, len(consumers[0][3]), tuple(consumers), tuple(calls), kernels=True))
    if not units:
        raise UsageError("the model has no layer whose kernels could be pruned; choose a method that prunes channels")
    return units


def _reads_image(graph: ChannelGraph, record: OperationRecord) -> bool:
    """Whether a layer reads only channels of the model's inputs, perhaps scaled or padded."""
    image = [graph.class_of_label[graph.labels[t]].ravel() for t in graph.trace.inputs]
    read = [graph.class_of_label[record.weights[index][axis]] for index, axis in record.consumes]
    return bool(np.isin(np.concatenate(read), np.concatenate(image)).all()) if read else False


def in_stages(graph: ChannelGraph, units: Sequence[Unit], losses: Sequence[StageLoss]) -> list[Stage]:
    """Assigns each unit to the first loss that follows all its layers, or to the last; units go shallow to deep.

    Attention heads go before the channels in them, which the same layer reads.
    """
    behind = [set(graph.trace.needed(t.tensors, graph.trace.inputs)) for t in losses[:-1]]
    stages: list[list[Unit]] = [[] for _ in losses]
    for unit in sorted(units, key=lambda u: (u.calls[0], u.head is not None)):
        stages[next((p for p, before in enumerate(behind) if set(unit.calls) <= before), -1)].append(unit)
    return [Stage(p, tuple(u), t) for p, (u, t) in enumerate(zip(stages, losses, strict=True), start=1)]


def stage_losses(graph: ChannelGraph, augmented: AugmentedModel, objective: Objective) -> list[StageLoss]:
    """The losses of the stages: those of the auxiliary classifiers, shallow to deep, and the model's own."""
    losses = [
        StageLoss((p.tensor,), lambda x, head=head: head(x, training=False), objective.head_loss_of(p.names))
        for p, head in zip(augmented.positions, augmented.heads, strict=True)
    ]
    loss_head = augmented.loss_head
    final = (lambda x: x) if loss_head is None else (lambda x: loss_head(x, training=False))
    return [*losses, StageLoss(tuple(graph.trace.outputs), final, objective.loss)]
