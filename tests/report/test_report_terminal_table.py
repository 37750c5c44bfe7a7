"""The summary table: what it says, that it fits, and that noise is never shown as a gain."""

import copy
import io
import re

import numpy as np
import pytest
from rich.console import Console

from dcp_tf.errors import UsageError
from dcp_tf.report import formats, print_summary, summary_table
from dcp_tf.report.terminal_table import files_table


def printed(summary, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(summary_table(summary))
    return stream.getvalue()


def line_of(text, label):
    return next(line for line in text.splitlines() if label in line)


def test_every_row_compares_baseline_and_pruned(run_summary):
    text = printed(run_summary)
    assert re.search(r"Top-1 +98\.33% +98\.06% +-0\.28 points", text)
    assert re.search(r"before fine-tuning +- +91\.11% +-7\.22 points", text)
    assert re.search(r"Parameters +272,474 +136,902 +-49\.76%", text)
    assert re.search(r"MACs +40,813,184 +20,496,000 +-49\.78%", text)
    assert re.search(r"float32 size +1\.05 MiB +547\.9 KiB +-49\.06%", text)
    assert re.search(r"float32 latency +0\.75 ms \(0\.73-0\.80\) +0\.42 ms \(0\.41-0\.45\) +1\.79x", text)


def test_it_fits_80_columns_without_broken_rows(run_summary):
    text = printed(run_summary)
    assert max(map(len, text.splitlines())) <= 80
    assert line_of(text, "int8 latency").rstrip().endswith("1.03x (?)")
    assert "0.30 ms (0.29-0.32)" in line_of(text, "int8 latency")


def test_inconclusive_speedup_is_marked_and_explained(run_summary):
    text = printed(run_summary)
    assert "1.03x (?)" in text
    assert "(?) inconclusive" in text
    assert "1.79x (?)" not in text
    conclusive = copy.deepcopy(run_summary)
    conclusive["tflite"]["pruned_int8.tflite"]["conclusive"] = True
    assert "(?)" not in printed(conclusive)


def test_a_speedup_that_does_not_say_it_is_conclusive_counts_as_inconclusive(run_summary):
    del run_summary["tflite"]["pruned_float32.tflite"]["conclusive"]
    assert "1.79x (?)" in printed(run_summary)


def test_absent_figures_leave_their_rows_out(run_summary):
    del run_summary["tflite"], run_summary["baseline"]["top5"], run_summary["pruned"]["top5"]
    del run_summary["pruned"]["top1_before_finetuning"]
    text = printed(run_summary)
    for absent in ("Top-5", "before fine-tuning", "size", "latency"):
        assert absent not in text


def test_a_file_without_its_counterpart_keeps_its_row(run_summary):
    del run_summary["tflite"]["baseline_int8.tflite"]
    assert re.search(r"int8 size +- +186\.7 KiB +-$", line_of(printed(run_summary), "int8 size").rstrip())


def test_a_baseline_alone_can_be_shown(run_summary):
    del run_summary["pruned"], run_summary["tflite"]
    assert re.search(r"Parameters +272,474 +- +-", printed(run_summary))


def test_two_files_of_one_quantization_are_both_shown(run_summary):
    run_summary["tflite"]["pruned_again.tflite"] = dict(run_summary["tflite"]["pruned_int8.tflite"], bytes=2048)
    assert "2.0 KiB" in line_of(printed(run_summary), "int8 (2) size")


def test_names_are_shown_as_they_are_not_as_markup(run_summary):
    run_summary["dataset"] = "folder:[bold]/data"
    assert "folder:[bold]/data" in printed(run_summary)


def test_print_summary_writes_plain_text_to_a_log(run_summary, capsys):
    print_summary(run_summary)
    out = capsys.readouterr().out
    assert "Parameters" in out
    assert "\x1b" not in out


def test_numpy_figures_count_as_figures(run_summary):
    run_summary["pruned"].update(top1=np.float32(0.98056), macs=np.int64(20496000))
    assert "98.06%" in printed(run_summary)
    assert "20,496,000" in printed(run_summary)


@pytest.mark.parametrize(
    "wrong", [[], None, {"tflite": []}, {"baseline": 3}, {"tflite": {"a": 1}}, {"tflite": {"a": {"latency_ms": 2}}}]
)
def test_what_is_no_summary_is_refused_in_one_line(wrong):
    with pytest.raises(UsageError, match=r"summary\.json") as caught:
        summary_table(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.size(812), "812 bytes"),
        (formats.size(332384), "324.6 KiB"),
        (formats.size(1101232), "1.05 MiB"),
        (formats.short_count(9999), "9,999"),
        (formats.short_count(272474), "272.47 K"),
        (formats.short_count(4089184256), "4.09 G"),
        (formats.latency({"median": 0.0421}), "0.042 ms"),
        (formats.latency({"median": 123.4, "p10": 122, "p90": 130.6}), "123 ms (122-131)"),
        (formats.points(0.5, 0.5), "0.00 points"),
        (formats.change(100, 110), "+10.00%"),
        (formats.change(0, 110), "-"),
        (formats.duration(31.24), "31.2 s"),
        (formats.duration(245), "4 min 05 s"),
        (formats.duration(7620), "2 h 07 min"),
        (formats.percent(float("nan")), "-"),
        (formats.plain([True, None, 0.5]), "true, none, 0.5"),
    ],
)
def test_formats(text, expected):
    assert text == expected


def test_the_files_fit_80_columns_with_names_in_one_piece():
    record = {"bytes": 123_456_789, "top1": 0.98, "top1_agreement": 0.99, "max_error": 0.0123}
    names = [
        f"{model}_{mode}.tflite" for model in ("baseline", "pruned") for mode in ("float32", "int8_io8", "int16x8")
    ]
    stream = io.StringIO()
    Console(file=stream, width=80, color_system=None).print(files_table(dict.fromkeys(names, record)))
    for name in names:
        assert name in stream.getvalue()


def test_a_speedup_of_the_quietest_runs_is_shown_as_such_and_the_machine_is_named():
    file = {"quantization": "int8", "bytes": 1000, "latency_ms": {"median": 0.4, "p10": 0.2, "p90": 0.9}}
    pruned = file | {"model": "pruned", "speedup": 0.99, "speedup_interval": [0.7, 1.4], "conclusive": True}
    pruned |= {"speedup_by": "quietest runs", "speedup_quiet": 1.45, "speedup_quiet_interval": [1.3, 1.6]}
    files = {"a": file | {"model": "baseline"}, "b": pruned | {"latency_device": "A processor"}}
    text = printed({"baseline": {"macs": 10}, "pruned": {"macs": 5}, "tflite": files})
    assert "1.45x (q)" in text
    assert "0.99x" not in text
    assert "(q) of the quietest runs" in text
    assert "latency: on A processor; dcp-tf benchmark --device=android measures a phone" in " ".join(text.split())


def test_changes_from_nearly_nothing_are_no_percentages():
    assert formats.change(1e-12, 0.0114) == "+0.0114"
    assert formats.change(2.0, 3.0) == "+50.00%"
    assert formats.difference(0.01, 0.5) == "+0.49"
