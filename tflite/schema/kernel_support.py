"""Finds the operations of a file that this runtime has no kernel for, by running the file."""

import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema.subgraph import Cutter
from dcp_tf.tflite.schema.zero_scale_outputs import explain
from dcp_tf.tflite.types import TFLiteFile, read_content

_FAILED = (RuntimeError, ValueError)


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
