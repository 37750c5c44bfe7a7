"""What a user sees of long work: one bar per phase on a terminal and in a notebook, plain lines in a log."""

import contextlib
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm

from dcp_tf.errors import UsageError, checks_arguments

_Arguments = ParamSpec("_Arguments")  # one statement each: type checkers read no other form
_Result = TypeVar("_Result")
_LINE_EVERY = 25.0  # seconds between two lines of a phase in a log
_SILENT_FOR = 29.0  # seconds without any line in a log, before one says that the run goes on


class LogLines:
    """What stands for a bar in a log: a line from time to time, none where all is done before the first is due.

    Attributes:
        n: how much is done.
        total: of how much; None where that is not known.
    """

    _every = _LINE_EVERY

    def __init__(self, iterable: Iterable | None, what: str, total: int | None, unit: str, initial: int):
        self.n = initial
        self.total = total
        if total is None:
            with contextlib.suppress(TypeError):  # what has no length, or does not know it
                self.total = len(iterable)
        self._iterable, self._what, self._unit, self._beside = iterable, what, unit, ""
        self._started = self._last = time.monotonic()
        _now.at(what)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for element in self._iterable:
                yield element
                self.update()

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Counts on, and writes a line if one is due."""
        self.n += n
        now = time.monotonic()
        if now - self._last >= self._every:
            of_all = "" if self.total is None else f"/{self.total}"
            parts = [f"{self._what}: {self.n}{of_all} {self._unit}", self._beside, f"{now - self._started:.0f} s"]
            self._show("  ".join(filter(None, parts)))
            self._last = now

    def _show(self, line: str) -> None:
        say(line)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What the next line says beside the count."""
        self._beside = text

    def close(self) -> None:
        """Ends without a line: what was done is logged elsewhere."""


class _CellOutput:
    """The output of a notebook's cell: its lines, and below them the bar of what is being done, without widgets."""

    def __init__(self):
        self._cell: int | None = None
        self._lines: list[str] = []
        self._shown: Any = None

    def show(self, line: str, bar: str | None = None) -> None:
        """Adds a line that stays or, with its HTML, a bar that stays until the next call."""
        cell = sys.modules["IPython"].get_ipython().execution_count
        if cell != self._cell:
            self._cell, self._lines, self._shown = cell, [], None
        if bar is None:
            self._lines.append(line)
        self._put(self._lines, bar or "", line if bar else "")

    def end_bar(self, line: str) -> None:
        """Takes the bar away; its last line stays where there is no other, so that no output is left empty."""
        self._put(self._lines or [line])

    def _put(self, lines: Sequence[str], bar: str = "", bar_text: str = "") -> None:
        from IPython.display import display

        text = "\n".join(lines)
        html = f'<pre style="margin:0;white-space:pre-wrap">{escape(text)}</pre>{bar}'
        content = {"text/html": html, "text/plain": "\n".join(filter(None, (text, bar_text)))}
        if self._shown is None:
            self._shown = display(content, raw=True, display_id=True)
        else:
            self._shown.update(content, raw=True)


_cell_output = _CellOutput()


class NotebookBar(LogLines):
    """A bar below the lines of a notebook's cell."""

    _every = 0.3
    _line = ""  # that is shown

    def _show(self, line: str) -> None:
        self._line = line
        length = "" if self.total is None else f' value="{self.n}" max="{self.total}"'
        _cell_output.show(line, f'<progress{length} style="width:14em"></progress> {escape(line)}')

    def close(self) -> None:
        """Removes the bar."""
        if self._line:
            _cell_output.end_bar(self._line)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and "IPKernelApp" in getattr(ipython.get_ipython(), "config", ())


def bar(
    iterable: Iterable | None = None, *, what: str, total: int | None = None, unit: str = "it", initial: int = 0
) -> tqdm | LogLines:
    """A progress bar in a terminal or a notebook; in a log a line every half minute at most."""
    if not _silent and _in_notebook():
        return NotebookBar(iterable, what, total, unit, initial)
    if _silent or not sys.stderr.isatty():
        return LogLines(iterable, what, total, unit, initial)
    return tqdm(iterable, desc=what, total=total, unit=unit, initial=initial, leave=False, dynamic_ncols=True)


_naming: list[Callable[[str, Sequence[str]], str]] = [lambda line, names: line]


def with_names(line: str, names: Sequence[str]) -> str:
    """A line as `say` prints it: with the flags of the settings that it names, in a program."""
    return _naming[-1](line, names)


def say(line: str, setting: str | Sequence[str] = ()) -> None:
    """Prints one line to standard error, in a notebook to the cell's output, without tearing a bar that is being drawn.

    Args:
        line: it calls settings by their names in Python.
        setting: those of them that programs print as flags, as for `UsageError`.
    """
    if _silent:
        return
    names = (setting,) if isinstance(setting, str) else setting
    line = with_names(line, names)
    _now.at(line, printed=True)
    if _in_notebook():  # which shows standard error as an error
        _cell_output.show(line)
        return
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


@contextlib.contextmanager
def naming(settings: Callable[[str, Sequence[str]], str]) -> Iterator[None]:
    """Inside the block `say` prints what a function makes of a line and the settings that it names."""
    _naming.append(settings)
    try:
        yield
    finally:
        _naming.pop()


class _Now:
    """What is being done, as far as lines and bars tell, and since when nothing was printed."""

    def __init__(self):
        self.what, self.begun, self.last = "starting", 0.0, 0.0

    def at(self, what: str, printed: bool = False) -> None:
        """Something new begins."""
        self.what, self.begun = what, time.monotonic()
        if printed:
            self.last = self.begun

    def remind(self) -> None:
        """Prints a line if there was none for too long."""
        now = time.monotonic()
        if now - self.last >= _SILENT_FOR:
            self.last = now
            what = self.what if len(self.what) <= 60 else self.what[:57] + "..."
            print(f"still running, {now - self.begun:.0f} s after: {what}", file=sys.stderr, flush=True)


_now = _Now()


@contextlib.contextmanager
def signs_of_life() -> Iterator[None]:
    """Inside the block a log that is no terminal gets a line at least every half minute, from a thread of its own."""
    if sys.stderr.isatty():
        yield
        return
    _now.at("starting", printed=True)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            if not _silent:
                _now.remind()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_silent: list[bool] = []


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Inside the block nothing is printed, neither by us nor by TensorFlow's logger; errors are raised as ever."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    _silent.append(True)
    try:
        yield
    finally:
        _silent.pop()
        logger.setLevel(level)


def silence_if(is_silent: bool) -> contextlib.AbstractContextManager:
    """`silence` where that is wanted."""
    return silence() if is_silent else contextlib.nullcontext()


def takes_verbose(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Makes a function with the keyword `verbose` silent where that is 0; 1, 2 and "auto" print, as Keras' do."""

    @checks_arguments
    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        verbose = kwargs.get("verbose", 1)
        if not isinstance(verbose, (bool, int, str)) or verbose not in (0, 1, 2, "auto"):
            raise UsageError(f"verbose must be 0 (silent) or 1, received {verbose!r:.80}")
        with silence_if(verbose == 0):
            return function(*args, **kwargs)

    return call
