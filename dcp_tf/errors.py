"""The errors that a user can do something about: one clear line each."""

import re


class UsageError(ValueError):
    """The input cannot be used: a flag, a file, a model or labels. Programs end with exit code 2."""


class RunError(RuntimeError):
    """A run that started well cannot go on, such as a NaN loss or a full disk. Programs end with exit code 1."""


def first_line(error: Exception) -> str:
    """What an error says, in one line and without the names of TensorFlow's graph nodes, which tell users nothing."""
    text = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0]
