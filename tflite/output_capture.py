"""Captures the output of converter and interpreter, so that error messages can quote it."""

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

_STANDARD = (1, 2)  # file descriptors of standard output and standard error
_LOCK = threading.RLock()  # two threads that save and restore concurrently would restore the wrong target


class OutputCapture(contextlib.AbstractContextManager):
    """Inside the block, standard output and standard error go to a temporary file.

    C++ code writes to the file descriptors, Python code to `sys.stdout` and `sys.stderr`, which may be different
    streams (notebooks): both are redirected. Warnings and log records below the level ERROR are dropped.
    The redirection affects the whole process, so only the noisy call belongs inside.
    """

    def __enter__(self) -> "OutputCapture":
        _LOCK.acquire()
        _flush()
        self._log = tempfile.TemporaryFile()
        self._originals = {}
        for descriptor in _STANDARD:
            with contextlib.suppress(OSError):  # a service may run with a closed descriptor
                self._originals[descriptor] = os.dup(descriptor)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        self._stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        self._handlers = list(logging.root.handlers)
        text = self._stack.enter_context(os.fdopen(os.dup(self._log.fileno()), "w", errors="replace"))
        self._stack.enter_context(contextlib.redirect_stdout(text))
        self._stack.enter_context(contextlib.redirect_stderr(text))
        self._redirect()
        return self

    def __exit__(self, *exception) -> None:
        _flush()
        # The first `logging.warning` of a process installs a handler on the error stream of that moment: ours.
        for handler in [h for h in logging.root.handlers if h not in self._handlers]:
            logging.root.removeHandler(handler)
        self._stack.close()
        self._restore()
        self._log.seek(0)
        self._text = self._log.read().decode("utf-8", errors="replace")
        self._log.close()
        for original in self._originals.values():
            os.close(original)
        _LOCK.release()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Restores the original file descriptors inside the block, for our own progress bars."""
        self._restore()
        try:
            yield
        finally:
            self._redirect()

    def tail(self, lines: int = 5) -> str:
        """The last captured lines, joined into one line; to be called after the block."""
        captured = [line.strip()[:200] for line in self._text.splitlines() if line.strip()]
        return " | ".join(captured[-lines:])

    def _redirect(self) -> None:
        for descriptor in self._originals:
            os.dup2(self._log.fileno(), descriptor)

    def _restore(self) -> None:
        for descriptor, original in self._originals.items():
            os.dup2(original, descriptor)


def _flush() -> None:
    """Flushes Python's buffers before a descriptor changes its target."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, a full pipe, or closed
            stream.flush()
