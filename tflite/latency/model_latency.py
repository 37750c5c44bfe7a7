"""Measures whole models at chosen widths, because a latency table's prediction can be some percent off."""

import contextlib
import os
import pathlib
from collections.abc import Mapping

from dcp_tf import files
from dcp_tf.graph import ChannelGraph, rebuild
from dcp_tf.tflite.latency.latency_table import LatencyTable
from dcp_tf.tflite.latency.layer_files import convert_for_timing
from dcp_tf.tflite.latency.timers import HostTimer, Timer


class ModelLatency:
    """Latency of a model at given widths: its file is measured interleaved with that of the full model.

    Args:
        graph: of the model, with fixed input sizes.
        table: of that model; its quantization and threads are used, and its latency of the full model is the scale.
        cache: a JSON file of measurements; widths that it holds are not measured again.
        timer: what measures; a `HostTimer` if None.

    Example:
        >>> measured = ModelLatency(graph, table)
        >>> measured({"stage2_block1_expand_conv": 64})  # milliseconds
    """

    def __init__(
        self,
        graph: ChannelGraph,
        table: LatencyTable,
        cache: str | os.PathLike | None = None,
        timer: Timer | None = None,
    ):
        self._graph, self._table, self._timer = graph, table, timer
        self._cache = None if cache is None else pathlib.Path(cache)
        self._known: dict[str, float] = {}
        if self._cache is not None and self._cache.is_file():
            self._known = files.read_json(self._cache)
        self._full: bytes | None = None

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Milliseconds of one inference.

        Args:
            widths: group -> kept channels; other groups keep all. The name of a residual block -> 0 leaves it out.

        Raises:
            RunError: the converter or the timer failed, or the cache cannot be written.
        """
        key = " ".join(f"{name}={widths[name]}" for name in sorted(widths))
        if key not in self._known:
            self._known[key] = self._measure(widths)
            if self._cache is not None:
                files.write_json(self._cache, self._known)
        return self._known[key]

    def _measure(self, widths: Mapping[str, int]) -> float:
        measurements, graph = self._table.measurements, self._graph
        if self._full is None:
            self._full = convert_for_timing(graph.trace.model, measurements.quantization)
        kept = graph.at_widths(widths)
        contents = {"full": self._full, "pruned": convert_for_timing(rebuild(graph, kept), measurements.quantization)}
        own = HostTimer(measurements.threads) if self._timer is None else contextlib.nullcontext(self._timer)
        with own as timer:
            latencies = timer.measure(contents)
        return latencies["pruned"] / latencies["full"] * self._table.baseline_ms
