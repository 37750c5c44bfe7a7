"""Data that a function of the user's returns: `python:FILE.py:FUNCTION`."""

import pathlib
import traceback
import types
from typing import Any

from dcp_tf.data.as_split import as_split
from dcp_tf.data.image_split import ImageDataset, make_dataset
from dcp_tf.errors import UsageError, first_line
from dcp_tf.models.custom_objects import run_file


def load_function(spec: str) -> ImageDataset:
    """Calls a function that returns (train, test), each of any kind that `as_split` takes; values stay unchanged.

    Args:
        spec: `FILE.py:FUNCTION`. The code in the file is run; it can import modules in its folder.

    Raises:
        UsageError: there is no such file or function, the code raises, or returns something else.
    """
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UsageError(f"python: takes FILE.py:FUNCTION, received {spec!r}")
    file = pathlib.Path(path).expanduser().resolve()
    if not file.is_file():
        raise UsageError(f"there is no Python file {path}")
    try:
        module = run_file(file)
    except ImportError as error:
        raise UsageError(_failure(file, error.__cause__ or error)) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if isinstance(value, types.FunctionType)]
        raise UsageError(f"{path} has no function {name}; it has {', '.join(functions) or 'none'}")
    try:
        returned = function()
    except Exception as error:  # whatever a user's code raises
        raise UsageError(_failure(file, error)) from error
    if not isinstance(returned, tuple | list) or len(returned) != 2 or returned[0] is None:
        kind = f"{type(returned).__name__}{f' of {len(returned)}' if isinstance(returned, tuple | list) else ''}"
        raise UsageError(f"{name} of {path} must return (train, test), two data sets; it returned {kind}")
    if returned[1] is None:
        raise UsageError(f"{name} of {path} returned None as the test data; return (train, test)")
    names = [f"the {part} data of {name} in {path}" for part in ("train", "test")]
    train, test = (_split(data, where) for data, where in zip(returned, names, strict=True))
    return make_dataset(file.stem, train, test, *names)


def _split(data: Any, where: str) -> Any:
    try:
        return as_split(data)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", error.settings) from error


def _failure(file: pathlib.Path, error: BaseException) -> str:
    """Where in the user's file an error arose, and what it says."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = str(file) if number is None else f"{file}:{number}"
    return f"{where}: {type(error).__name__}: {first_line(error)}"
