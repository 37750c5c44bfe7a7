"""Targets that are measured on TFLite files: a latency on this machine, the size of a file, the RAM that it takes."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.errors import UsageError, did_you_mean
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.methods import Method
from dcp_tf.settings.budget import Target
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tflite import convert
from dcp_tf.tflite.conversion.file_ram import FileRam, ram_of
from dcp_tf.tflite.conversion.file_sizes import FileSizes, size_of, size_text
from dcp_tf.tflite.types import Quantization

_DEFAULT = {"latency": "float32", "file": "int8", "ram": "int8"}
_SAMPLES = 2  # for the calibration of files whose size alone matters


def bind(method: Method, budget: tuple[str, str], graph: ChannelGraph | None) -> Method:
    """The method with a target that knows what the model's file takes at given widths.

    Args:
        method: with its other settings.
        budget: "latency", "file" or "ram", and the text, perhaps with a mode before it: "int8:60%".
        graph: of the model; None: the text alone is checked.

    Raises:
        UsageError: the text cannot be, or the method takes no such target.
        RunError: the model cannot be converted or measured.
    """
    measure, text = budget
    mode, size = _split(measure, text)
    size = (
        size_text(size, f"{measure} takes a share such as '60%' or a size such as '200KiB'")
        if measure != "latency"
        else size
    )
    target = Target(measure, size, lambda widths: 1.0, f"{mode} file")
    bound = dataclasses.replace(method, target=target)
    if graph is None:
        return bound
    target = _latency_target(target, mode, graph, method) if measure == "latency" else _file_target(target, mode, graph)
    return dataclasses.replace(method, target=target)


def _file_target(target: Target, mode: str, graph: ChannelGraph) -> Target:
    if target.measure == "ram":
        sizes = FileRam(graph, mode, lambda model, mode: ram_of(_convert(model, mode)), Deployment.io)
    else:
        sizes = FileSizes(graph, mode, lambda model, mode: size_of(_convert(model, mode)))
    progress.say(f"the {mode} file takes {target.show(sizes.full)}; the target is {target.text}")
    return dataclasses.replace(target, cost=sizes.predict, measured=sizes.measure)


def _convert(model: Any, mode: str) -> Any:
    if not Quantization(mode).is_calibrated:
        return convert(model, mode)
    rng = np.random.default_rng(0)
    samples = [rng.random((_SAMPLES, *x.shape[1:])).astype(x.dtype) for x in model.inputs]
    data = samples if len(samples) > 1 else samples[0]
    return convert(model, mode, representative_data=data, allow_float=True)


def _latency_target(target: Target, mode: str, graph: ChannelGraph, method: Method) -> Target:
    from dcp_tf.tflite.latency.latency_table import measure_latency_table
    from dcp_tf.tflite.latency.model_latency import ModelLatency

    progress.say("measuring the layers' latencies at several widths")
    table = measure_latency_table(graph, quantization=mode, round_to=method.round_to, residual=method.offers_streams)
    progress.say(f"the {mode} file takes {table.baseline_ms:.3f} ms; the target is {target.text}")
    origin = f"{mode} latency on {table.measurements.machine}"
    return dataclasses.replace(target, cost=table.predict, origin=origin, measured=ModelLatency(graph, table))


def _split(measure: str, text: str) -> tuple[str, str]:
    mode, colon, rest = text.partition(":")
    if not colon:
        return _DEFAULT[measure], text
    modes = ["float32", "int8"] if measure == "latency" else [m.value for m in Quantization if m.value != "sparse"]
    if mode not in modes:
        raise UsageError(f"{measure} names an unknown kind of file {mode!r}; {did_you_mean(mode, modes)}")
    return mode, rest
