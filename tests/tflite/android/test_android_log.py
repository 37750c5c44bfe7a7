import android_logs as logs
import pytest

from dcp_tf.errors import RunError
from dcp_tf.tflite.android import log


def test_all_figures_of_today_s_log():
    parsed = log.parse(logs.HEAD + logs.CPU + logs.measured(14000) + logs.PROFILE)
    assert (parsed.count, parsed.average, parsed.deviation) == (70, 14.0, 0.452)
    assert (parsed.least, parsed.most) == (13.3, 15.4)
    assert (parsed.p5, parsed.median, parsed.p95) == (13.58, 14.0, 14.7)
    assert (parsed.init, parsed.first, parsed.warmup) == (52.687, 19.105, 14.4525)
    assert (parsed.memory_init, parsed.memory_overall, parsed.memory_peak) == (21.9492, 34.5234, 93.2383)
    assert parsed.applied == "completely"
    assert [operation.kind for operation in parsed.operations] == [
        *("QUANTIZE", "Convolution (NHWC, QC8) IGEMM", "Convolution (NHWC, QC8) DWConv")
    ]
    # Thirteen calls of one kernel: the table gives the mean of one.
    assert [operation.ms for operation in parsed.operations] == pytest.approx([0.203, 0.407, 13 * 0.051])
    assert parsed.operations[0].name == "[tfl.quantize]:0"


def test_a_log_of_2020():
    parsed = log.parse(logs.OLD)
    assert (parsed.count, parsed.average, parsed.least, parsed.most) == (50, 33.2094, 32.641, 34.005)
    assert (parsed.p5, parsed.median, parsed.p95) == (None, None, None)
    assert (parsed.memory_init, parsed.memory_overall, parsed.memory_peak) == (0, 12.8672, None)
    assert parsed.applied is None
    # The delegate's node gives way to what is inside it.
    kinds = {operation.kind: operation.ms for operation in parsed.operations}
    assert kinds == {"AVERAGE_POOL_2D": 0.08, "Convolution (NHWC, F32) GEMM": 9.1, "Clamp 6": 2.2}


def test_a_single_inference_has_no_spread():
    text = logs.measured(905463).replace("count=70 first=905463 curr=905463 min=860189.85", "count=1 curr=905463 min=1")
    text = "\n".join(
        "INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463" if "count=1 " in line else line
        for line in text.splitlines()
    )
    parsed = log.parse(text)
    assert (parsed.count, parsed.deviation) == (1, None)
    assert parsed.least == parsed.most == parsed.median == 905.463


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (logs.GPU_REFUSED, "GPU delegate cannot be applied: TfLiteGpuDelegate Init: Unrecognized Write selector"),
        (logs.NNAPI_NOT_EXECUTED, "NNAPI delegate runs no part"),
        ("WARN: GPU acceleration is unsupported on this platform.", "GPU acceleration is not supported"),
    ],
)
def test_refused_delegates_are_seen(text, words):
    assert words in log.refusal(text)


@pytest.mark.parametrize("text", [logs.CPU, logs.GPU])
def test_applied_delegates_are_not_refused(text):
    assert log.refusal(logs.HEAD + text + logs.measured(10)) is None


def test_a_partial_delegate_says_so():
    assert log.parse(logs.GPU + logs.measured(10)).applied == "partially (2 parts)"
    assert log.parse(logs.NNAPI_NOT_EXECUTED + logs.measured(10)).applied == "not applied"


def test_a_log_without_timings_is_a_run_error():
    with pytest.raises(RunError, match="no inference timings: Failed to load model x"):
        log.parse("INFO: STARTING!\nERROR: Failed to load model x\nBenchmarking")
    with pytest.raises(RunError, match="printed nothing"):
        log.parse("")


def test_a_count_may_have_an_exponent_and_the_fastest_inference_no_time():
    text = logs.measured(14000).replace("count=70", "count=1.5e1").replace("min=13300.0", "min=0")
    parsed = log.parse(text)
    assert (parsed.count, parsed.least) == (15, 0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("(avg): 14000", "(avg): 0", r"0 us, .*'Inference timings in us: .*\(avg\): 0': measure a larger model"),
        ("median=14000", "median=0", r"0 us, .*'count=70 .* median=0 .*': measure a larger model"),
        ("max=15400", "max=1.5.4", r"printed '1\.5\.4' instead of a number, in the line 'count=70 "),
        ("count=70", "count=9e999", "printed '9e999' instead of a number"),
    ],
)
def test_figures_that_cannot_be_used_are_a_run_error_with_their_line(old, new, words):
    text = logs.measured(14000)
    assert old in text
    with pytest.raises(RunError, match=words) as caught:
        log.parse(text.replace(old, new))
    assert "\n" not in str(caught.value)


def test_unknown_flags_are_found():
    assert log.unknown_flags("WARN: Unconsumed cmdline flags: --use_xnnpack=true\n") == "--use_xnnpack=true"
    assert log.unknown_flags(logs.HEAD) is None
