"""What is said of the files that a run hands over."""

from dcp_tf.tools.app.file_remarks import slower_than_float


def record(model, quantization, p10, median, p90, operations=()):
    latency = {"p10": p10, "median": median, "p90": p90}
    return {"model": model, "quantization": quantization, "latency_ms": latency, "operations": dict(operations)}


def test_integer_files_that_are_slower_than_float_are_named_with_the_reason():
    records = {
        "baseline_float32.tflite": record("baseline", "float32", 4.0, 4.3, 5.0),
        "pruned_float32.tflite": record("pruned", "float32", 2.9, 3.0, 3.5),
        "baseline_int8.tflite": record("baseline", "int8", 15.5, 16.0, 20.0, {"PRELU": 33}),
        "pruned_int8.tflite": record("pruned", "int8", 3.4, 3.6, 4.0, {"PRELU": 33}),
        "pruned_int16x8.tflite": record("pruned", "int16x8", 8.0, 9.0, 9.5, {"CONV_2D": 3}),
    }
    first, second = slower_than_float(records)
    assert first.startswith("baseline_int8.tflite is slower here than float32, 16 ms against 4.3 ms: PRELU")
    assert second == "pruned_int16x8.tflite is slower here than float32, 9 ms against 3 ms"


def test_nothing_is_said_without_a_float32_file_or_a_measurement():
    int8 = record("pruned", "int8", 9.0, 9.0, 9.0)
    assert slower_than_float({"pruned_int8.tflite": int8}) == []
    del int8["latency_ms"]
    assert slower_than_float({"a": record("pruned", "float32", 1.0, 1.0, 1.0), "pruned_int8.tflite": int8}) == []
