"""The errors that a user can do something about: one clear line each."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")  # one statement each: type checkers read no other form
_Result = TypeVar("_Result")


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


def checks_arguments(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Makes an argument that a public function does not have, or one that is missing, an error of one line."""
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        check_call(name, signature, *args, **kwargs)
        return function(*args, **kwargs)

    return call


def check_call(name: str, signature: inspect.Signature, /, *args: Any, **kwargs: Any) -> None:
    """Raises UsageError where arguments do not fit the signature of what is called `name`."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        parameters = {n: p for n, p in signature.parameters.items() if n != "self"}
        unknown = next((n for n in kwargs if n not in parameters), None)
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            hint = f"has no argument {unknown!r}; {did_you_mean(unknown, list(parameters))}"
        elif "too many positional" in str(error):
            by_place = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
            hint = f"takes ({', '.join(by_place)}), and all else by name" if by_place else "takes all by name, NAME=..."
        else:
            hint = f"cannot be called so: {error}"
        raise UsageError(f"{name} {hint}") from error
