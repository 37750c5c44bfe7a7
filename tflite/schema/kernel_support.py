"""Finds the operations of a file that have no kernel, or no fast one, by asking the runtime."""

import collections
import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema.subgraph import Cutter
from dcp_tf.tflite.schema.zero_scale_outputs import explain
from dcp_tf.tflite.types import TFLiteFile, read_content

_FAILED = (RuntimeError, ValueError)
# What moves no value, or hardly any: that XNNPACK leaves it out costs nothing.
_FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "PACK", "DENSIFY"}


def unsupported_operations(source: TFLiteFile | str | os.PathLike) -> list[str]:
    """Runs a file once and, if that fails, each operation in isolation, to find all unsupported ones at once.

    The converter can write operations that no kernel supports, such as SQUARED_DIFFERENCE in int16x8.

    Args:
        source: a converted model, or the path of a .tflite file.

    Returns:
        The operations that fail, each with its output tensor and the reason; empty if the file runs.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
    """
    content = read_content(source)
    reason = _failure(content)
    if reason is None:
        return []
    with flatbuffer.refuse_damage(source):
        cutter = Cutter(content, keep_control_flow=True)
        names = cutter.names()
    failures = []
    for number, (kind, tensor) in enumerate(names):
        if cause := _failure(cutter.alone(number)):
            failures.append(f"{kind} ({tensor.split(';')[0]}): {cause}")
    return failures or [reason]


def outside_xnnpack(source: TFLiteFile | str | os.PathLike) -> dict[str, int]:
    """The operations that XNNPACK does not take, which the much slower kernels of the interpreter run.

    Args:
        source: a converted model, or the path of a .tflite file, that runs.

    Returns:
        Kind -> how many, the most first; of files with control flow only those of the main graph. What makes one
        vector for a sample, as a last softmax does, costs nothing and is left out, but for fully connected layers.
    """
    with OutputCapture():
        interpreter = Interpreter(model_content=read_content(source))
        interpreter.allocate_tensors()
    operations = interpreter._get_ops_details()  # the public interface does not tell
    delegated = [op for op in operations if op["op_name"] == "DELEGATE"]
    own = [op for op in operations if op["op_name"] != "DELEGATE"]
    producer = {int(t): number for number, op in enumerate(own) for t in op["outputs"]}
    inside: set[int] = set()
    for part in delegated:  # all that its outputs depend on, up to its inputs
        given, waiting = {int(t) for t in part["inputs"]}, [int(t) for t in part["outputs"]]
        while waiting:
            number = producer.get(waiting.pop())
            if number is not None and number not in inside:
                inside.add(number)
                waiting += [int(t) for t in own[number]["inputs"] if int(t) not in given]
    ranks = {detail["index"]: len(detail["shape"]) for detail in interpreter.get_tensor_details()}
    large = lambda op: any(ranks.get(int(t), 0) > 2 for t in op["outputs"]) or op["op_name"] == "FULLY_CONNECTED"  # noqa: E731
    kinds = [op["op_name"] for number, op in enumerate(own) if number not in inside and large(op)]
    return dict(collections.Counter(kind for kind in kinds if kind not in _FREE).most_common())


def _failure(content: bytes) -> str | None:
    """The error of the runtime in one line; None if the file runs."""
    try:
        with OutputCapture():
            interpreter = Interpreter(model_content=content)
            interpreter.allocate_tensors()
            for detail in interpreter.get_input_details():
                interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
            interpreter.invoke()
    except _FAILED as error:
        return explain(content, " ".join(str(error).split())[:200] or type(error).__name__)
    return None
