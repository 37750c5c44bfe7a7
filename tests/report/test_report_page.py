"""report.html: complete, self-contained, safe against odd names, and small and quick for large networks."""

import collections
import html.parser
import pathlib
import re
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcp_tf import files
from dcp_tf.errors import RunError, UsageError
from dcp_tf.report import formats, write_report

ROOT = pathlib.Path(__file__).parents[2]
INLINE = {"wbr", "span", "b", "strong"}
VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}


class Page(html.parser.HTMLParser):
    """The tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.open, self.words = [], [], []
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join("".join(self.words).replace("−", "-").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in INLINE:
            self.words.append(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def values(self, *names):
        return [attrs[name] for _, attrs in self.tags for name in names if attrs.get(name) is not None]

    def headings(self):
        return [attrs.get("id") for tag, attrs in self.tags if tag == "h2"]


@pytest.fixture(scope="module")
def page(complete_run):
    """The page of a complete run."""
    return Page(write_report(complete_run))


def test_every_figure_of_the_summary_is_on_the_page(page, run_summary):
    expected = [f"seed {run_summary['seed']}", "2026-11-22 17:00 UTC", "0.1.0", formats.duration(321.1)]
    for model in (run_summary["baseline"], run_summary["pruned"]):
        expected += [formats.count(model[key]) for key in ("params", "macs", "flops")]
        expected += [formats.percent(value) for key, value in model.items() if key.startswith("top")]
    for name, file in run_summary["tflite"].items():
        expected += [name, formats.size(file["bytes"]), formats.percent(file["top1"]), formats.short(file["max_error"])]
        expected += [formats.percent(file["top1_agreement"]), formats.latency(file["latency_ms"])]
        expected += [formats.ratio(file["speedup"])]
        if file["model"] == "pruned":
            expected.append(formats.interval(file["speedup_interval"]))
    for phase in run_summary["phases"]:
        expected += [phase["name"], formats.duration(phase["seconds"])]
        for entry in phase.get("history", []):
            expected += [formats.short(entry["loss"]), formats.percent(entry["top1"])]
            expected += [formats.short(entry["learning_rate"])]
    for key, value in {**run_summary["settings"], **run_summary["versions"]}.items():
        expected += [key, formats.plain(value)]
    assert [text for text in expected if text not in page.text] == []


def test_the_plan_and_the_benchmark_are_on_the_page(page):
    assert "block4_conv1 8 of 16" in page.text
    assert "40 of 80 channels" in page.text
    assert "an output logits (10)" in page.text
    assert "3 → 0.375" in page.text
    assert "a desk lamp" in page.text
    assert "7.77 ms (7.70-7.90)" in page.text


def test_conditions_told_of_each_file_are_told_once(run_summary, make_run):
    candidate = {"median_ms": 0.4, "p10_ms": 0.4, "p90_ms": 0.5, "runs": 44, "delegate": None}
    benchmark = {"device": "a desk lamp", "baseline": "a.tflite", "candidates": {"a": candidate, "b": candidate}}
    text = Page(write_report(make_run(summary=run_summary, benchmark=benchmark))).text
    assert "Measured with device a desk lamp delegate none runs 44" in text


def test_an_inconclusive_speedup_says_so(page):
    assert re.search(r"1\.03x \(0\.96-1\.09\) inconclusive", page.text)
    assert "is within measurement noise" in page.text
    assert not re.search(r"1\.79x \(1\.71-1\.85\) inconclusive", page.text)


def test_nothing_comes_from_the_network_and_no_script_runs(page):
    for address in page.values("src", "href", "xlink:href", "data", "poster", "action"):
        assert address.startswith(("#", "data:"))
    style = re.search(r"<style>.*?</style>", page.source, re.DOTALL).group(0)
    assert "@import" not in style
    assert "url(" not in style
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_ids_are_unique_and_every_reference_meets_one(page):
    ids = collections.Counter(page.values("id"))
    assert [name for name, uses in ids.items() if uses > 1] == []
    references = {address[1:] for address in page.values("href", "xlink:href") if address.startswith("#")}
    references |= set(re.findall(r"url\(#([^)]+)\)", page.source))
    references |= set(page.values("aria-labelledby"))
    assert references <= set(ids)


def test_the_page_can_be_read_by_everyone(page):
    tags = dict(page.tags)
    assert tags["html"]["lang"] == "en"
    assert any(attrs.get("name") == "viewport" for tag, attrs in page.tags if tag == "meta")
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
            assert "width" not in attrs
    assert "prefers-color-scheme: dark" in page.source
    assert "@media print" in page.source


def test_every_figure_is_drawn_in_the_colors_of_the_page(page):
    shown = [
        ("Top-1 accuracy against multiply-adds: baseline 98.33% at 40,813,184 MACs", {"--baseline", "--pruned"}),
        ("Top-1 accuracy against latency: baseline_float32.tflite 98.33% at 0.75 ms", {"--baseline", "--pruned"}),
        ("Loss of the greedy selection in 5 layers", {"--muted"}),
        ("train baseline, 6 epochs: loss from 2 to 0.3333, top1 from 0.5 to 0.9167", {"--pruned"}),
        ("fine-tune, 3 epochs: loss from 2 to 0.6667, top1 from 0.5 to 0.8333", {"--pruned"}),
    ]
    figures = re.findall(r"<svg[^>]*aria-label.*?</svg>", page.source, re.DOTALL)
    figures = [figure for figure in figures if "layers from left to right" not in figure]
    assert len(figures) == len(shown)
    defined = set(re.findall(r"(--[a-z-]+):", page.source))
    for figure, (label, colors) in zip(figures, shown, strict=True):
        assert label in figure
        used = set(re.findall(r"var\((--[a-z-]+)\)", figure))
        assert colors | {"--line"} <= used <= defined
        assert figure.count("<path") > 10
        assert not re.search(r"#0[1-9]0", figure)  # a stand-in for a color of the page


@pytest.mark.parametrize(
    ("absent", "headings"),
    [
        (["tflite"], {"files", "latency-heading"}),
        (["phases"], {"training", "time"}),
        (["settings"], {"settings"}),
        (["versions"], {"versions"}),
        (["tflite", "pruned"], {"files", "latency-heading", "tradeoff"}),
        (["baseline", "pruned", "tflite"], {"models", "files", "latency-heading", "tradeoff"}),
    ],
)
def test_absent_records_leave_their_sections_out(page, run_summary, make_plan, make_run, absent, headings):
    complete = set(page.headings())
    assert headings <= complete
    for key in absent:
        del run_summary[key]
    remaining = Page(write_report(make_run(summary=run_summary, plan=make_plan(2)))).headings()
    assert set(remaining) == complete - headings


def test_without_a_plan_and_a_benchmark_the_rest_stays(page, run_summary, make_run):
    headings = Page(write_report(make_run(summary=run_summary))).headings()
    assert set(headings) == set(page.headings()) - {"layers", "pinned", "selection"}


def test_a_summary_with_nothing_in_it_still_gives_a_page(make_run):
    assert Page(write_report(make_run(summary={}))).headings() == []


def test_the_page_forbids_scripts_and_the_network(page):
    (policy,) = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert allowed["default-src"] == "'none'"
    assert "script-src" not in allowed
    assert allowed["img-src"] == "data:"


def test_the_headline_compares_the_files_that_ship(page, run_summary, make_run):
    assert "42% smaller, as fast within noise, top-1 accuracy 0.28 points lower" in page.text
    for file in list(run_summary["tflite"]):
        if "int8" in file:
            del run_summary["tflite"][file]
    assert "49% smaller, 1.79x as fast, top-1 accuracy 0.28" in Page(write_report(make_run(summary=run_summary))).text
    del run_summary["tflite"]
    run_summary["pruned"]["top1"] = run_summary["baseline"]["top1"]
    text = Page(write_report(make_run(summary=run_summary))).text
    assert "50% fewer multiply-adds, top-1 accuracy unchanged" in text


def test_the_file_that_ships_is_in_the_cards(page):
    assert "File, int8 186.7 KiB -42.47% from 324.6 KiB" in page.text
    assert "Top-1, int8 97.78% -0.28 points from 98.06%" in page.text


def test_accuracies_have_the_intervals_of_so_many_images(run_summary, make_run):
    assert "95% interval" not in Page(write_report(make_run(summary=run_summary))).text
    run_summary["baseline_check"] = {"part": "test", "images": 360, "warning": []}
    text = Page(write_report(make_run(summary=run_summary))).text
    assert "95% interval 96.41-99.23% 96.04-99.05%" in text  # of 354 and 353 of 360
    assert "-0.28 points from 98.33%; 95% interval 96.04-99.05%" in text


ANSWERS = {
    "images": 30,
    "class_names": ["cat", "dog"],
    "per_class": [[10, 10, 8], [20, 18, 19], [0, 0, 0]],
    "changed": {"lost": 3, "gained": 2, "other": 1},
    "p_value": 1.0,
    "examples": [
        {"image": 4, "label": 0, "baseline": 0, "pruned": 1, "picture": "data:image/png;base64,AAAA"},
        {"image": 9, "label": 1, "baseline": 0, "pruned": 2, "picture": "javascript:alert(1)"},
    ],
}


def test_what_changed_in_the_answers_is_shown(run_summary, make_run):
    page = Page(write_report(make_run(summary=run_summary, answers=ANSWERS)))
    assert "6 of 30 test images changed their answers: 3 that were right are wrong now, 2 that were wrong" in page.text
    assert "as large a difference (exact McNemar test, p = 1)" in page.text
    assert "cat (10) 100.00% → 80.00% -20.00 points" in page.text
    assert "dog (20) 90.00% → 95.00% +5.00 points" in page.text
    assert page.values("src") == ["data:image/png;base64,AAAA"]
    assert "dog cat 2 wrong otherwise" in page.text
    with pytest.raises(UsageError, match=r"answers\.json is malformed"):
        write_report(make_run(summary=run_summary, answers={**ANSWERS, "per_class": [[1, 2]]}))


def test_of_many_classes_those_that_lost_most_come_first(run_summary, make_run):
    answers = {**ANSWERS, "class_names": [], "per_class": [[100, 50 + k, 50] for k in range(40)]}
    text = Page(write_report(make_run(summary=run_summary, answers=answers))).text
    assert "Accuracy per class: the 12 that lost most of 40 39 (100) 89.00% → 50.00%" in text


def test_the_layers_are_drawn_in_their_order(run_summary, make_plan, make_run):
    layers = [{"layer": f"conv{n}", "before": 16, "after": 16 - n, "macs_before": 90, "macs_after": 10} for n in (0, 4)]
    page = Page(write_report(make_run(summary={**run_summary, "layers": layers}, plan=make_plan(2))))
    bars = [attrs for tag, attrs in page.tags if tag == "rect" and "class" in attrs]
    assert [(bar["class"], float(bar["x"]), float(bar["height"])) for bar in bars] == [
        ("whole", 1, 100),
        ("removed", 11, 100),
        ("kept", 11, 75),
    ]
    assert "conv4: 12 of 16 channels, MACs 90 → 10" in page.text


def test_losses_have_the_names_of_their_heads_and_the_level_of_chance(run_summary, make_run):
    history = [{"epoch": epoch, "loss": 9 / epoch, "losses": [1.5 / epoch, 1 / epoch]} for epoch in (1, 2)]
    heads = [{"layer": "block_2", "output": "", "loss": 0.5, "constant": 2.0}]
    phase = {"name": "auxiliary", "seconds": 1.0, "heads": ["block_2"], "head_losses": heads, "history": history}
    run_summary["phases"] = [{**phase, "heads_at_chance": ["block_2"]}]
    page = Page(write_report(make_run(summary=run_summary)))
    assert "loss at block_2 from 1.5 to 0.75, loss of the model from 1 to 0.5" in page.source
    assert ">chance<" in page.source
    assert "block_2 0.5 of 2" in page.text
    (mark,) = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "mark"]
    assert mark == "left: 80.00%"
    assert "the auxiliary classifiers at block_2 are hardly better than a constant answer" in page.text


def test_the_page_says_what_to_try_next_and_how_to_repeat_the_run(run_summary, make_run):
    folder = make_run(summary={**run_summary, "advice": ["try --finetune_epochs=30"]})
    (folder / "flags.txt").write_text(
        "# dcp-tf prune --flagfile=runs/a b/flags.txt --output_dir=OTHER repeats this run,\n# from here.\n"
        "--model=my model.keras\n--seed=3\n"
    )
    text = Page(write_report(folder)).text
    assert "What to try next try --finetune_epochs=30" in text
    assert "dcp-tf prune '--flagfile=runs/a b/flags.txt' --output_dir=OTHER Or" in text
    assert "dcp-tf prune \\ '--model=my model.keras' \\ --seed=3" in text


def test_where_accuracy_is_as_before_more_can_be_removed(run_summary, make_run):
    for changes, p_value, expected in (
        ({}, 1.0, "a rate of 0.65"),
        ({"target_macs": "60%"}, None, "a lower target_macs"),
    ):
        summary = {**run_summary, "settings": {**run_summary["settings"], **changes}}
        text = Page(write_report(make_run(summary=summary, answers={**ANSWERS, "p_value": p_value}))).text
        assert f"a smaller model may do as well: try {expected}" in text
        for other in ({"advice": ["rest"]}, {"failures": ["a file"]}):
            assert (
                "smaller model" not in Page(write_report(make_run(summary={**summary, **other}, answers=ANSWERS))).text
            )
    assert (
        "smaller model" not in Page(write_report(make_run(summary=summary, answers={**ANSWERS, "p_value": 0.01}))).text
    )


HOSTILE = st.one_of(
    st.sampled_from(
        ["</style><script>", "'\"><img src=x onerror=alert(1)>", "--><!--", "]]>&lt;", "{{ 7*7 }}", "</title>", "$x^2$"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(HOSTILE, min_size=6, max_size=6))
def test_no_name_becomes_markup(run_summary, make_plan, make_run, names):
    model, layer, label, reason, head, phase = names
    plan = make_plan(1, steps=1)
    plan["groups"][0]["name"], plan["groups"][-1]["pinned_because"] = layer, reason or "x"
    answers = {**ANSWERS, "class_names": [label, model]}
    heads = [{"layer": head, "output": label, "loss": 0.5, "constant": 2.0}]
    tags = []
    for odd in (False, True):
        summary = {
            "model": model if odd else "m",
            "settings": {layer: reason} if odd else {"a": "b"},
            "pruned": run_summary["pruned"],
            "baseline": run_summary["baseline"],
            "layers": [{"layer": layer if odd else "l", "before": 8, "after": 4}] * 2,
            "advice": [phase if odd else "p"],
            "phases": [
                {
                    "name": phase if odd else "p",
                    "seconds": 1.0,
                    "head_losses": heads if odd else [heads[0] | {"layer": "h", "output": "o"}],
                }
            ],
        }
        folder = make_run(
            summary=summary, plan=plan if odd else make_plan(1, steps=1), answers=answers if odd else ANSWERS
        )
        tags.append(collections.Counter(tag for tag, _ in Page(write_report(folder)).tags if tag != "wbr"))
    assert tags[0] == tags[1]


def test_odd_names_are_shown_and_never_obeyed(run_summary, make_plan, make_run):
    odd = '<script>alert("1")</script> & $x$ \'"'
    plan = make_plan(2)
    plan["groups"][0]["name"] = plan["groups"][-1]["pinned_because"] = odd
    file = run_summary["tflite"].pop("pruned_int8.tflite")
    run_summary.update(model=odd, dataset=odd, method=odd, settings={odd: odd}, versions={odd: odd})
    run_summary["tflite"][odd] = {**file, "quantization": odd}
    run_summary["phases"][0]["name"] = odd
    run_summary["phases"][0]["history"][0][odd] = 0.25
    page = Page(write_report(make_run(summary=run_summary, plan=plan, benchmark={odd: odd})))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count('alert("1")') > 10


def test_a_folder_without_a_summary_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no summary\.json"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match=r"no summary\.json"):
        write_report(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("groups", [{}, "x", [1], [{"name": "a", "size": 0, "kept": []}], [{"name": "a", "size": 4}]])
def test_a_broken_plan_is_refused_in_one_line(run_summary, make_run, groups):
    folder = make_run(summary=run_summary, plan={"groups": groups or [{}]})
    with pytest.raises(UsageError, match=r"plan\.json") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


def test_the_old_page_stands_until_the_new_one_is_whole(run_summary, make_run, monkeypatch):
    folder = make_run(summary=run_summary)
    (folder / "report.html").write_text("the old page")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", no_space)
        with pytest.raises(RunError, match="No space left"):
            write_report(folder)
    assert (folder / "report.html").read_text() == "the old page"
    assert write_report(folder) == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "summary.json"]


def test_the_same_records_give_the_same_page(run_summary, make_plan, make_run):
    folder = make_run(summary=run_summary, plan=make_plan(3))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_a_selection_of_one_step_or_without_numbers_draws_nothing(run_summary, make_plan, make_run):
    plan = make_plan(3, steps=1)
    plan["groups"][1]["history"] = {"loss": [None, None]}
    plan["groups"][2]["history"] = None
    assert "selection" not in Page(write_report(make_run(summary=run_summary, plan=plan))).headings()


def test_a_history_without_the_kept_counts_is_drawn_by_step(run_summary, make_plan, make_run):
    plan = make_plan(1)
    plan["groups"][0]["history"] = {"loss": [3.0, 1.5, 1.0]}
    page = Page(write_report(make_run(summary=run_summary, plan=plan)))
    (points,) = page.values("points")
    assert points.split()[0].startswith("0.0,")
    assert points.split()[-1].startswith("120.0,")


def test_every_loss_of_a_training_with_many_heads_is_drawn(run_summary, make_run):
    names = ["loss", *(f"losses {head}" for head in range(1, 7))]
    history = [{"epoch": epoch, "loss": 9 / epoch, "losses": [1.5 / epoch] * 6} for epoch in (1, 2)]
    run_summary["phases"] = [{"name": "heads", "seconds": 1.0, "history": history}]
    page = Page(write_report(make_run(summary=run_summary)))
    (figure,) = re.findall(r"<svg[^>]*heads, 2 epochs.*?</svg>", page.source, re.DOTALL)
    assert all(f">{name}<" in figure for name in names)
    assert "losses 6" in page.text


def test_plotting_libraries_are_loaded_only_to_plot():
    code = "import sys, dcp_tf.report; sys.exit(any(name in sys.modules for name in ('matplotlib', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_150_layers_stay_small_and_quick(run_summary, make_plan, make_run):
    folder = make_run(summary=run_summary, plan=make_plan(150, steps=256, size=1024))
    started = time.perf_counter()
    path = write_report(folder)
    assert time.perf_counter() - started < 10
    assert path.stat().st_size < 2_000_000
    text = Page(path).text
    assert all(f"block{number}_conv1" in text for number in range(150))


def test_latencies_on_phones_name_the_phone(run_summary, make_run):
    candidates = {"pruned_int8.tflite": {"latency_ms": 1.25, "speedup": 2.0}}
    device = {"model": "Pixel 8", "delegates": {"gpu": {"baseline": None, "candidates": candidates, "refused": {}}}}
    benchmark = {"device": "android", "threads": 2, "devices": [device], "failures": []}
    text = Page(write_report(make_run(summary=run_summary, benchmark=benchmark))).text
    assert "pruned_int8.tflite on Pixel 8, gpu 1.25 ms" in text
    none = benchmark | {"devices": [], "failures": ["the device vanished"]}
    assert "Pixel" not in Page(write_report(make_run(summary=run_summary, benchmark=none))).text


def test_the_kept_epoch_stands_below_its_curves(tmp_path):
    history = [{"epoch": n, "loss": 1 / n, "held_out_top1": 0.9 + n / 100} for n in (1, 2, 3)]
    held_out = {"images": 50, "metric": "top1", "before": 0.88, "kept": 0.93, "kept_epoch": 3}
    for kept, text in (
        (held_out, "fine-tuning: kept epoch 3 of 3, held-out top1 93.00% (88.00% before)"),
        ({**held_out, "kept_epoch": 0, "kept": 0.88}, "kept the model as it was before: no epoch did better"),
        ({}, "fine-tuning"),
    ):
        phase = {"name": "fine-tuning", "seconds": 1.0, "held_out": kept, "history": history}
        files.write_json(tmp_path / "summary.json", {"model": "m", "phases": [phase]})
        assert text in Page(write_report(tmp_path)).text
