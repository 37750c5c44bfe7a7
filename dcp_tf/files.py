"""Whole files only: everything is written beside its place and renamed, so a killed run leaves no half-written file."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from dcp_tf.errors import RunError, UsageError

_UNFINISHED = ".writing-"


def readable_name(name: str | os.PathLike) -> str:
    r"""A file or folder name as text that every file format and terminal takes.

    Names are bytes to the system. Bytes that are no UTF-8 are escaped ("b\xe4ren"), also in a locale without UTF-8.
    The result is for labels and records; the file itself is opened by its own name.
    """
    text = os.fsdecode(name)
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a surrogate pair, which no file system makes
        encoded = text.encode("utf-8", "backslashreplace")
    return encoded.decode("utf-8", "backslashreplace")


def write_atomically(path: str | os.PathLike, write: Callable[[str], object]) -> pathlib.Path:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    The temporary name ends in the suffix of `path`, because writers such as Keras choose the format by it.

    Args:
        path: where the file shall stand; its folder is made.
        write: called with the temporary path.

    Returns:
        The final path.

    Raises:
        RunError: the file could not be written (a full disk, for instance). What stood at `path` is untouched.
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_UNFINISHED, suffix="".join(path.suffixes), dir=path.parent)
        os.close(handle)
        os.chmod(temporary, 0o644)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or check the folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return path


def write_bytes(path: str | os.PathLike, content: bytes) -> pathlib.Path:
    """Writes `content` to `path` atomically."""
    return write_atomically(path, lambda temporary: pathlib.Path(temporary).write_bytes(content))


def write_text(path: str | os.PathLike, text: str) -> pathlib.Path:
    """Writes `text` (UTF-8, what cannot be encoded is escaped) to `path` atomically."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike, value: Any) -> pathlib.Path:
    """Writes `value` as indented JSON to `path` atomically; NaN and infinities are refused."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether a killed run left this file unfinished."""
    return path.name.startswith(_UNFINISHED)


def folder_path(path: Any, name: str) -> pathlib.Path | None:
    """The path of a folder that may be made later; None stays.

    Raises:
        UsageError: it is no path, or something else is there.
    """
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{name} must be the path of a folder, received {path!r:.80}")
    if pathlib.Path(path).exists() and not pathlib.Path(path).is_dir():
        raise UsageError(f"{name} must be the path of a folder, {path} is a file")
    return pathlib.Path(path)


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Deletes the unfinished temporary files that a killed run left in `folder` or below it."""
    for path in pathlib.Path(folder).rglob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        UsageError: there is no such file, or it holds no JSON.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"expected the path of a JSON file, received {path!r:.80}")
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UsageError(f"{path} is no readable JSON file: it is nested too deep") from error
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no readable JSON file: {error}") from error


def writable_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes the folder `path` if needed and proves that files can be written there.

    Raises:
        UsageError: it cannot be made or written, or TensorFlow cannot write there, which takes names in UTF-8 only.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"the output folder must be a path, received {path!r:.80}")
    path = pathlib.Path(path)
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the output folder {readable_name(path)} has a name that is no UTF-8 here: choose another, or set "
            "PYTHONUTF8=1"
        ) from error
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(f"the output folder {path} cannot be written: {error.strerror or error}") from error
    return path
