"""The errors that a user can do something about: one clear line each."""

import difflib
import re
from collections.abc import Sequence


class _NamesSettings(Exception):
    """An error whose text may name settings.

    Args:
        message: one line that says what to do. It calls settings by their names in Python.
        setting: which of these names the command line prints as flags; one or several.
    """

    def __init__(self, message: str, setting: str | Sequence[str] = ()):
        super().__init__(message)
        self.settings = (setting,) if isinstance(setting, str) else tuple(setting)


class UsageError(_NamesSettings, ValueError):
    """The input cannot be used: a setting, a file, a model or labels. Programs end with exit code 2."""


class RunError(_NamesSettings, RuntimeError):
    """A run that started well cannot go on, such as a NaN loss or a full disk. Programs end with exit code 1."""


def first_line(error: Exception) -> str:
    """What an error says, in one line and without the names of TensorFlow's graph nodes, which tell users nothing."""
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0]


def did_you_mean(word: object, words: Sequence[str]) -> str:
    """The end of an error about an unknown name: what was meant perhaps, else what there is."""
    near = difflib.get_close_matches(str(word), words, 5)
    near.sort(key=lambda candidate: sorted(candidate) != sorted(str(word)))  # letters that changed places first
    return f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(words)}"
