"""Predicts the latency of a model at any widths of its channel groups, from measurements taken once.

Every layer with multiplications is measured in isolation as a small TFLite file, at a grid of input and output widths;
attention between its projections too, at numbers of heads and of channels in each.
A layer runs faster in isolation than inside its network, where other layers fill the caches. So whole models are
measured too, at full width and with all groups at each level of the grid, and one factor is fitted:

    latency(widths) = full model + factor * sum over layers of (layer at its widths - layer at full width)
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf import files, progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup, rebuild
from dcp_tf.settings.scope import WidthSettings
from dcp_tf.tflite.latency.layer_files import Layer, LayerFiles, convert_for_timing, layers_of
from dcp_tf.tflite.latency.timers import HostTimer, Timer

LEVELS = (0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class LayerTimes:
    """Measured times of a layer on its grid.

    Attributes:
        name: of the layer.
        counts: for each of its axes, the channels at each level, ascending.
        ms: milliseconds, an array with those axes.
    """

    name: str
    counts: tuple[tuple[float, ...], ...]
    ms: np.ndarray

    def at(self, counts: Sequence[float]) -> float:
        """Milliseconds at some numbers of channels, linear between the points of the grid and below it."""
        values = self.ms
        for points, count in zip(self.counts, counts, strict=True):
            values = _interpolate(np.asarray(points), values, count)
        return max(float(values), 0.0)


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A whole model that was measured.

    Attributes:
        level: share of the channels of each group.
        widths: group -> channels.
        ms: measured milliseconds.
    """

    level: float
    widths: dict[str, int]
    ms: float


@dataclasses.dataclass(frozen=True)
class Measurements:
    """What a table holds apart from the model's graph; the JSON file holds all of it.

    Attributes:
        fingerprint: of the model.
        machine: the machine that was measured.
        quantization: of the files.
        threads: of the kernels.
        round_to: widths of the grid are multiples of it.
        levels: shares of the channels that were measured.
        groups: names of the groups whose widths may change.
        layers: times of the layers.
        anchors: whole models, the full one first.
        unit: of all numbers called ms: "ms", or "M instructions" of an emulated core.
    """

    fingerprint: str
    machine: str
    quantization: str
    threads: int
    round_to: int
    levels: tuple[float, ...]
    groups: tuple[str, ...]
    layers: tuple[LayerTimes, ...]
    anchors: tuple[Anchor, ...]
    unit: str = "ms"


class LatencyTable:
    """Predicts latency.

    Args:
        graph: of the model that was measured.
        measurements: of that model.

    Attributes:
        measurements: as given.
        factor: the part of an isolated layer's saving that remains in the network; fitted to the anchors.
        baseline_ms: measured latency at full width.

    Raises:
        UsageError: the measurements are of another model.

    Example:
        >>> table = measure_latency_table(model)
        >>> table.predict({"stage2_block1_expand_conv": 64})
    """

    def __init__(self, graph: ChannelGraph, measurements: Measurements):
        if measurements.fingerprint != graph.fingerprint():
            raise UsageError("the latency table was measured for another model; measure this one")
        self.measurements = measurements
        self._sizes = {name: graph.group(name).size for name in measurements.groups}
        known = {times.name: times for times in measurements.layers}
        groups = [graph.group(name) for name in measurements.groups]
        self._layers = [(layer, known[layer.name]) for layer in layers_of(graph, groups)]
        calls = graph.trace.calls
        # A residual block counts as a group of one channel: 0 is without it.
        self._blocks = {block.name: {calls[i].path for i in block.calls} for block in graph.blocks}
        self._sizes |= dict.fromkeys(self._blocks.keys() - self._sizes.keys(), 1)
        self.baseline_ms = measurements.anchors[0].ms
        self.factor = self._fit()

    def predict(self, widths: Mapping[str, int]) -> float:
        """Milliseconds of one inference.

        Args:
            widths: group -> kept channels; other groups keep all. The name of a residual block -> 0 leaves it out.

        Raises:
            UsageError: a group is not in the table, or has not that many channels.
        """
        for name, width in widths.items():
            if name not in self._sizes:
                groups = ", ".join(self.measurements.groups)
                raise UsageError(f"group {name!r} is not in the latency table; it has {groups}")
            if not (name not in self._blocks) <= width <= self._sizes[name]:
                raise UsageError(f"group {name!r} has 1 to {self._sizes[name]} channels. Received: {width}")
        return self.baseline_ms + self.factor * (self._alone({**self._sizes, **widths}) - self._alone(self._sizes))

    def _alone(self, widths: Mapping[str, int]) -> float:
        """The sum of the latencies of all layers in isolation."""
        gone = {path for name, paths in self._blocks.items() if widths.get(name) == 0 for path in paths}
        return sum(
            times.at([axis.count(widths) for axis in layer.axes])
            for layer, times in self._layers
            if layer.record.path not in gone
        )

    def _fit(self) -> float:
        """Least squares over the anchors, through the full model."""
        full, *others = self.measurements.anchors
        alone = np.array([self._alone(full.widths) - self._alone(anchor.widths) for anchor in others])
        saved = np.array([full.ms - anchor.ms for anchor in others])
        return float(alone @ saved / (alone @ alone)) if alone.any() else 1.0

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the measurements as JSON."""
        content = dataclasses.asdict(self.measurements)
        content["layers"] = [{**layer, "ms": layer["ms"].tolist()} for layer in content["layers"]]
        for entry, anchor in zip(content["anchors"], self.measurements.anchors, strict=True):
            entry["predicted_ms"] = self.predict(anchor.widths)
        return files.write_json(path, {"factor": self.factor, "baseline_ms": self.baseline_ms, **content})

    @classmethod
    def load(cls, path: str | os.PathLike, graph: ChannelGraph) -> "LatencyTable":
        """Reads what `save` wrote.

        Raises:
            UsageError: the file is no latency table, or one of another model.
        """
        content = files.read_json(path)
        try:
            layers = tuple(
                LayerTimes(entry["name"], tuple(map(tuple, entry["counts"])), np.array(entry["ms"]))
                for entry in content["layers"]
            )
            anchors = tuple(Anchor(e["level"], e["widths"], e["ms"]) for e in content["anchors"])
            plain = {name: content[name] for name in ("fingerprint", "machine", "quantization", "threads", "round_to")}
            lists = {name: tuple(content[name]) for name in ("levels", "groups")}
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path} is not a latency table; write it again with tools/latency_table.py") from error
        unit = content.get("unit", "ms")  # tables of 0.1.0 do not say
        return cls(graph, Measurements(**plain, **lists, layers=layers, anchors=anchors, unit=unit))


def measure_latency_table(
    model: Any,
    *,
    levels: Sequence[float] = LEVELS,
    quantization: str = "float32",
    threads: int = 1,
    round_to: int = WidthSettings.round_to,
    residual: bool = False,
    timer: Timer | None = None,
    cache: str | os.PathLike | None = None,
) -> LatencyTable:
    """Measures a model's layers, once.

    Args:
        model: a functional Keras model with fixed input sizes, or its graph.
        levels: shares of each group's channels to measure, in 0..1; 1 is always added.
        quantization: mode of the files, such as "float32" or "int8" (which "qat" files equal).
        threads: threads of the kernels, as the timer uses them.
        round_to: widths are multiples of it.
        residual: also vary the groups of residual streams, which means more widths to measure.
        timer: what measures; a `HostTimer` if None.
        cache: a JSON file that is read if it holds the same measurement, and written otherwise.

    Raises:
        UsageError: the model has no group to prune, or an argument is out of range.
        RunError: the converter or the timer failed.
    """
    graph = model if isinstance(model, ChannelGraph) else ChannelGraph(model)
    groups = graph.prunable(residual)
    levels = tuple(sorted({*levels, 1.0}))
    if not groups:
        raise UsageError("the model has no channels to prune: its latency cannot change")
    if len(levels) < 2 or levels[0] <= 0 or levels[-1] > 1:
        raise UsageError(f"levels must be shares in 0..1. Received: {levels}")
    if timer is None:
        with HostTimer(threads) as timer:
            return _measured(graph, groups, levels, quantization, threads, round_to, timer, cache)
    return _measured(graph, groups, levels, quantization, threads, round_to, timer, cache)


def _measured(graph, groups, levels, quantization, threads, round_to, timer, cache) -> LatencyTable:
    conditions = {
        "fingerprint": graph.fingerprint(),
        "machine": timer.machine,
        "quantization": quantization,
        "threads": threads,
        "round_to": round_to,
        "levels": levels,
        "groups": tuple(group.name for group in groups),
    }
    if cache is not None and pathlib.Path(cache).exists() and _holds(cache, conditions):
        return LatencyTable.load(cache, graph)
    widths = {level: {g.name: _width(g, level, round_to) for g in groups} for level in levels}
    anchors = _measure_anchors(graph, widths, quantization, timer)
    layers = _measure_layers(graph, groups, widths, quantization, timer)
    unit = getattr(timer, "unit", "ms")
    table = LatencyTable(graph, Measurements(**conditions, layers=layers, anchors=anchors, unit=unit))
    if cache is not None:
        table.save(cache)
    return table


def _holds(cache: str | os.PathLike, conditions: Mapping[str, Any]) -> bool:
    """Whether a file holds the requested measurement."""
    content = files.read_json(cache)
    if not isinstance(content, dict):
        return False
    stored = {name: tuple(value) if isinstance(value := content.get(name), list) else value for name in conditions}
    return stored == dict(conditions)


def _width(group: ChannelGroup, level: float, round_to: int) -> int:
    if level == 1:
        return group.size
    of_each = group.size // group.heads
    step = 1 if group.are_heads else round_to // math.gcd(round_to, group.heads)
    return group.heads * min(max(round(level * of_each / step), 1) * step, of_each)


def _measure_anchors(graph, widths, quantization, timer) -> tuple[Anchor, ...]:
    """Whole models: the full one, and one for each level."""
    order = sorted(widths, reverse=True)
    contents = {}
    for level in progress.bar(order, what="Converting", unit=" models"):
        kept = graph.at_widths(widths[level])
        contents[str(level)] = convert_for_timing(rebuild(graph, kept), quantization)
    latencies = timer.measure(contents)
    return tuple(Anchor(level, dict(widths[level]), latencies[str(level)]) for level in order)


def _measure_layers(graph, groups, widths, quantization, timer) -> tuple[LayerTimes, ...]:
    """Every layer on its grid; equal layers are measured once."""
    makers = LayerFiles(graph, quantization)
    grids, layers = {}, {}
    for layer in layers_of(graph, groups):
        points = _grid(layer, widths)
        keys = np.empty([len(counts) for counts, _ in points], object)
        for position in np.ndindex(keys.shape):
            at: dict[str, int] = {}
            for (_, options), index in zip(points, position, strict=True):
                at |= options[index]
            keys[position] = makers.key(layer, at)
            layers.setdefault(keys[position], (layer, at))
        grids[layer.name] = (tuple(counts for counts, _ in points), keys)
    times = _measure_files(makers, layers, [keys.ravel().tolist() for _, keys in grids.values()], timer)
    return tuple(
        LayerTimes(name, counts, np.vectorize(times.__getitem__, otypes=[float])(keys))
        for name, (counts, keys) in grids.items()
    )


def _grid(layer: Layer, widths: Mapping[float, Mapping[str, int]]) -> list[tuple[tuple[float, ...], list[dict]]]:
    """For each axis the numbers of channels, ascending, and the widths of its groups that give them."""
    points = []
    for axis in layer.axes:
        options = {axis.count(at): {name: at[name] for name in axis.groups} for at in widths.values()}
        points.append((tuple(sorted(options)), [options[count] for count in sorted(options)]))
    return points


def _measure_files(makers: LayerFiles, layers: Mapping, batches: Sequence[list[str]], timer: Timer) -> dict[str, float]:
    """Key -> milliseconds. Runs of the files of one layer are interleaved; those that others share, with the first."""
    contents = makers.make(layers)
    times: dict[str, float] = {}
    with progress.bar(what="Layers", total=len(layers), unit=" files") as bar:
        for batch in batches:
            missing = [key for key in dict.fromkeys(batch) if key not in times]
            if missing:
                # `make` yields in the order of `layers`, which is the order of the batches.
                latencies = timer.measure(
                    {f"layer file {i}": content for i, content in enumerate(_take(contents, missing))}
                )
                times.update(zip(missing, latencies.values(), strict=True))
                bar.update(len(missing))
    return times


def _take(contents: Iterator[tuple[str, bytes]], keys: Sequence[str]) -> list[bytes]:
    pairs = [next(contents) for _ in keys]
    if [key for key, _ in pairs] != list(keys):
        raise AssertionError("the files are not made in the order of their measurement")
    return [content for _, content in pairs]


def _interpolate(points: np.ndarray, values: np.ndarray, count: float) -> np.ndarray:
    """Along the first axis of `values`; the first and the last segment are extrapolated."""
    if len(points) == 1:
        return values[0]
    segment = int(np.clip(np.searchsorted(points, count) - 1, 0, len(points) - 2))
    share = (count - points[segment]) / (points[segment + 1] - points[segment])
    return (1 - share) * values[segment] + share * values[segment + 1]
