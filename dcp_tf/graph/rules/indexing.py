"""Operations that pick a part of a tensor: indexing with slices and splitting."""

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule

_WHOLE = slice(None)


@register_rule(numpy_ops.GetItem)
def get_item(call: RuleCall) -> Labels:
    """Indexing: whole axes are kept; a range of channels becomes the range of its kept channels."""
    labels, rank = call.inputs[0], len(call.input_shapes[0])
    arguments = call.call.node.arguments
    where = 1 if len(arguments.args) > 1 else "key"
    key = arguments.args[1] if where == 1 else arguments.kwargs["key"]
    entries = _all_entries(key, rank)
    if entries is None:
        return call.opaque("which picks single values")[0]
    of_images = [entry for entry in entries if entry is not None][call.batch_axis]
    whole = _range(of_images, 1) is not None and _bounds(of_images) in ((0, None), (None, None))
    if not whole or (call.batch_axis == 0 and entries[0] is None):
        return call.opaque("which picks images of the batch")[0]
    index, moving, axis = [], {}, 0
    for number, entry in enumerate(entries):
        if entry is None:
            index.append(None)
            continue
        size = labels.shape[axis]
        if size == 1:
            index.append(_WHOLE if isinstance(entry, slice) else 0)
        else:
            if _range(entry, size) is None:
                return call.opaque("which picks channels at a distance from each other")[0]
            index.append(entry)
            if _range(entry, size) != (0, size):
                moving[number] = axis
        axis += 1
    picked = labels[tuple(index)]
    if moving:
        call.part(picked)
        if any(not isinstance(entries[number], slice) for number in moving) and not varying_axes(picked):
            call.pin(picked, f"{call.call.path} picks this one channel")
        call.argument(where, _new_key(labels, entries, moving), depends_on=labels)
    return picked


def _all_entries(key: Any, rank: int) -> list | None:
    """One entry for each axis (and None for each new one); None if some entry is neither a slice nor a number."""
    entries = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(not (isinstance(e, (slice, numbers.Integral)) or e is None or e is Ellipsis) for e in entries):
        return None
    missing = rank - sum(e is not None and e is not Ellipsis for e in entries)
    if Ellipsis not in entries:
        return entries + [_WHOLE] * missing
    at = entries.index(Ellipsis)
    return entries[:at] + [_WHOLE] * missing + entries[at + 1 :]


def _bounds(entry: Any) -> tuple:
    return (entry.start, entry.stop) if isinstance(entry, slice) else (entry, entry)


def _range(entry: Any, size: int) -> tuple[int, int] | None:
    """The first and one-past-last position that an index selects; None for slices with steps."""
    if isinstance(entry, numbers.Integral):
        return int(entry) % size, int(entry) % size + 1
    if any(bound is not None and not isinstance(bound, numbers.Integral) for bound in (entry.start, entry.stop)):
        return None
    start, stop, step = entry.indices(size)
    return (start, stop) if step == 1 and stop > start else None


def _new_key(labels: Labels, entries: list, moving: dict[int, int]) -> Callable[[KeptChannels, Any], Any]:
    """A function that recomputes the ranges along the channel axes."""

    def change(kept: KeptChannels, old: Any) -> Any:
        if kept.mask(labels).all():
            return old
        new = list(entries)
        for number, axis in moving.items():
            start, stop = _range(entries[number], labels.shape[axis])
            first, count = (_count(kept, labels, axis, *part) for part in ((0, start), (start, stop)))
            new[number] = slice(first, first + count) if isinstance(entries[number], slice) else first
        return tuple(new)

    return change


def _count(kept: KeptChannels, labels: Labels, axis: int, start: int, stop: int) -> int:
    """How many positions of a range along an axis stay."""
    return kept.counts(labels.take(range(start, stop), axis))[axis] if stop > start else 0


@register_rule(numpy_ops.Take)
def take(call: RuleCall) -> Labels:
    """`keras.ops.take` at constant indices: indices of removed channels are dropped."""
    labels, arguments = call.inputs[0], call.call.node.arguments
    where = 1 if len(arguments.args) > 1 else "indices"
    indices = arguments.args[1] if where == 1 else arguments.kwargs["indices"]
    if call.operation.axis is None or len(call.inputs) > 1:
        return call.opaque("which picks single values")[0]
    axis = call.operation.axis % labels.ndim
    if axis == call.batch_axis:
        return call.opaque("which picks images of the batch")[0]
    numbers = np.asarray(indices)
    if labels.shape[axis] == 1:
        return np.expand_dims(np.squeeze(labels, axis), tuple(range(axis, axis + numbers.ndim)))
    numbers = numbers % labels.shape[axis]
    picked = np.take(labels, numbers, axis)
    if numbers.ndim > 1 or (numbers.ndim == 0 and not varying_axes(picked)):
        return call.opaque("which picks channels in several rows")[0]
    call.part(picked)

    def change(kept: KeptChannels, old: Any) -> Any:
        stays = kept.along(labels, axis)
        if stays.all() or numbers.ndim == 0:  # each of the parts that are picked has channels, so all parts stay
            return old
        new = (np.cumsum(stays) - 1)[numbers[stays[numbers]]]
        return new.tolist() if isinstance(old, (list, tuple)) else new.astype(np.asarray(old).dtype)

    call.argument(where, change, depends_on=labels)
    return picked


@register_rule(numpy_ops.Split)
def split(call: RuleCall) -> list[Labels]:
    """`keras.ops.split`: each piece has its own channels, and the cut positions follow them."""
    labels, operation = call.inputs[0], call.operation
    axis = operation.axis % labels.ndim
    if axis == call.batch_axis:
        return call.opaque("which splits the batch")
    if labels.shape[axis] == 1:
        return [labels for _ in call.output_shapes]
    sizes = [shape[axis] for shape in call.output_shapes]
    cuts = np.cumsum(sizes)[:-1].tolist()
    pieces = np.split(labels, cuts, axis)
    for piece in pieces:
        call.part(piece)

    def change(kept: KeptChannels, old: Any) -> Any:
        stays = [_count(kept, piece, axis, 0, piece.shape[axis]) for piece in pieces]
        return old if stays == sizes else np.cumsum(stays)[:-1].tolist()

    call.config("indices_or_sections", change, depends_on=labels)
    return pieces
