"""From a Keras model to a TFLite file that was checked and measured.

The steps, in order: `convert` makes the file (`calibration` gives the ranges of integer files, `modes` what each mode
tells the converter, `weight_only` the files of few bits), `inspect` reads it, `unsupported_operations` runs it once,
`Runner` runs it on images, `check_parity` compares it with its model, `first_divergence` finds the layer where they
part, `sparse_inference_report` says whether a phone will use its zeros, `with_metadata` lets it explain itself,
`benchmark` measures it. `types` holds the vocabulary, `flatbuffer` reads tables.
None of them imports TensorFlow before it is needed: the processes of the benchmark load this package too.
"""

from dcp_tf.tflite.benchmark import BenchmarkResult, benchmark
from dcp_tf.tflite.bridge import copy_back, to_tf_keras
from dcp_tf.tflite.convert import convert
from dcp_tf.tflite.divergence import LayerError, compare_layers, first_divergence
from dcp_tf.tflite.inspect import count_macs, inspect
from dcp_tf.tflite.kernels import unsupported_operations
from dcp_tf.tflite.metadata import Metadata, image_metadata, read_metadata, with_metadata
from dcp_tf.tflite.parity import check_parity, require
from dcp_tf.tflite.qat import convert_qat, quantization_aware_training, trained_copy
from dcp_tf.tflite.runner import Runner
from dcp_tf.tflite.sparse_inference import SparseReport, sparse_inference_report
from dcp_tf.tflite.types import Inspection, Latency, Parity, Quantization, TensorInfo, TFLiteFile
from dcp_tf.tflite.weight_only import require_quantizer

__all__ = [
    "BenchmarkResult",
    "Inspection",
    "Latency",
    "LayerError",
    "Metadata",
    "Parity",
    "Quantization",
    "Runner",
    "SparseReport",
    "TFLiteFile",
    "TensorInfo",
    "benchmark",
    "check_parity",
    "compare_layers",
    "convert",
    "convert_qat",
    "copy_back",
    "count_macs",
    "first_divergence",
    "image_metadata",
    "inspect",
    "quantization_aware_training",
    "read_metadata",
    "require",
    "require_quantizer",
    "sparse_inference_report",
    "to_tf_keras",
    "trained_copy",
    "unsupported_operations",
    "with_metadata",
]
