"""Reports whether XNNPACK's sparse kernels accept a graph.

On Arm, XNNPACK has 1x1 convolutions that skip zero weights. They need channels-first images, so XNNPACK uses them only
for a part of a graph that it can convert to channels-first completely: the part starts with a convolution that reads
channels-last images, ends with a mean over height and width, and contains no operation without a channels-first
kernel. A single unsuitable operation makes XNNPACK run the whole part dense, without a message. This module names each
such operation.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.types import TFLiteFile, read_content

MAX_DENSITY = 1 / 3  # of the 1x1 convolutions together; with more, XNNPACK keeps the dense kernels

_UNARY = {
    *("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG"),
    *("RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE", "TANH"),
}
_CONVOLUTIONS = {"CONV_2D": schema.Conv2DOptions, "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptions}
_SAME = schema.Padding.SAME


@dataclasses.dataclass(frozen=True)
class SparseReport:
    """Whether XNNPACK on Arm runs a graph with its sparse kernels.

    Attributes:
        blockers: what prevents it, one line each; first the operations, as "NAME (output tensor): reason".
        density: fraction of nonzero weights in the 1x1 convolutions; None without 1x1 convolutions.
        pointwise: number of 1x1 convolutions in the part of the graph that would be sparse.
    """

    blockers: tuple[str, ...]
    density: float | None
    pointwise: int

    @property
    def accepted(self) -> bool:
        """Whether nothing prevents it."""
        return not self.blockers

    def __str__(self) -> str:
        if self.accepted:
            return (
                f"sparse inference on Arm: yes, {self.pointwise} 1x1 convolutions with {1 - self.density:.0%} zeros "
                "(on x86 XNNPACK runs them dense)"
            )
        return "sparse inference on Arm: no\n" + "\n".join(f"  {blocker}" for blocker in self.blockers)


def sparse_inference_report(source: Any) -> SparseReport:
    """Reports whether XNNPACK's sparse kernels (Arm) accept a graph, and what prevents it.

    Args:
        source: a Keras model, a converted model, or the path of a .tflite file. For a Keras model only the graph and
            the zeros are checked; a file must also store its weights in the sparse encoding (mode "sparse").

    Raises:
        UsageError: there is no such file, it is not a TFLite model, or the model cannot be converted.
        RunError: the converter has no kernel for an operation of the model.
    """
    is_file = isinstance(source, (TFLiteFile, str, os.PathLike))
    if not is_file:
        from dcp_tf.tflite.conversion.convert import convert

        source = convert(source)
    content = read_content(source)
    with flatbuffer.refuse_damage(source):
        return _Check(content).report(needs_encoding=is_file)


class _Check:
    """The main graph of a file, with the producer and the consumers of each tensor."""

    def __init__(self, content: bytes):
        self._model = schema.Model.GetRootAs(content, 0)
        self._graph = self._model.Subgraphs(0)
        self._operators = list(flatbuffer.operators(self._model, self._graph))
        self._computed = flatbuffer.computed_tensors(self._graph)
        self._maker: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}
        for number, (_, operator) in enumerate(self._operators):
            self._maker.update(dict.fromkeys(flatbuffer.written_tensors(operator), number))
            for index in flatbuffer.read_tensors(operator):
                self._readers.setdefault(index, []).append(number)

    def report(self, needs_encoding: bool) -> SparseReport:
        """Checks the part of the graph before its means over height and width."""
        ends = [number for number in range(len(self._operators)) if self._is_mean_over_space(number)]
        part = self._upstream(ends)
        blockers = [] if ends else ["no MEAN over height and width ends the convolutions; use GlobalAveragePooling2D"]
        stems = [number for number in part if self._is_stem(number)]
        for number in part:
            if reason := self._objection(number, part, stems):
                blockers.append(f"{self._label(number)}: {reason}")
        pointwise = [number for number in part if self._is_pointwise(number)]
        density = self._density(pointwise)
        if density is None:
            blockers.append("there is no 1x1 convolution, and no other kernel of XNNPACK is sparse")
        elif density >= MAX_DENSITY:
            blockers.append(
                f"{1 - density:.1%} of the weights of the 1x1 convolutions are zero; more than {1 - MAX_DENSITY:.1%} "
                "are needed: prune more kernels"
            )
        if needs_encoding and not any(name == "DENSIFY" for name, _ in self._operators):
            blockers.append("no weight is stored in the sparse encoding; export with quantization sparse")
        return SparseReport(tuple(blockers), density, len(pointwise))

    def _upstream(self, ends: list[int]) -> list[int]:
        """The operations that the ends depend on, and the ends, without operations that only unpack weights."""
        upstream, waiting = set(), list(ends)
        while waiting:
            number = waiting.pop()
            if number not in upstream:
                upstream.add(number)
                waiting += [self._maker[index] for index in self._activations(number) if index in self._maker]
        return sorted(upstream)

    def _activations(self, number: int) -> list[int]:
        return [index for index in flatbuffer.read_tensors(self._operators[number][1]) if index in self._computed]

    def _objection(self, number: int, part: list[int], stems: list[int]) -> str | None:
        """Why an operation cannot run sparse; None if it can."""
        name, operator = self._operators[number]
        if any(not self._is_float(index) for index in (*self._activations(number), operator.Outputs(0))):
            return "computes in integers; sparse kernels compute in floats"
        if name == "PAD" and self._merges(number):
            return None
        if number not in stems:
            if self._is_first(number):
                return self._refused_stem(number)
            if reason := self._refused(number):
                return reason
        if self._is_mean_over_space(number):
            return None  # what follows it may be channels-last
        outside = [reader for reader in self._readers.get(operator.Outputs(0), []) if reader not in part]
        if outside:
            return f"its output is also read by {self._label(outside[0])}, which leads to no MEAN over height and width"
        if operator.Outputs(0) in flatbuffer.graph_outputs(self._graph):
            return "its output is an output of the model"
        return None

    def _is_first(self, number: int) -> bool:
        """Whether an operation reads an input of the model, but for a PAD that becomes part of it."""
        read = self._activations(number)
        before = self._maker.get(read[0])
        if before is not None and self._operators[before][0] == "PAD" and self._merges(before):
            read = self._activations(before)
        return bool(set(read) & set(flatbuffer.graph_inputs(self._graph)))

    def _refused(self, number: int) -> str | None:
        name, _ = self._operators[number]
        if name == "CONV_2D":
            return None if self._is_pointwise(number) else self._refused_convolution(number)
        if name == "DEPTHWISE_CONV_2D":
            return self._refused_depthwise(number)
        if name in ("ADD", "MUL"):
            ranks = [len(self._shape(index)) for index in self._activations(number)]
            return None if set(ranks) == {4} else "its inputs are no images"
        if name in _UNARY or name == "RESIZE_BILINEAR" or self._is_mean_over_space(number):
            return None
        return "has no channels-first kernel in XNNPACK"

    def _refused_stem(self, number: int) -> str:
        name, _ = self._operators[number]
        rule = "the first operation must be a 3x3 convolution of stride 2 with padding 1 on each side and 3 channels"
        return rule if name != "CONV_2D" else f"{rule}; this one has {', '.join(self._stem_faults(number))}"

    def _refused_convolution(self, number: int) -> str:
        shape = self._shape(self._operators[number][1].Inputs(1))
        if shape[1:3] == (1, 1):
            return "a 1x1 convolution must have stride 1, no groups and no padding"
        return f"a {shape[1]}x{shape[2]} convolution behind the first one has no sparse kernel, only 1x1 ones have"

    def _stem_faults(self, number: int) -> Iterator[str]:
        operator = self._operators[number][1]
        options = flatbuffer.options(operator, schema.Conv2DOptions)
        shape = self._shape(operator.Inputs(1))
        if shape[1:3] != (3, 3):
            yield f"a {shape[1]}x{shape[2]} kernel"
        if (options.StrideH(), options.StrideW()) != (2, 2):
            yield f"stride {options.StrideH()}"
        if shape[3] != 3:
            yield f"{shape[3]} channels"
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            yield "a dilation"
        if self._padding(number) != (1, 1, 1, 1):
            yield _PADDING_ADVICE.format(size=1)

    def _is_stem(self, number: int) -> bool:
        return self._operators[number][0] == "CONV_2D" and not any(self._stem_faults(number))

    def _refused_depthwise(self, number: int) -> str | None:
        operator = self._operators[number][1]
        options = flatbuffer.options(operator, schema.DepthwiseConv2DOptions)
        height, width = self._shape(operator.Inputs(1))[1:3]
        stride, other = options.StrideH(), options.StrideW()
        if (height, width) not in ((3, 3), (5, 5)):
            return f"a {height}x{width} depthwise convolution has no channels-first kernel, only 3x3 and 5x5 have"
        if stride != other or stride not in (1, 2):
            return f"a depthwise convolution must have stride 1 or 2, this one has {stride}x{other}"
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            return "a depthwise convolution must have no dilation"
        if self._shape(operator.Outputs(0))[-1] != self._shape(operator.Inputs(0))[-1]:
            return "a depthwise convolution must make one channel of each"
        if self._padding(number) != (height // 2,) * 4:
            return _PADDING_ADVICE.format(size=height // 2)
        return None

    def _is_pointwise(self, number: int) -> bool:
        name, operator = self._operators[number]
        if name != "CONV_2D":
            return False
        options, filters = flatbuffer.options(operator, schema.Conv2DOptions), self._shape(operator.Inputs(1))
        plain = (options.StrideH(), options.StrideW()) == (1, 1) and self._padding(number) == (0, 0, 0, 0)
        return filters[1:3] == (1, 1) and filters[3] == self._shape(operator.Inputs(0))[-1] and plain

    def _padding(self, number: int) -> tuple[int, ...] | None:
        """Zeros at top, bottom, left and right, those of a PAD before it included; None where XNNPACK cannot know."""
        name, operator = self._operators[number]
        options = flatbuffer.options(operator, _CONVOLUTIONS[name])
        height, width = self._shape(operator.Inputs(1))[1:3]
        if options.Padding() == _SAME:
            if (options.StrideH(), options.StrideW()) != (1, 1):
                return None  # it depends on the size of the image, and XNNPACK does not look at that
            return (height - 1) // 2, height // 2, (width - 1) // 2, width // 2
        before = self._maker.get(operator.Inputs(0))
        if before is None or self._operators[before][0] != "PAD" or not self._merges(before):
            return 0, 0, 0, 0
        amounts = flatbuffer.constant(self._model, self._graph.Tensors(self._operators[before][1].Inputs(1)))
        return tuple(int(amount) for amount in amounts[1:3].ravel())

    def _merges(self, number: int) -> bool:
        """Whether XNNPACK makes a PAD part of the convolution that reads it."""
        readers = self._readers.get(self._operators[number][1].Outputs(0), [])
        if len(readers) != 1 or self._operators[readers[0]][0] not in _CONVOLUTIONS:
            return False
        name, reader = self._operators[readers[0]]
        if flatbuffer.options(reader, _CONVOLUTIONS[name]).Padding() == _SAME:
            return False
        amounts = flatbuffer.constant(self._model, self._graph.Tensors(self._operators[number][1].Inputs(1)))
        return amounts is not None and amounts.shape == (4, 2) and not amounts[[0, 3]].any()

    def _is_mean_over_space(self, number: int) -> bool:
        name, operator = self._operators[number]
        if name != "MEAN" or len(self._shape(operator.Inputs(0))) != 4:
            return False
        axes = flatbuffer.constant(self._model, self._graph.Tensors(operator.Inputs(1)))
        return axes is not None and sorted(axis % 4 for axis in axes.ravel()) == [1, 2]

    def _density(self, pointwise: list[int]) -> float | None:
        total = nonzero = 0
        for number in pointwise:
            index = self._operators[number][1].Inputs(1)
            total += int(np.prod(self._shape(index)))
            nonzero += self._nonzero(index)
        return nonzero / total if total else None

    def _nonzero(self, index: int) -> int:
        """How many values of a weight are not zero, behind the operations that unpack it."""
        while index in self._maker:
            index = self._operators[self._maker[index]][1].Inputs(0)
        tensor = self._graph.Tensors(index)
        values = flatbuffer.constant(self._model, tensor)
        if values is not None:
            return int(np.count_nonzero(values))
        # The sparse encoding: the values that it keeps. (It may keep a zero inside of a block.)
        stored = flatbuffer.stored(self._model, tensor.Buffer())
        return int(np.count_nonzero(stored.view({"FLOAT16": np.float16}.get(flatbuffer.type_name(tensor), np.float32))))

    def _is_float(self, index: int) -> bool:
        return flatbuffer.type_name(self._graph.Tensors(index)).startswith("FLOAT")

    def _shape(self, index: int) -> tuple[int, ...]:
        return flatbuffer.shape(self._graph.Tensors(index))

    def _label(self, number: int) -> str:
        name, operator = self._operators[number]
        return f"{name} ({flatbuffer.short_name(self._graph.Tensors(operator.Outputs(0)))})"


_PADDING_ADVICE = (
    "a padding that is not {size} on each side; put ZeroPadding2D({size}) before it and set its padding to 'valid' "
    "(the converter undoes this where the image's size is odd)"
)
