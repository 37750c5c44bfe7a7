import compiled_runs as runs
import pytest

from dcp_tf.errors import RunError
from dcp_tf.tflite.android import compiled, log


def test_all_figures_of_the_result():
    parsed = compiled.figures(runs.result(8.0), "completely")
    assert (parsed.median, parsed.average, parsed.first) == pytest.approx((8, 8.08, 16))
    assert (parsed.least, parsed.p5, parsed.p95, parsed.most) == pytest.approx((7.6, 7.76, 8.4, 12))
    assert (parsed.deviation, parsed.init, parsed.warmup) == pytest.approx((0.24, 50, 8.8))
    assert (parsed.memory_init, parsed.memory_overall, parsed.memory_peak) == (2, 4, None)
    assert (parsed.count, parsed.applied, parsed.operations) == (70, "completely", ())
    assert compiled.figures(runs.result(8.0, memory=False), None).memory_overall is None


@pytest.mark.parametrize("content", [b"", b"\xff\xff", runs.result(8.0)[:20]])
def test_a_damaged_result_is_a_run_error(content):
    with pytest.raises(RunError, match="no readable result"):
        compiled.figures(content, None)


def test_an_inference_without_time_is_a_run_error():
    with pytest.raises(RunError, match="0 ms"):
        compiled.figures(runs.result(0.0), None)


@pytest.mark.parametrize(
    ("delegates", "accelerator", "expected"),
    [
        ({"LITERT_CL": 20}, "gpu", "completely"),
        ({"LITERT_CL": 15, "TfLiteXNNPackDelegate": 5}, "gpu", "partially (15 of 20 operations)"),
        ({"TfLiteXNNPackDelegate": 20}, "gpu", "not applied"),
        ({}, "npu", "not applied"),
        ({"TfLiteXNNPackDelegate": 20}, "cpu", "completely"),
        ({"TfLiteXNNPackDelegate": 18}, "cpu", "partially (18 of 20 operations)"),
    ],
)
def test_the_graph_tells_what_ran_where(delegates, accelerator, expected):
    assert compiled.share(runs.graph(20, **delegates), "", accelerator) == expected


def test_without_a_graph_the_log_tells_or_nothing():
    text = "Replacing 470 out of 476 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 13 partitions"
    assert compiled.share(None, text, "npu") == "not applied"
    assert compiled.share(None, text, "cpu") == "partially (470 of 476 operations)"
    assert compiled.share(None, "INFO: STARTING!", "gpu") is None
    assert compiled.share(b"\xff\xff", "INFO: STARTING!", "gpu") is None


def test_the_log_of_a_tool_that_writes_no_result():
    parsed = log.parse(runs.LOG.replace("{us}", "14000"))
    assert (parsed.count, parsed.median, parsed.average, parsed.p5) == (70, 14, 14, 9.1)
    assert (parsed.init, parsed.first, parsed.warmup) == (52.69, 19.11, 14.45)
    assert (parsed.memory_init, parsed.memory_overall, parsed.memory_peak) == (21.95, 34.52, None)
