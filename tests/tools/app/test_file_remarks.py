"""Remarks on the files of a run: larger than the baseline, slower than float, close to the rounding noise."""

from dcp_tf.tools.app.file_remarks import remarks, slower_than_float, slower_than_promised


def timed(model, quantization, p10, median, p90, operations=()):
    latency = {"p10": p10, "median": median, "p90": p90}
    return {"model": model, "quantization": quantization, "latency_ms": latency, "operations": dict(operations)}


def test_integer_files_that_are_slower_than_float_are_named_with_the_reason():
    records = {
        "baseline_float32.tflite": timed("baseline", "float32", 4.0, 4.3, 5.0),
        "pruned_float32.tflite": timed("pruned", "float32", 2.9, 3.0, 3.5),
        "baseline_int8.tflite": timed("baseline", "int8", 15.5, 16.0, 20.0, {"PRELU": 33}),
        "pruned_int8.tflite": timed("pruned", "int8", 3.4, 3.6, 4.0, {"PRELU": 33}),
        "pruned_int16x8.tflite": timed("pruned", "int16x8", 8.0, 9.0, 9.5, {"CONV_2D": 3}),
    }
    first, second = slower_than_float(records)
    assert first.startswith("baseline_int8.tflite is slower here than float32, 16 ms against 4.3 ms: PRELU")
    assert "--replace_prelu" in first
    assert second == "pruned_int16x8.tflite is slower here than float32, 9 ms against 3 ms"


def test_nothing_is_said_without_a_float32_file_or_a_measurement():
    int8 = timed("pruned", "int8", 9.0, 9.0, 9.0)
    assert slower_than_float({"pruned_int8.tflite": int8}) == []
    del int8["latency_ms"]
    assert slower_than_float({"a": timed("pruned", "float32", 1.0, 1.0, 1.0), "pruned_int8.tflite": int8}) == []


def record(model="pruned", quantization="float32", size=100, snr=30.0):
    return {"model": model, "quantization": quantization, "bytes": size, "snr_db": snr, "float_operations": []}


def test_a_pruned_file_that_grew_is_remarked():
    records = {"baseline_float32.tflite": record("baseline"), "pruned_float32.tflite": record(size=99)}
    assert remarks(records) == []
    records["pruned_float32.tflite"]["bytes"] = 101
    assert remarks(records)[0].startswith("pruned_float32.tflite is not smaller than the baseline's file, 101 bytes")
    assert remarks({"pruned_float32.tflite": record()}) == []


def test_outputs_that_are_hardly_above_the_rounding_are_remarked():
    assert remarks({"a_int8.tflite": record(snr=15.1), "b": record(snr=None)}) == []
    (line,) = remarks({"a_int8.tflite": record(snr=9.5)})
    assert line.startswith("a_int8.tflite: its outputs are 9.5 dB above the error")


def test_operations_outside_of_xnnpack_are_remarked():
    (line,) = remarks({"a_int8.tflite": record() | {"outside_xnnpack": {"PRELU": 33, "SPLIT": 1}}})
    assert line == "a_int8.tflite: outside of XNNPACK, on the slow kernels of the interpreter: PRELU (33), SPLIT (1)"


def test_integer_files_that_surely_gain_less_than_their_macs_promise_are_named():
    def pruned(high, **changes):
        gain = {"speedup": high - 0.1, "speedup_interval": [high - 0.2, high], "conclusive": True, "macs": 50}
        return {
            "baseline_int8.tflite": {"model": "baseline", "quantization": "int8", "macs": 100},
            "pruned_int8.tflite": {"model": "pruned", "quantization": "int8", **gain, **changes},
        }

    (line,) = slower_than_promised(pruned(1.79))
    assert line.startswith("pruned_int8.tflite gains 1.69x here, its multiply-accumulates promise 2.00x")
    assert "--prune_blocks" in line
    for others in ({"conclusive": False}, {"quantization": "float32"}, {"macs": 60}):
        assert slower_than_promised(pruned(1.79, **others)) == []
    assert slower_than_promised(pruned(1.81)) == []
