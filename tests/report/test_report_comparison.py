"""The table and the plot of a comparison say what compare.json says."""

import io
import re
import statistics
from xml.etree import ElementTree

import pytest
from rich.console import Console
from test_report_page import Page

from dcp_tf.errors import UsageError
from dcp_tf.report import (
    comparison_table,
    comparison_text,
    print_comparison,
    summarize,
    write_comparison,
    write_comparison_page,
)


def record(method, seed, before, after, macs=500_000):
    return {
        "method": method,
        "seed": seed,
        "top1_before_finetuning": before,
        "top1": after,
        "macs": macs,
        "params": 40_000,
        "auxiliary_seconds": 0.0,
        "selection_seconds": 12.0 + seed,
        "finetuning_seconds": 100.0,
    }


@pytest.fixture
def found():
    return {
        "model": "zoo:some|net",
        "dataset": "digits",
        "baseline": {"macs": 1_000_000, "params": 80_000, "top1": 0.95},
        "runs": [
            *(record("l1", seed, 0.40, 0.90 + 0.01 * seed) for seed in range(3)),
            *(record("dcp:selection=exact", seed, 0.80, 0.94, macs=480_000 + 20_000 * seed) for seed in range(2)),
        ],
    }


def printed(found, width=140):
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(comparison_table(found))
    return stream.getvalue()


def test_mean_and_standard_deviation_over_the_seeds(found):
    text = printed(found)
    deviation = 100 * statistics.stdev([0.90, 0.91, 0.92])
    assert re.search(rf"l1 +3 +40\.00 ± 0\.00 +91\.00 ± {deviation:.2f} ", text)
    assert re.search(r"dcp:selection=exact +2 +80\.00 ± 0\.00 +94\.00 ± 0\.00 +490\.00 K \(-51\.00%\)", text)
    assert re.search(r"baseline +- +95\.00 +1\.00 M ", text)


def test_markdown_has_the_cells_of_the_table(found):
    rows = [line.strip("|").split("|") for line in comparison_text(found).splitlines() if line.startswith("| ")]
    assert len(rows) == 4
    shown = printed(found)
    for row in rows:
        assert all(cell.strip() in shown for cell in row)


def test_one_seed_has_no_spread(found):
    found["runs"] = found["runs"][:1]
    assert "±" not in comparison_text(found)


def test_seconds_that_were_not_measured_are_left_out_of_the_mean(found):
    found["runs"][0]["selection_seconds"] = None
    l1 = summarize(found)[0]
    assert l1.figures["selection_seconds"].values == (13.0, 14.0)
    assert l1.runs == 3


def test_failed_runs_are_named_and_not_counted(found, tmp_path):
    found["runs"] = [{"method": "l1", "seed": 0, "failure": "NaN"}, *found["runs"][1:]]
    assert summarize(found)[0].runs == 2
    assert "failed: l1, seed 0: NaN" in comparison_text(found)
    found["runs"] = found["runs"][:1]
    assert [path.name for path in write_comparison(found, tmp_path)] == ["compare.md"]


def test_the_plot_names_every_method(found, tmp_path):
    paths = write_comparison(found, tmp_path)
    assert [path.name for path in paths] == ["compare.md", "compare.png", "compare.svg"]
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    ElementTree.parse(tmp_path / "compare.svg")
    first = (tmp_path / "compare.svg").read_bytes()
    write_comparison(found, tmp_path)
    assert (tmp_path / "compare.svg").read_bytes() == first


def test_without_fine_tuning_there_is_no_top1_after_it(found, tmp_path):
    for run in found["runs"]:
        run["top1"] = None
    assert re.search(r"\| l1 +\| +3 \| 40\.00 ± 0\.00 \| +- \|", comparison_text(found))
    write_comparison(found, tmp_path)


def test_what_is_no_comparison_is_refused():
    with pytest.raises(UsageError, match="baseline and runs"):
        summarize({"runs": []})


def test_a_log_holds_every_figure_in_80_columns(found, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_comparison(found)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for line in comparison_text(found).splitlines():
        if line.startswith(("| l1 ", "| dcp")):
            assert all(cell.strip() in out for cell in line.split("|"))


def headline(found, tmp_path):
    return re.search(r"<h1>(.*?)</h1>", write_comparison_page(found, tmp_path).read_text("utf-8"), re.DOTALL).group(1)


def test_the_page_shows_every_figure_of_the_table_and_every_run(found, tmp_path):
    (tmp_path / "flags.txt").write_text(
        "# dcp-tf compare --flagfile=a/flags.txt --output_dir=ANOTHER_FOLDER repeats this run,\n--seeds=3\n"
    )
    for run in found["runs"]:
        run |= {"kept": {"some_group": [7, 16]}, "top1_by_epoch": [0.5, run["top1"]]}
    page = Page(write_comparison_page(found, tmp_path))
    rows = [line.strip("|").split("|") for line in comparison_text(found).splitlines() if line.startswith("| ")]
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    cells = {cell.strip() for row in rows for cell in row} - {"-"}
    assert {cell for cell in cells if cell not in text} == set()
    assert text.count("dcp:selection=exact") > 5
    assert "some_group" in text
    assert "dcp-tf compare --flagfile=a/flags.txt" in text
    assert "--seeds=3" in text
    assert len(re.findall("<svg[^>]*aria-label", page.source)) == 4
    assert "default-src 'none'" in page.source
    assert "script" not in {tag for tag, _ in page.tags}


@pytest.mark.parametrize(("gain", "images", "said"), [(0.03, 10_000, "is best"), (0.002, 100, "do not differ")])
def test_the_headline_names_a_winner_only_beyond_noise(found, tmp_path, gain, images, said):
    found["conditions"] = {"test_images": images}
    found["runs"] = [record("l1", seed, 0.4, 0.9) for seed in range(2)]
    found["runs"] += [record("dcp", seed, 0.8, 0.9 + gain) for seed in range(2)]
    shown = re.sub("<[^>]+>", "", headline(found, tmp_path))
    assert said in shown
    assert shown.startswith("dcp")
    assert f"{90 + 100 * gain:.2f}%" in shown


def test_of_an_error_the_lowest_is_best(found, tmp_path):
    found["metrics"], found["baseline"] = ["mse"], {"mse": 0.1, "macs": 10, "params": 10}
    found["runs"] = [record(m, 0, 0, 0) | {"mse_before_finetuning": 3.0, "mse": v} for m, v in (("a", 2.0), ("b", 1.0))]
    assert re.sub("<[^>]+>", "", headline(found, tmp_path)).startswith("b is best: mean squared error 1")


def test_a_comparison_whose_runs_all_failed_has_a_page(found, tmp_path):
    found["runs"] = [{"method": "<b>l1</b>", "seed": 0, "failure": "<script>alert(1)</script>"}]
    page = Page(write_comparison_page(found, tmp_path))
    assert "failed: <b>l1</b>, seed 0: <script>alert(1)</script>" in page.text
    assert {"script", "b"}.isdisjoint({tag for tag, _ in page.tags})
