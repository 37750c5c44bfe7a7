"""The types that the package shares: modes, files, inspection, parity and latency."""

import dataclasses
import enum
import math
import os
import pathlib

from dcp_tf import files
from dcp_tf.errors import UsageError


class Quantization(enum.StrEnum):
    """How a file stores its weights and computes.

    | mode | weights | computes in | for |
    |---|---|---|---|
    | float32 | 32-bit floats | floats | the reference |
    | float16 | 16-bit floats | floats (16-bit ones on a GPU) | GPUs; half the size |
    | dynamic | int8, large layers only | int8 products, float sums | CPUs, without calibration data |
    | int8 | int8 per channel | int8 | CPUs, DSPs, NPUs |
    | qat | int8 per channel, after training with rounding | int8 | if int8 loses accuracy and there is training data |
    | int16x8 | int8 per channel | int16 activations | if int8 loses accuracy |
    | sparse | floats without the zeros | floats | kernel-pruned weights |
    | dynamic_int4 | int4 per channel, int8 in depthwise layers | int8 products, float sums | small files |
    | weight_only_int4, weight_only_int8 | int4 or int8 per channel | floats | small files |
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    DYNAMIC_INT4 = "dynamic_int4"
    INT8 = "int8"
    QAT = "qat"
    INT16X8 = "int16x8"
    SPARSE = "sparse"
    WEIGHT_ONLY_INT4 = "weight_only_int4"
    WEIGHT_ONLY_INT8 = "weight_only_int8"

    @property
    def is_calibrated(self) -> bool:
        """Whether the mode calibrates the ranges of activations on representative data."""
        return self in (Quantization.INT8, Quantization.INT16X8)

    @property
    def takes_samples(self) -> bool:
        """Whether representative data are of use: to calibrate ranges, or at least to correct biases."""
        return self.is_calibrated or self.weight_bits is not None

    @property
    def is_integer(self) -> bool:
        """Whether all operations compute in integers."""
        return self.is_calibrated or self is Quantization.QAT

    @property
    def weight_bits(self) -> int | None:
        """Bits of a weight in the modes that ai-edge-quantizer makes; None in the others."""
        return {"dynamic_int4": 4, "weight_only_int4": 4, "weight_only_int8": 8}.get(self.value)

    @classmethod
    def parse(cls, value: "str | Quantization") -> "Quantization":
        """The mode called `value`.

        Raises:
            UsageError: there is no such mode.
        """
        try:
            return cls(value)
        except ValueError as error:
            names = ", ".join(mode.value for mode in cls)
            raise UsageError(f"quantization must be one of {names}. Received: {value!r}") from error


@dataclasses.dataclass(frozen=True)
class Limit:
    """The tolerance of a mode; errors are relative to the spread of the outputs.

    Attributes:
        near: a mean error up to this is always accepted.
        far: a mean error up to this is accepted if the predictions agree.
        agreement: the fraction of samples on which they must agree then.
        max_error: the largest single error, for modes without rounding; None: no limit.
    """

    near: float
    far: float
    agreement: float = 0.9
    max_error: float | None = None


# Chosen by the errors of right and of broken files, which docs/decisions/049 lists. Float files differ from Keras by
# the order of sums alone, the other modes round. Where classes are within the rounding of each other, as in a model
# that was hardly trained, decisions flip although the outputs are right; so near outputs are enough, and where they are
# less near, decisions must agree.
LIMITS: dict[str, Limit] = {
    "float32": Limit(near=1e-3, far=1e-3, max_error=1e-3),
    "sparse": Limit(near=1e-3, far=1e-3, max_error=1e-3),
    "float16": Limit(near=0.02, far=0.02),
    "dynamic": Limit(near=0.1, far=0.3),
    "int8": Limit(near=0.25, far=0.5),
    "qat": Limit(near=0.25, far=0.5),
    "int16x8": Limit(near=0.05, far=0.2),
    "weight_only_int8": Limit(near=0.1, far=0.3),
    "weight_only_int4": Limit(near=0.4, far=0.8, agreement=0.8),
    "dynamic_int4": Limit(near=0.4, far=0.8, agreement=0.8),
}


@dataclasses.dataclass(frozen=True)
class TFLiteFile:
    """A converted model: its bytes, its mode, and its path (None: only in memory)."""

    content: bytes = dataclasses.field(repr=False)
    quantization: Quantization
    path: pathlib.Path | None = None

    def save(self, path: str | os.PathLike) -> "TFLiteFile":
        """Writes the file atomically and returns it with its path.

        Raises:
            RunError: the file cannot be written; an earlier file at `path` stays as it was.
        """
        return dataclasses.replace(self, path=files.write_bytes(path, self.content))


def read_content(source: TFLiteFile | str | os.PathLike) -> bytes:
    """The bytes of a converted model or of a .tflite file.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
    """
    if isinstance(source, TFLiteFile):
        return source.content
    path = pathlib.Path(source)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    if content[4:8] != b"TFL3":  # the identifier that every TFLite flatbuffer carries
        raise UsageError(f"{path} is not a TFLite model; give a file that was written by export or tflite.convert")
    return content


def source_name(source: TFLiteFile | str | os.PathLike) -> str:
    """The name of a file in error messages."""
    path = source.path if isinstance(source, TFLiteFile) else source
    return "the converted model" if path is None else str(path)


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file; `type` is the schema's name, such as FLOAT32 or INT8."""

    name: str
    shape: tuple[int, ...]
    type: str


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The content of a file.

    Attributes:
        operations: number of occurrences of each operation, such as {"CONV_2D": 35}.
        tensor_types: number of tensors of each type.
        float_operations: operations that compute on floats, as "NAME (output tensor)", without the QUANTIZE at a float
            input and the DEQUANTIZE at a float output of an integer file.
        conversions: QUANTIZE and DEQUANTIZE operations on activations inside the graph, as "NAME TYPE to TYPE
            (output tensor)". Between equal integer types only the scale changes, as before a CONCATENATION.
        inputs: the inputs of the main graph.
        outputs: the outputs of the main graph.
        macs: multiply-accumulates of one inference at batch size 1.
        size: bytes of the file.
    """

    operations: dict[str, int]
    tensor_types: dict[str, int]
    float_operations: list[str]
    conversions: list[str]
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    macs: int
    size: int

    def difference(self, baseline: "Inspection") -> dict[str, int]:
        """Changes in the number of each operation against `baseline`, without those that did not change."""
        names = sorted({*self.operations, *baseline.operations})
        changes = {name: self.operations.get(name, 0) - baseline.operations.get(name, 0) for name in names}
        return {name: change for name, change in changes.items() if change}


@dataclasses.dataclass(frozen=True)
class Parity:
    """Comparison of the outputs of a file with those of its Keras model.

    Attributes:
        max_error: the largest absolute difference, relative to the spread of the Keras outputs.
        mean_error: the mean absolute difference, relative to the same spread.
        top1_agreement: fraction of samples with equal predictions; None for embeddings.
        top1: accuracy of the file as a fraction of 1; None without labels.
        keras_top1: accuracy of the Keras model; None without labels.
        samples: number of compared samples.
        snr_db: power of the Keras outputs over the power of the error, in decibels; infinite for equal outputs.
        cosine_min: the smallest cosine between the embeddings of a sample by the file and by the Keras model; None for
            other outputs and for embeddings of one value.
        cosine_mean: the mean of these cosines.
    """

    max_error: float
    mean_error: float
    top1_agreement: float | None
    top1: float | None
    keras_top1: float | None
    samples: int
    snr_db: float = math.inf
    cosine_min: float | None = None
    cosine_mean: float | None = None


@dataclasses.dataclass(frozen=True)
class Latency:
    """Measured time of one inference at batch size 1.

    Attributes:
        median_ms: median over the runs, milliseconds; p10_ms and p90_ms are the percentiles.
        p10_ms: tenth percentile.
        p90_ms: ninetieth percentile.
        runs: number of samples.
        invocations_per_run: inferences per sample (more than 1 for very small models).
        delegate: "XNNPACK", or None if the built-in kernels ran everything.
        speedup: time of the first candidate over the time of this one (2.0: twice as fast), median of paired runs.
        speedup_low: lower end of the 95% bootstrap interval of `speedup`.
        speedup_high: upper end of it.
        conclusive: whether the interval of `speedup`, or else that of `speedup_quiet`, is narrow and lies on one side
            of 1. True for the first candidate itself.
        speedup_quiet: the speedup of the quietest runs, see `speedup.Speedup`; None with too few runs.
        speedup_quiet_low: lower end of its 98% interval.
        speedup_quiet_high: upper end of it.
        speedup_by: "median" or "quietest runs", which of the two decides.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    invocations_per_run: int
    delegate: str | None
    speedup: float
    speedup_low: float
    speedup_high: float
    conclusive: bool
    speedup_quiet: float | None = None
    speedup_quiet_low: float | None = None
    speedup_quiet_high: float | None = None
    speedup_by: str = "median"
