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

WEIGHTS_AT_ONCE = 4_000_000  # of the layers in one conversion: 16 MB
LAYERS_AT_ONCE = 40
CALIBRATION_SAMPLES = 2  # ranges of int8 do not matter for the time


@dataclasses.dataclass(frozen=True)
class Axis:
    """The number of channels on one side of a layer, as a function of the widths of groups.

    Attributes:
        fixed: channels that no group changes.
        per_channel: group -> channels on this axis for each channel of the group.
        heads: group of channels in attention heads -> the group of the heads and how many there are: with a head its
            channels go too.
    """

    fixed: float
    per_channel: Mapping[str, float]
    heads: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def groups(self) -> set[str]:
        """The groups that it depends on."""
        return {*self.per_channel, *(name for name, _ in self.heads.values())}

    def count(self, widths: Mapping[str, int]) -> float:
        """The number of channels at given widths."""
        return self.fixed + sum(
            channels * widths[name] * self._share_of_heads(name, widths) for name, channels in self.per_channel.items()
        )

    def _share_of_heads(self, name: str, widths: Mapping[str, int]) -> float:
        heads, count = self.heads.get(name, ("", 1))
        return widths.get(heads, count) / count


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """One call of a layer with multiplications.

    Attributes:
        name: of the layer, with the number of the call if it is called several times.
        axes: the input and output channels; one axis if both depend on the same groups. Of products of several tensors
            the heads, and the channels of one head that are summed over or weighted.
    """

    name: str
    axes: tuple[Axis, ...]
    record: OperationRecord = dataclasses.field(repr=False)
    call: Call = dataclasses.field(repr=False)


def layers_of(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> list[Layer]:
    """The calls whose time depends on the widths of the groups: convolutions, dense layers, products of tensors."""
    layers: list[Layer] = []
    for record, call, multiplications in graph.multiplications:
        products = all(multiplication.weight is None for multiplication in multiplications)
        axes = _axes_of_products(graph, groups, call) if products else _axes(graph, groups, call)
        if multiplications and axes and (products or len(call.inputs) == 1):
            calls = sum(layer.record is record for layer in layers)
            layers.append(Layer(record.path + (f"#{calls + 1}" if calls else ""), axes, record, call))
    return layers


def _axes(graph: ChannelGraph, groups: Sequence[ChannelGroup], call: Call) -> tuple[Axis, ...]:
    read, written = (_axis(graph, groups, tensor) for tensor in (call.inputs[0], call.outputs[0]))
    if read.groups & written.groups:
        return (Axis(read.fixed, {**written.per_channel, **read.per_channel}, {**written.heads, **read.heads}),)
    return tuple(axis for axis in (read, written) if axis.per_channel)


def _axes_of_products(graph: ChannelGraph, groups: Sequence[ChannelGroup], call: Call) -> tuple[Axis, ...]:
    names = {name for tensor in call.inputs for name in _axis(graph, groups, tensor).per_channel}
    inside = [group for group in groups if group.name in names and not group.are_heads]
    heads = {g.name for g in groups if g.are_heads and (g.name in names or any(x.within == g.name for x in inside))}
    axes = (Axis(0.0, dict.fromkeys(sorted(heads), 1.0)), Axis(0.0, {g.name: 1 / g.heads for g in inside}))
    return tuple(axis for axis in axes if axis.per_channel)


def _axis(graph: ChannelGraph, groups: Sequence[ChannelGroup], tensor: int) -> Axis:
    classes = graph.class_of_label[graph.labels[tensor]].ravel()
    per_channel = {}
    for group in groups:
        share = np.isin(classes, group.classes).sum() / group.size
        if share:
            per_channel[group.name] = float(share)
    changing = sum(channels * graph.group(name).size for name, channels in per_channel.items())
    heads = {g.name: (g.within, g.heads) for g in groups if g.name in per_channel and g.within}
    return Axis(float(len(classes) - changing), per_channel, heads)


class LayerFiles:
    """Makes one-layer files; equal layers at equal widths share a file.

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
        if _is_product(layer):
            settings = [repr(x) for x in layer.call.arguments if not hasattr(x, "shape")]
            operation = layer.record.operation
            what = [getattr(operation, name, None) for name in ("subscripts", "is_causal", "repeats")]
            inner = type(getattr(operation, "layer", None)).__name__
            shapes = [self._shape(tensor, kept) for tensor in layer.call.inputs]
            return json.dumps([type(operation).__name__, inner, what, settings, shapes], default=str)
        config = {k: v for k, v in self._config(layer, kept).items() if k != "name" and not k.endswith("_initializer")}
        shape = self._shape(layer.call.inputs[0], kept)
        return json.dumps([type(layer.record.operation).__name__, config, shape], default=str)

    def make(self, layers: Mapping[str, tuple[Layer, Mapping[str, int]]]) -> Iterator[tuple[str, bytes]]:
        """Converts layers in batches, because the overhead of a conversion is half a second.

        Args:
            layers: key -> layer and widths.

        Yields:
            Key and bytes of the file, in the order of `layers`.
        """
        models: dict[str, Any] = {}
        weights = 0
        for key, (layer, widths) in layers.items():
            models[key] = self._layer_model(layer, self._kept(widths))
            weights += sum(math.prod(weight.shape) for weight in models[key].weights)
            if weights > WEIGHTS_AT_ONCE or len(models) >= LAYERS_AT_ONCE:
                yield from self._convert(models)
                models, weights = {}, 0
        yield from self._convert(models)

    def _convert(self, models: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        import keras

        if not models:
            return
        inputs = [tensor for model in models.values() for tensor in model.inputs]
        together = keras.Model(inputs, [model.outputs[0] for model in models.values()])
        cutter = Cutter(convert_for_timing(together, self._quantization))
        yield from ((key, cutter.leading_to(number)) for number, key in enumerate(models))

    def _kept(self, widths: Mapping[str, int]) -> KeptChannels:
        return self._graph.at_widths(widths)

    def _shape(self, tensor: int, kept: KeptChannels) -> list[int]:
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

        numbers = list(dict.fromkeys(layer.call.inputs))
        tensors = [keras.Input(self._shape(n, kept), dtype=self._graph.trace.dtype(n)) for n in numbers]
        if _is_product(layer):
            run = lambda values: layer.call.run(dict(zip(numbers, values, strict=True)), training=False)[0]  # noqa: E731
            return keras.Model(tensors, keras.layers.Lambda(run)(tensors))
        config, (inputs,) = self._config(layer, kept) | {"name": None}, tensors
        return keras.Model(inputs, type(layer.record.operation).from_config(config)(inputs))


def _is_product(layer: Layer) -> bool:
    """Whether it multiplies tensors and has no weights."""
    return not getattr(layer.record.operation, "weights", ())


def convert_for_timing(model: Any, quantization: str) -> bytes:
    """A file for timing only: integer files are calibrated on noise."""
    mode = Quantization.parse(quantization)
    if not mode.is_calibrated:
        return convert(model, mode).content
    random = np.random.default_rng(0)
    noise = [random.random((CALIBRATION_SAMPLES, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
    data = noise[0] if len(noise) == 1 else noise
    io = "int8" if mode is Quantization.INT8 else "float"
    return convert(model, mode, representative_data=data, io=io, bias_correction=False).content
