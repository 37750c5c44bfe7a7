"""How much memory the activations of a model's file take at given widths."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.tflite.conversion.file_sizes import FileSizes
from dcp_tf.tflite.schema.memory_plan import Lifetime, aligned, arena_of, memory_plan
from dcp_tf.tflite.types import TFLiteFile

_BYTES = {"int8": 1, "int16x8": 2}  # of an activation; 4 in all other files
# The converter merges them into the operation before, whose output they become.
_MERGED = (layers.BatchNormalization, layers.ReLU, layers.Dropout, layers.SpatialDropout2D, layers.Identity)
_MERGED_ACTIVATIONS = (keras.activations.relu, keras.activations.relu6, keras.activations.linear)


class FileRam(FileSizes):
    """Bytes of activations that an inference of a model's file keeps at once (`memory_plan`), at several widths.

    Args:
        graph: of the model, with fixed input sizes.
        mode: of the file.
        size: of the file of a model in a mode: the bytes of its arena.
        io: inputs and outputs of integer files.

    Attributes:
        full: what the whole model's file takes.
    """

    def __init__(self, graph: Any, mode: str, size: Callable[[Any, str], int], io: str):
        super().__init__(graph, mode, size)
        self._sizes = {group.name: group.size for group in graph.groups}
        self._plan(io)
        self._scale = self.full / self._arena({})

    def predict(self, widths: Mapping[str, int]) -> float:
        """The predicted bytes, from the tensors between the model's layers and the time for which each exists."""
        return self._scale * self._arena(widths)

    def _arena(self, widths: Mapping[str, int]) -> int:
        channels = np.array([widths.get(name, size) for name, size in self._sizes.items()], float)
        sizes = (self._fixed + self._per_channel @ channels).round().astype(int)
        tensors = zip(sizes.tolist(), self._times, strict=True)
        return arena_of([Lifetime(aligned(size), *times) for size, times in tensors])

    def _plan(self, io: str) -> None:
        """Sets the bytes of each tensor as a function of the widths, and the calls between which it exists."""
        trace, itself = self._graph.trace, _stored_in(self._graph.trace)
        last = {t: len(trace.calls) for t in trace.outputs}
        for number, call in enumerate(trace.calls):
            last |= {t: max(number, last.get(t, 0)) for t in call.inputs}
        stored = sorted(set(itself.values()))
        width = _BYTES.get(self._mode, 4)
        counts = [self._counts(t) for t in stored]
        self._fixed = width * np.array([fixed for fixed, _ in counts])
        self._per_channel = width * np.array([per_channel for _, per_channel in counts])
        until = [max(last.get(t, 0) for t, place in itself.items() if place == s) for s in stored]
        self._times = [(trace.producer.get(t, 0), end) for t, end in zip(stored, until, strict=True)]
        if width < 4 and (io == "float" or self._mode != "int8"):  # floats go in, and become integers at first
            floats = [stored.index(t) for t in trace.inputs]
            self._times = [(-1, end) if n in floats else (first, end) for n, (first, end) in enumerate(self._times)]
            self._times += [(-1, -1)] * len(floats)
            self._fixed = np.concatenate([self._fixed, self._fixed[floats] * (4 / width)])
            self._per_channel = np.concatenate([self._per_channel, self._per_channel[floats] * (4 / width)])

    def _counts(self, tensor: int) -> tuple[float, list[float]]:
        """Values that no group changes, and per group the values for each of its channels."""
        classes = self._graph.class_of_label[self._graph.labels[tensor]].ravel()
        each = math.prod(self._graph.trace.shapes[tensor][1:]) / len(classes)
        shares = [np.isin(classes, group.classes).sum() / group.size for group in self._graph.groups]
        fixed = len(classes) - sum(share * group.size for share, group in zip(shares, self._graph.groups, strict=True))
        return each * fixed, [each * share for share in shares]


def ram_of(file: TFLiteFile) -> int:
    """The bytes of activations that an inference of a file keeps at once."""
    return memory_plan(file).arena


def _stored_in(trace: Any) -> dict[int, int]:
    """Tensor -> the one in whose place it is written: its own, or that of the operation which it is merged into."""
    readers = [t for call in trace.calls for t in call.inputs] + list(trace.outputs)
    place = {t: t for t in trace.inputs}
    for call in trace.calls:
        activation = getattr(call.operation, "activation", None) if isinstance(call.operation, layers.Activation) else 0
        merged = isinstance(call.operation, _MERGED) or activation in _MERGED_ACTIVATIONS
        before = call.inputs[0] if call.inputs else None
        merged = merged and before in trace.producer and readers.count(before) == 1
        place |= {t: place[before] if merged else t for t in call.outputs}
    return place
