"""The layers that must not change, because an output that pruning does not reach depends on them."""

from collections.abc import Mapping

import keras
import numpy as np

from dcp_tf.graph import ChannelGraph, OperationRecord
from dcp_tf.graph.blocks import matching_tensors, without_calls
from dcp_tf.graph.rule import KeptChannels


def untouched_layers(
    base: ChannelGraph, small: ChannelGraph, kept: KeptChannels, masks: Mapping[str | int, np.ndarray]
) -> list[keras.Operation]:
    """The operations of the rebuilt model that make its unchanged outputs; none where all outputs change.

    Args:
        base: of the model before surgery.
        small: of the rebuilt model.
        kept: what remains of `base`.
        masks: by the path or the `id()` of a weight of the rebuilt model, where it is held at zero.
    """
    trace, gone = base.trace, without_calls(kept.removed)
    tensors = matching_tensors(trace, small.trace, kept.removed)
    rebuilt = {
        i: small.trace.calls[small.trace.producer[tensors[call.outputs[0]]]].operation
        for i, call in enumerate(trace.calls)
        if i not in gone
    }
    cut = [i for record in base.records.values() if _loses_inputs(record, kept) for i in base.calls_of(record)]
    cut += [*gone, *(i for i, operation in rebuilt.items() if _is_masked(operation, masks))]
    changed = trace.dependents(cut)
    same = [t for t in trace.outputs if trace.producer.get(t) not in changed]
    calls = trace.needed(same, trace.inputs) if len(same) < len(trace.outputs) else []
    return [rebuilt[i] for i in calls]


def _loses_inputs(record: OperationRecord, kept: KeptChannels) -> bool:
    """Whether a layer reads fewer channels, or makes fewer of those that no kernel alone removes."""
    axes = (*record.consumes, *record.silences, *record.zeroed)
    return any(not kept.mask(record.weights[index][axis]).all() for index, axis in axes)


def _is_masked(operation: keras.Operation, masks: Mapping[str | int, np.ndarray]) -> bool:
    return any(id(weight) in masks or weight.path in masks for weight in getattr(operation, "weights", ()))
