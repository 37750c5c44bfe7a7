"""Which operations of a file this runtime has no kernel for: found by running it."""

import copy
import os

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from dcp_tf.errors import UsageError
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema.zero_scale_outputs import explain
from dcp_tf.tflite.types import TFLiteFile, read_content, source_name

_FAILED = (RuntimeError, ValueError)


def unsupported_operations(source: TFLiteFile | str | os.PathLike) -> list[str]:
    """Runs a file once; where it fails, each of its operations by itself, so that all that fail are found at once.

    A converter may write operations that no kernel takes: SQUARED_DIFFERENCE in int16x8, for instance.

    Args:
        source: a converted model, or the path of a .tflite file.

    Returns:
        The operations that fail, as "NAME (output tensor): reason"; empty where the file runs.

    Raises:
        UsageError: there is no such file, or it holds no TFLite model.
    """
    content = read_content(source)
    reason = _failure(content)
    if reason is None:
        return []
    try:
        model = flatbuffer.unpack(content)
        graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
        names = [name for name, _ in flatbuffer.operators(schema.Model.GetRootAs(content, 0), graph)]
        computed = flatbuffer.computed_tensors(graph)
    except flatbuffer.DAMAGE as error:
        raise UsageError(f"{source_name(source)} is damaged: its tables cannot be read; write it again") from error
    found = []
    for number, name in enumerate(names):
        if why := _failure(_alone(model, number, computed)):
            tensor = flatbuffer.short_name(graph.Tensors(graph.Operators(number).Outputs(0)))
            found.append(f"{name} ({tensor}): {why}")
    return found or [reason]


def _failure(content: bytes) -> str | None:
    """What the runtime says of a file that it cannot run, in one line; None if it can."""
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


def _alone(model: schema.ModelT, number: int, computed: set[int]) -> bytes:
    """A file with one operation, and those before it that only unpack its weights."""
    graph = model.subgraphs[0]
    wanted, chosen = set(map(int, graph.operators[number].inputs)), [graph.operators[number]]
    for operator in reversed(graph.operators[:number]):
        if wanted.intersection(map(int, operator.outputs)) - computed:
            chosen.insert(0, operator)
            wanted.update(map(int, operator.inputs))
    alone = copy.copy(graph)
    alone.operators = chosen
    alone.inputs = np.array(sorted(wanted & computed), np.int32)
    alone.outputs = np.array(graph.operators[number].outputs, np.int32)
    whole = copy.copy(model)
    whole.subgraphs, whole.signatureDefs = [alone, *model.subgraphs[1:]], []
    return flatbuffer.pack(whole)
