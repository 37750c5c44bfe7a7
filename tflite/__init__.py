"""Converts Keras models to TFLite files, checks the files against the models, and measures their latency.

* `conversion`: `convert` makes a file; calibration, converter options, weight-only quantization.
* `schema`: `inspect` reads a file, `unsupported_operations` runs it once, `sparse_inference_report` checks it for
  XNNPACK's sparse kernels, `with_metadata` adds labels and normalization.
* `verify`: `Runner` runs a file on images, `check_parity` compares it with its model, `first_divergence` finds the
  layer where they diverge.
* `latency`: `benchmark` measures files on this machine, `measure_latency_table` predicts the latency of widths.
* `android`: `benchmark_android` measures files on phones.
* `micro`: TFLite Micro's interpreter, and files as C arrays.
* `arm`: `count_instructions` runs files on an emulated Arm core and counts what they execute.
* `qat`: quantization-aware training.

Nothing here imports TensorFlow before it is needed, because the processes of the benchmark load this package too.
"""

import importlib
from typing import TYPE_CHECKING

from dcp_tf.deprecated import renamed
from dcp_tf.tflite.conversion.convert import convert
from dcp_tf.tflite.conversion.weight_only import require_quantizer
from dcp_tf.tflite.latency.benchmark import BenchmarkResult, benchmark
from dcp_tf.tflite.qat.bridge import copy_back, to_tf_keras
from dcp_tf.tflite.qat.qat import convert_qat, quantization_aware_training, trained_copy
from dcp_tf.tflite.schema.inspect import count_macs, inspect
from dcp_tf.tflite.schema.kernel_support import unsupported_operations
from dcp_tf.tflite.schema.metadata import Metadata, image_metadata, read_metadata, with_metadata
from dcp_tf.tflite.schema.sparse_inference import SparseReport, sparse_inference_report
from dcp_tf.tflite.types import Inspection, Latency, Parity, Quantization, TensorInfo, TFLiteFile
from dcp_tf.tflite.verify.divergence import LayerError, compare_layers, first_divergence
from dcp_tf.tflite.verify.parity import check_parity, check_tolerance
from dcp_tf.tflite.verify.runner import Runner

if TYPE_CHECKING:
    from dcp_tf.tflite.android.result import AndroidResult
    from dcp_tf.tflite.android.session import AndroidSettings, benchmark_android
    from dcp_tf.tflite.arm.instructions import InstructionCounts, InstructionTimer, count_instructions
    from dcp_tf.tflite.latency.latency_table import LatencyTable, measure_latency_table
    from dcp_tf.tflite.latency.timers import DeviceTimer, HostTimer, open_device

# Imported on first use: the latency table needs the model's graph and with it TensorFlow.
_HOME = {
    **dict.fromkeys(("AndroidSettings", "benchmark_android"), "dcp_tf.tflite.android.session"),
    "AndroidResult": "dcp_tf.tflite.android.result",
    **dict.fromkeys(("InstructionCounts", "InstructionTimer", "count_instructions"), "dcp_tf.tflite.arm.instructions"),
    **dict.fromkeys(("LatencyTable", "measure_latency_table"), "dcp_tf.tflite.latency.latency_table"),
    **dict.fromkeys(("DeviceTimer", "HostTimer", "open_device"), "dcp_tf.tflite.latency.timers"),
}

_renamed = renamed(__name__, {"require": "check_tolerance"}, stacklevel=3)

__all__ = [
    "AndroidResult",
    "AndroidSettings",
    "BenchmarkResult",
    "DeviceTimer",
    "HostTimer",
    "Inspection",
    "InstructionCounts",
    "InstructionTimer",
    "Latency",
    "LatencyTable",
    "LayerError",
    "Metadata",
    "Parity",
    "Quantization",
    "Runner",
    "SparseReport",
    "TFLiteFile",
    "TensorInfo",
    "benchmark",
    "benchmark_android",
    "check_parity",
    "check_tolerance",
    "compare_layers",
    "convert",
    "convert_qat",
    "copy_back",
    "count_instructions",
    "count_macs",
    "first_divergence",
    "image_metadata",
    "inspect",
    "measure_latency_table",
    "open_device",
    "quantization_aware_training",
    "read_metadata",
    "require_quantizer",
    "sparse_inference_report",
    "to_tf_keras",
    "trained_copy",
    "unsupported_operations",
    "with_metadata",
]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    return _renamed(name)


def __dir__() -> list[str]:
    return __all__
