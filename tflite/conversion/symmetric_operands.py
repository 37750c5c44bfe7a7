"""Gives what attention multiplies ranges around zero, as XNNPACK's integer kernels want them.

XNNPACK multiplies two computed tensors in int8 only if the zero point of the second is 0, as of weights. The converter
gives keys and values the range that was measured, so that the plain kernels of the interpreter ran, ten times slower.
The layers that make keys and values write into any range: it is widened to one around zero.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer

_MOVES = {"RESHAPE", "TRANSPOSE", "TILE"}
_MAKES = {"FULLY_CONNECTED", "CONV_2D", "ADD", "MUL", "QUANTIZE"}  # whatever the range that they write into


def symmetric_operands(content: bytes) -> bytes:
    """The same file; the second operands of its int8 BATCH_MATMULs have zero points of 0 where a layer makes them."""
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    kinds = [flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex]) for operator in graph.operators]
    producers = {int(t): number for number, operator in enumerate(graph.operators) for t in operator.outputs}
    changed = False
    for kind, operator in zip(kinds, graph.operators, strict=True):
        tensor = graph.tensors[operator.inputs[1]] if kind == "BATCH_MATMUL" else None
        if tensor is None or tensor.type != schema.TensorType.INT8 or not _zero_point(tensor):
            continue
        chain, number = [int(operator.inputs[1])], producers.get(int(operator.inputs[1]))
        while number is not None and kinds[number] in _MOVES:
            chain.append(int(graph.operators[number].inputs[0]))
            number = producers.get(chain[-1])
        readers = [k for k, o in zip(kinds, graph.operators, strict=True) for t in o.inputs if int(t) in chain]
        # What else moves one of them would need the same range.
        made = kinds[number] in _MAKES if number is not None else chain[-1] in graph.inputs
        if not made or len(readers) != len(chain):
            continue
        scale = float(tensor.quantization.scale[0]) * (128 + abs(_zero_point(tensor))) / 127
        for index in chain:
            quantization = graph.tensors[index].quantization
            quantization.scale = np.array([scale], np.float32)
            quantization.zeroPoint = np.zeros(1, np.int64)
        changed = True
    return flatbuffer.pack(model) if changed else content


def _zero_point(tensor: schema.TensorT) -> int:
    points = tensor.quantization.zeroPoint
    return int(points[0]) if points is not None and len(points) == 1 else 0
