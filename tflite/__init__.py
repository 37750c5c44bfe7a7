"""From a Keras model to a TFLite file that was checked and measured.

The steps, in order: `convert` makes the file (`calibration` gives the ranges of integer files, `modes` what each mode
tells the converter, `weight_only` the files of few bits), `inspect` reads it, `unsupported_operations` runs it once,
`Runner` runs it on images, `check_parity` compares it with its model, `first_divergence` finds the layer where they
part, `sparse_inference_report` says whether a phone will use its zeros, `with_metadata` lets it explain itself,
`benchmark` measures it here and `benchmark_android` on phones, `measure_latency_table` says before pruning what widths
will take. `types` holds the vocabulary, `flatbuffer` reads tables.
None of them imports TensorFlow before it is needed: the processes of the benchmark load this package too.
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
    from dcp_tf.tflite.latency.latency_table import LatencyTable, measure_latency_table
    from dcp_tf.tflite.latency.timers import DeviceTimer, HostTimer, open_device

# What few need is imported when it is first used: the table needs the model's graph and with it TensorFlow.
_HOME = {
    **dict.fromkeys(("AndroidSettings", "benchmark_android"), "dcp_tf.tflite.android.session"),
    "AndroidResult": "dcp_tf.tflite.android.result",
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
