"""The layers of a model as TFLite files of their own, at any width."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import KeptChannels, OperationRecord
from dcp_tf.graph.surgery import fitting_initializers
from dcp_tf.graph.trace import Call
from dcp_tf.tflite.conversion.convert import convert
from dcp_tf.tflite.schema.subgraph import Cutter
from dcp_tf.tflite.types import Quantization

WEIGHTS_AT_ONCE = 4_000_000  # of the layers that are converted together: 16 MB
LAYERS_AT_ONCE = 40
CALIBRATION_SAMPLES = 2  # ranges of int8 do not matter for the time


@dataclasses.dataclass(frozen=True)
class Axis:
    """A number of channels that a layer sees, as it follows from the widths of groups.

    Attributes:
        fixed: channels that no group of the table changes.
        per_channel: group -> how many channels here hang on one channel of the group.
    """

    fixed: float
    per_channel: Mapping[str, float]

    def count(self, widths: Mapping[str, int]) -> float:
        """Channels at some widths of the groups."""
        return self.fixed + sum(each * widths[name] for name, each in self.per_channel.items())


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One call of one layer that multiplies.

    Attributes:
        name: of the layer, with the number of the call if there are several.
        axes: what it reads and what it makes; one axis where both follow the same groups.
    """

    name: str
    axes: tuple[Axis, ...]
    record: OperationRecord = dataclasses.field(repr=False)
    call: Call = dataclasses.field(repr=False)


def layers_of(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> list[Layer]:
    """The layers whose time follows the widths of the groups: convolutions, dense layers and the like.

    Calls with several tensors (attention) are left out.
    """
    found: list[Layer] = []
    for record, call, multiplications in graph.multiplications:
        axes = _axes(graph, groups, call)
        if multiplications and axes and len(call.inputs) == 1:
            calls = sum(layer.record is record for layer in found)
            found.append(Layer(record.path + (f"#{calls + 1}" if calls else ""), axes, record, call))
    return found


def _axes(graph: ChannelGraph, groups: Sequence[ChannelGroup], call: Call) -> tuple[Axis, ...]:
    read, made = (_axis(graph, groups, tensor) for tensor in (call.inputs[0], call.outputs[0]))
    if set(read.per_channel) & set(made.per_channel):
        return (Axis(read.fixed, {**made.per_channel, **read.per_channel}),)
    axes = tuple(axis for axis in (read, made) if axis.per_channel)
    return axes


def _axis(graph: ChannelGraph, groups: Sequence[ChannelGroup], tensor: int) -> Axis:
    classes = graph.class_of_label[graph.labels[tensor]].ravel()
    per_channel = {}
    for group in groups:
        share = np.isin(classes, group.classes).sum() / group.size
        if share:
            per_channel[group.name] = float(share)
    changing = sum(each * graph.group(name).size for name, each in per_channel.items())
    return Axis(float(len(classes) - changing), per_channel)


class LayerFiles:
    """Makes one-layer files; equal layers at equal widths are one file.

    Args:
        graph: of the model.
        quantization: mode of the files.
    """

    def __init__(self, graph: ChannelGraph, quantization: str):
        self._graph = graph
        self._quantization = quantization

    def key(self, layer: Layer, widths: Mapping[str, int]) -> str:
        """What the file depends on: the layer's class, its config and the shape of its input."""
        kept = self._kept(widths)
        config = {k: v for k, v in self._config(layer, kept).items() if k != "name" and not k.endswith("_initializer")}
        return json.dumps([type(layer.record.operation).__name__, config, self._shape(layer, kept)], default=str)

    def make(self, wanted: Mapping[str, tuple[Layer, Mapping[str, int]]]) -> Iterator[tuple[str, bytes]]:
        """Converts layers, several at once: each conversion takes half a second whatever it converts.

        Args:
            wanted: key -> layer and widths.

        Yields:
            Key and bytes of the file, in the order of `wanted`.
        """
        waiting: dict[str, Any] = {}
        weights = 0
        for key, (layer, widths) in wanted.items():
            waiting[key] = self._layer_model(layer, self._kept(widths))
            weights += sum(math.prod(weight.shape) for weight in waiting[key].weights)
            if weights > WEIGHTS_AT_ONCE or len(waiting) >= LAYERS_AT_ONCE:
                yield from self._convert(waiting)
                waiting, weights = {}, 0
        yield from self._convert(waiting)

    def _convert(self, models: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        import keras

        if not models:
            return
        together = keras.Model([model.inputs[0] for model in models.values()], [m.outputs[0] for m in models.values()])
        cutter = Cutter(convert_for_timing(together, self._quantization))
        yield from ((key, cutter.leading_to(number)) for number, key in enumerate(models))

    def _kept(self, widths: Mapping[str, int]) -> KeptChannels:
        return self._graph.kept({name: range(width) for name, width in widths.items()})

    def _shape(self, layer: Layer, kept: KeptChannels) -> list[int]:
        tensor = layer.call.inputs[0]
        shape, labels = list(self._graph.trace.shapes[tensor]), self._graph.labels[tensor]
        counts = kept.counts(labels)
        for axis in varying_axes(labels):
            shape[axis] = counts[axis]
        return shape[1:]

    def _config(self, layer: Layer, kept: KeptChannels) -> dict[str, Any]:
        config = layer.record.operation.get_config()
        for name, change in layer.record.config.items():
            config[name] = change(kept, config[name])
        return config | fitting_initializers(layer.record, kept)

    def _layer_model(self, layer: Layer, kept: KeptChannels) -> Any:
        import keras

        config = self._config(layer, kept) | {"name": None}
        inputs = keras.Input(self._shape(layer, kept), dtype=self._graph.trace.dtype(layer.call.inputs[0]))
        return keras.Model(inputs, type(layer.record.operation).from_config(config)(inputs))


def convert_for_timing(model: Any, quantization: str) -> bytes:
    """A file for measurements of time alone: integer ones are calibrated on noise."""
    mode = Quantization.parse(quantization)
    if not mode.is_calibrated:
        return convert(model, mode).content
    random = np.random.default_rng(0)
    noise = [random.random((CALIBRATION_SAMPLES, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
    data = noise[0] if len(noise) == 1 else noise
    io = "int8" if mode is Quantization.INT8 else "float"
    return convert(model, mode, representative_data=data, io=io).content
