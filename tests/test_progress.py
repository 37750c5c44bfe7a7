"""A log gets a line of long work from time to time, and none of short work."""

import itertools
import sys
import threading
import types

import pytest

from dcp_tf import progress


@pytest.fixture
def seconds(monkeypatch):
    """A clock that tests turn; standard error is no terminal here."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def test_long_work_writes_a_line_every_half_minute(seconds, capsys):
    with progress.bar(what="comparing groups", total=100, unit="group") as bar:
        for number in range(100):
            seconds.now += 1.0
            bar.set_postfix_str(f"group {number}")
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "comparing groups: 25/100 group  group 24  25 s"
    assert len(lines) == 4


def test_short_work_writes_nothing(seconds, capsys):
    assert list(progress.bar(range(1000), what="reading")) == list(range(1000))
    assert capsys.readouterr() == ("", "")


def test_an_iterable_is_counted(seconds, capsys):
    for _ in itertools.islice(progress.bar(range(9), what="reading", unit="batch"), 4):
        seconds.now += 20.0
    assert capsys.readouterr().err == "reading: 2/9 batch  40 s\n"


def test_what_does_not_know_its_length_is_counted_too(seconds, capsys):
    class Endless:
        def __iter__(self):
            return iter("abc")

        def __len__(self):
            raise TypeError("the length is unknown")

    for _ in progress.bar(Endless(), what="reading"):
        seconds.now += 30.0
    assert capsys.readouterr().err.splitlines()[0] == "reading: 1 it  30 s"


def test_a_cell_of_a_notebook_has_one_output_that_is_never_empty(seconds, capsys, monkeypatch):
    shown, handles = [], []

    def display(content, **_):
        shown.append(content)
        handles.append(types.SimpleNamespace(update=lambda new, raw: shown.append(new)))
        return handles[-1]

    shell = types.SimpleNamespace(config={"IPKernelApp": {}}, execution_count=7)
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setattr(progress, "_cell_output", progress._CellOutput())
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    for _ in progress.bar(range(4), what="<reading>", unit="batch"):
        seconds.now += 1.0
    assert 'value="1" max="4"' in shown[0]["text/html"]
    assert all("&lt;reading&gt;" in content["text/html"] for content in shown)
    assert "progress" not in shown[-1]["text/html"]
    assert shown[-1]["text/plain"] == "<reading>: 4/4 batch  4 s"
    progress.say("a line")
    for _ in progress.bar(range(2), what="next"):
        seconds.now += 1.0
        assert shown[-1]["text/plain"].startswith("a line")
    assert (len(handles), shown[-1]["text/plain"]) == (1, "a line")
    shell.execution_count = 8
    for _ in progress.bar(range(2), what="in the next cell"):
        seconds.now += 1.0
    progress.bar(range(2), what="not due").close()
    assert len(handles) == 2
    assert "a line" not in shown[-1]["text/plain"]
    assert capsys.readouterr() == ("", "")


def test_a_silent_phase_says_that_the_run_goes_on(seconds, capsys):
    progress.say("converting baseline.keras to int8")
    for _ in range(75):  # the last line is printed after 58
        seconds.now += 1.0
        progress._now.remind()
    assert capsys.readouterr().err.splitlines() == [
        "converting baseline.keras to int8",
        "still running, 29 s after: converting baseline.keras to int8",
        "still running, 58 s after: converting baseline.keras to int8",
    ]
    progress.bar(range(9), what="reading")  # of which nothing is seen yet
    for _ in range(12):
        progress._now.remind()
        seconds.now += 1.0
    progress._now.remind()
    assert capsys.readouterr().err == "still running, 12 s after: reading\n"


def test_programs_watch_for_silence_in_logs_alone(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SILENT_FOR", 0.0)
    reminded = threading.Event()
    monkeypatch.setattr(progress._now, "remind", reminded.set)
    with progress.signs_of_life():
        assert reminded.wait(10.0)
    with progress.silence(), progress.signs_of_life():
        reminded.clear()
        assert not reminded.wait(1.5)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    before = threading.active_count()
    with progress.signs_of_life():
        assert threading.active_count() == before
