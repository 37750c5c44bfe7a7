import keras
import numpy as np
import pytest
import rich.console
import tflite_models as nets
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import UsageError
from dcp_tf.tflite.latency import operation_times
from dcp_tf.tflite.latency.operation_times import OperationTime, operations_table, time_operations
from dcp_tf.tflite.schema.subgraph import Cutter


def run(content, images):
    return tflite.Runner(tflite.TFLiteFile(content, tflite.Quantization.FLOAT32)).predict(images)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_every_prefix_runs_and_the_longest_is_the_file(quantization):
    data = {"representative_data": nets.images()} if quantization == "int8" else {}
    file = tflite.convert(nets.residual(), quantization, **data)
    cutter, images = Cutter(file.content), nets.images(2)
    parts = [cutter.first(count) for count in range(1, len(cutter) + 1)]
    for count, part in enumerate(parts, start=1):
        assert sum(tflite.inspect(tflite.TFLiteFile(part, file.quantization)).operations.values()) == count
        run(part, images)
    np.testing.assert_array_equal(run(parts[-1], images), run(file.content, images))


def test_an_output_is_cut_out_with_what_it_needs_and_nothing_else():
    inputs = [keras.Input((8, 8, 3)), keras.Input((5,))]
    outputs = [layers.Conv2D(4, 3)(inputs[0]), layers.Dense(3)(inputs[1])]
    file = tflite.convert(nets.settle(keras.Model(inputs, outputs)))
    cutter = Cutter(file.content)
    images, vectors = nets.images(2, size=8), np.random.default_rng(0).random((2, 5), np.float32)
    expected = tflite.Runner(file).predict([images, vectors])
    found = {}
    for number in range(2):
        part = cutter.leading_to(number)
        operations = tflite.inspect(tflite.TFLiteFile(part, file.quantization)).operations
        (kind,) = operations
        found[kind] = run(part, images if kind == "CONV_2D" else vectors)
    np.testing.assert_array_equal(found["CONV_2D"], expected[0])
    np.testing.assert_array_equal(found["FULLY_CONNECTED"], expected[1])


def test_the_heavy_operation_takes_the_time():
    x = inputs = keras.Input((32, 32, 8))
    x = layers.Conv2D(8, 1, name="light")(x)
    x = layers.Conv2D(64, 5, padding="same", activation="relu", name="heavy")(x)
    x = layers.Conv2D(2, 1, name="last")(x)
    operations = time_operations(tflite.convert(keras.Model(inputs, x)).content, threads=1, runs=5)
    assert [operation.kind for operation in operations] == ["CONV_2D"] * 3
    heavy = max(operations, key=lambda operation: operation.ms)
    assert "heavy" in heavy.name
    assert heavy.ms > 0.5 * sum(operation.ms for operation in operations)
    assert all(operation.low <= operation.ms <= operation.high for operation in operations)


def test_no_operation_takes_less_than_nothing(monkeypatch):
    def slower_without(stopwatches, names, *_):
        return np.array([[2.0] * 3, [1.0] * 3])[: len(names)]

    monkeypatch.setattr(operation_times, "measure_interleaved", slower_without)
    first, *others = time_operations(tflite.convert(nets.sequential()).content, threads=1, runs=3)
    assert first.ms == 2
    assert {(operation.low, operation.ms, operation.high) for operation in others} == {(0, 0, 0)}


def test_the_profile_is_in_the_json_and_in_a_table():
    file = tflite.convert(nets.sequential())
    result = tflite.benchmark({"a": file}, runs=2, warmup=0, profile=True)
    found = result.to_json()["candidates"]["a"]["operations"]
    assert [operation["kind"] for operation in found] == [kind for kind, _ in Cutter(file.content).names()]
    assert tflite.benchmark({"a": file}, runs=2, warmup=0).to_json()["candidates"]["a"].get("operations") is None
    operations = [OperationTime("CONV_2D", "conv;fused", 3.0), OperationTime("MEAN", "pool", 1.0)]
    console = rich.console.Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(operations_table(operations, "a"))
    text = console.export_text()
    assert "75.0%" in text
    assert "CONV_2D 3.000 ms, MEAN 1.000 ms" in text
    assert "fused" not in text


def test_control_flow_does_not_come_apart():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 4])])
    def branching(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1, lambda: x * 2)

    content = tf.lite.TFLiteConverter.from_concrete_functions([branching.get_concrete_function()]).convert()
    with pytest.raises(UsageError, match="control flow"):
        Cutter(content)
    cutter = Cutter(content, keep_control_flow=True)
    assert [kind for kind, _ in cutter.names()][-1] == "IF"
    for number in range(len(cutter)):  # a branch stays one operation, with both of its graphs
        assert tflite.unsupported_operations(tflite.TFLiteFile(cutter.alone(number), tflite.Quantization.FLOAT32)) == []
