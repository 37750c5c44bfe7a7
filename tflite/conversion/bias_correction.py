"""Corrects the biases of a file with rounded weights so that its layers have the mean outputs of the float file.

Rounding the weights moves the mean of each channel, and the layers add these shifts up. What a bias can take back is
measured on calibration samples, in execution order: each layer runs on the outputs of the corrected layers before it.
"""

import difflib
from collections.abc import Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.conversion.biases import BIAS_TYPES, set_bias
from dcp_tf.tflite.conversion.stepper import Stepper
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema.memory_plan import memory_plan
from dcp_tf.tflite.types import Quantization, TFLiteFile

SAMPLES = 100  # at most; a mean over the positions of some images is exact enough
_MEMORY = 256 << 20  # bytes of the activations of all samples
# A bias does not move the values of a channel that ReLU or the integer type clips, so the others move further. Where
# most are clipped, that is limited.
_LEAST_ACTIVE = 0.25


def correct_means(content: bytes, reference: bytes, samples: Sequence[Sequence[np.ndarray]]) -> bytes:
    """A file with rounded weights whose biases give each layer the mean outputs of the float file, channel by channel.

    A layer without a bias, or without its counterpart in the float file, stays as it is, and so does one whose weights
    are exact: then what moves its means is not the rounding of weights.

    Args:
        content: an integer file, or one with rounded weights alone.
        reference: the float32 file of the same model.
        samples: calibration samples, each with one array (1, ...) for each input.

    Returns:
        The corrected file; `content` itself, which is said, if it cannot be run here or has control flow.
    """
    peak = memory_plan(TFLiteFile(reference, Quantization.FLOAT32)).peak
    count = min(len(samples), SAMPLES, max(1, _MEMORY // max(peak, 1)))
    chosen = [samples[row] for row in np.linspace(0, len(samples) - 1, count).astype(int)]
    inputs = [np.concatenate(arrays) for arrays in zip(*chosen, strict=True)]
    try:
        return _corrected(Stepper(content, inputs), Stepper(reference, inputs))
    except (UsageError, RunError) as error:
        progress.say(f"biases are not corrected: {error}")
        return content


def _corrected(rounded: Stepper, floats: Stepper) -> bytes:
    """The file of `rounded` with its biases corrected, one layer after the other."""
    model = rounded.cutter.model
    pairs = [pair for pair in counterparts(model, floats.cutter.model) if not _is_exact(model, pair[0])]
    for number, twin in progress.bar(pairs, what="Bias correction", unit=" layers"):
        expected = floats.run(twin + 1)
        floats.keep(twin + 1, expected)
        actual = rounded.run(number + 1)
        target, _ = _means(floats.cutter.model, twin, expected)
        mean, active = _means(model, number, actual)
        if _add(model, number, (target - mean) / np.maximum(active, _LEAST_ACTIVE)):
            actual = rounded.run(number + 1)
        rounded.keep(number + 1, actual)
    return flatbuffer.pack(model)


def counterparts(model: schema.ModelT, other: schema.ModelT) -> Iterator[tuple[int, int]]:
    """The operations with weights that two files of a model have in common, by their numbers in each."""
    (own, own_kinds), (others, other_kinds) = _kernels(model), _kernels(other)
    for block in difflib.SequenceMatcher(None, own_kinds, other_kinds, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            yield own[block.a + offset], others[block.b + offset]


def _kernels(model: schema.ModelT) -> tuple[list[int], list[tuple]]:
    """The operations with weights: their numbers, and what tells them apart."""
    graph = model.subgraphs[0]
    numbers, kinds = [], []
    for number, operator in enumerate(graph.operators):
        name = flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex])
        if name in flatbuffer.KERNEL_INPUTS:
            tensors = (operator.inputs[flatbuffer.KERNEL_INPUTS[name][1]], operator.outputs[0])
            numbers.append(number)
            kinds.append((name, *(tuple(graph.tensors[tensor].shape) for tensor in tensors)))
    return numbers, kinds


def _is_exact(model: schema.ModelT, number: int) -> bool:
    """Whether each channel has one weight and a scale of its own, as where a depthwise layer scales channels."""
    graph, operator = model.subgraphs[0], model.subgraphs[0].operators[number]
    name = flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex])
    kernel = graph.tensors[operator.inputs[flatbuffer.KERNEL_INPUTS[name][1]]]
    channels = int(graph.tensors[operator.outputs[0]].shape[-1])
    scales = getattr(kernel.quantization, "scale", None)
    return int(np.prod(kernel.shape)) == channels and scales is not None and len(scales) == channels


def _means(model: schema.ModelT, number: int, values: dict[int, list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each channel of what an operation writes, and the share of its values that a bias moves."""
    index = int(model.subgraphs[0].operators[number].outputs[0])
    tensor = model.subgraphs[0].tensors[index]
    rows = np.concatenate([value.reshape(-1, value.shape[-1]) for value in values[index]])
    if tensor.type == schema.TensorType.FLOAT32:
        return rows.mean(0, dtype=np.float64), np.ones(rows.shape[-1])
    limits = np.iinfo(rows.dtype)
    active = np.mean((rows > limits.min) & (rows < limits.max), axis=0)
    return (rows.mean(0, dtype=np.float64) - tensor.quantization.zeroPoint[0]) * tensor.quantization.scale[0], active


def _add(model: schema.ModelT, number: int, shift: np.ndarray) -> bool:
    """Adds a shift to the bias of an operation, and of no other; False if it has no stored bias."""
    graph = model.subgraphs[0]
    operator = graph.operators[number]
    position = flatbuffer.KERNEL_INPUTS[flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex])][2]
    index = int(operator.inputs[position]) if len(operator.inputs) > position else -1
    tensor = graph.tensors[index]
    stored = None if index < 0 else model.buffers[tensor.buffer].data
    if stored is None or not len(stored):
        return False
    bias = np.frombuffer(np.asarray(stored, np.uint8).tobytes(), BIAS_TYPES[tensor.type])
    is_float = tensor.type == schema.TensorType.FLOAT32
    scale = np.ones(1) if is_float else np.asarray(tensor.quantization.scale, np.float64)
    set_bias(model, number, position, bias * scale + shift, scale)
    return True
