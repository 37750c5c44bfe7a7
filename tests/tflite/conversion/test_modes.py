"""What holds for a file of every mode: it runs, stays near its model, counts the same MACs, and stores what it says."""

import keras
import numpy as np
import pytest
import tflite_models as nets
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.graph import count_cost
from dcp_tf.tflite import Quantization
from dcp_tf.tflite.schema import flatbuffer

FLOAT_MODES = {"float32", "float16", "dynamic", "sparse", "dynamic_int4", "weight_only_int4", "weight_only_int8"}


def convert(model, mode, images, **arguments):
    data = {"representative_data": images} if mode.is_calibrated else {}
    return tflite.convert(model, mode, **data, **arguments)


@pytest.mark.parametrize(
    ("mode", "network"),
    [
        *((mode, "residual") for mode in nets.MODES),
        *nets.quick("dynamic", "int16x8", among=nets.MODES, beside="upsampling"),
    ],
)
def test_a_file_of_any_mode_runs_stays_near_and_counts_the_same_macs(mode, network):
    keras.utils.set_random_seed(0)
    model = nets.zero_kernels(nets.NETWORKS[network]()) if mode == "sparse" else nets.NETWORKS[network]()
    file = convert(model, mode, nets.images(32))
    found = tflite.inspect(file)
    assert found.macs == count_cost(model).macs
    tflite.check_tolerance(tflite.check_parity(file, model, nets.images()), mode)
    assert (found.float_operations == []) is mode.is_integer
    assert [tensor.type for tensor in (*found.inputs, *found.outputs)] == ["FLOAT32", "FLOAT32"]


@pytest.mark.parametrize(
    ("mode", "types"),
    [
        ("float16", {"FLOAT32", "FLOAT16", "INT32"}),
        ("dynamic", {"FLOAT32", "INT8", "INT32"}),
        ("int16x8", {"FLOAT32", "INT16", "INT8", "INT32", "INT64"}),
    ],
)
def test_weights_are_stored_in_the_type_of_the_mode(mode, types):
    model = nets.vgg_like()
    file = convert(model, Quantization(mode), nets.images())
    found = tflite.inspect(file)
    assert set(found.tensor_types) == types
    assert found.size < 0.75 * len(tflite.convert(model).content)


def test_sparse_stores_mostly_zero_weights_in_a_fraction():
    inputs = keras.Input((8, 8, 64))
    x = layers.Conv2D(128, 1, activation="relu")(inputs)
    model = nets.zero_kernels(keras.Model(inputs, layers.Conv2D(64, 1)(x)), 0.9)
    images = np.random.default_rng(0).random((4, 8, 8, 64), np.float32)
    sparse = tflite.convert(model, "sparse")
    assert len(sparse.content) < 0.5 * len(tflite.convert(model).content)
    assert tflite.inspect(sparse).operations["DENSIFY"] == 2
    assert tflite.check_parity(sparse, model, images, outputs="embeddings").max_error < 1e-5


def test_a_model_without_zeros_has_no_sparse_file():
    with pytest.raises(UsageError, match=r"too few zeros .* at most 0%"):
        tflite.convert(nets.residual(), "sparse")


@pytest.mark.skipif(nets.EDGE, reason="ai-edge-quantizer is installed")
@pytest.mark.parametrize("mode", ["weight_only_int4", "weight_only_int8", "dynamic_int4"])
def test_weight_only_says_what_to_install(mode):
    with pytest.raises(UsageError, match=r"pip install 'dcp_tf\[edge\]'"):
        tflite.convert(nets.sequential(), mode)


@pytest.mark.skipif(not nets.EDGE, reason="needs ai-edge-quantizer")
def test_fewer_bits_make_a_smaller_file():
    inputs = keras.Input((16,))
    model = keras.Model(inputs, layers.Dense(8)(layers.Dense(500, activation="relu")(inputs)))
    sizes = [len(tflite.convert(model, m).content) for m in ("float32", "weight_only_int8", "weight_only_int4")]
    assert sizes[2] < sizes[1] < 0.5 * sizes[0]


@pytest.mark.skipif(not nets.EDGE, reason="needs ai-edge-quantizer")
def test_dynamic_int4_computes_with_four_bits_and_keeps_eight_where_no_kernel_has_four():
    inputs = keras.Input((8, 8, 32))
    x = layers.DepthwiseConv2D(3)(layers.Conv2D(64, 1)(inputs))
    file = tflite.convert(keras.Model(inputs, x), "dynamic_int4")
    assert "DEQUANTIZE" not in tflite.inspect(file).operations
    graph = flatbuffer.unpack(file.content).subgraphs[0]
    kernels = [graph.tensors[operator.inputs[1]].type for operator in graph.operators]
    assert kernels == [schema.TensorType.INT4, schema.TensorType.INT8]


def elu():
    inputs = keras.Input((nets.SIZE, nets.SIZE, 3))
    x = layers.ELU(name="soft")(layers.Conv2D(2, 3)(inputs))
    return nets.settle(keras.Model(inputs, layers.Conv2D(2, 3)(x)))


@pytest.mark.parametrize("mode", [Quantization.INT8, Quantization.INT16X8])
def test_an_operation_without_an_integer_kernel_stays_in_float_only_where_that_is_allowed(mode):
    model = elu()
    with pytest.raises(RunError, match="ELU"):
        convert(model, mode, nets.images())
    file = convert(model, mode, nets.images(), allow_float=True)
    assert [name.split()[0] for name in tflite.inspect(file).float_operations] == ["DEQUANTIZE", "ELU", "QUANTIZE"]
    tflite.check_tolerance(tflite.check_parity(file, model, nets.images(), outputs="embeddings"), mode)


def test_allowing_float_changes_nothing_where_all_is_integer():
    model = nets.residual()
    files = [convert(model, Quantization.INT8, nets.images(), allow_float=allowed) for allowed in (False, True)]
    assert files[0].content == files[1].content


def test_int16x8_is_nearer_than_int8():
    model = nets.vgg_like()
    errors = [
        tflite.check_parity(convert(model, mode, nets.images()), model, nets.images()).mean_error
        for mode in (Quantization.INT16X8, Quantization.INT8)
    ]
    assert errors[0] < errors[1]
