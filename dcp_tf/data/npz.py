"""Reads `.npz` files of a data set: one array for each input, output and sample weight, by the names of Keras."""

import re
import zipfile
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_NEEDED = ("x_train", "x_test")
_KEY = re.compile(r"([xyw]_(?:train|test))(?:/(.+))?")


def read_npz(path: str) -> dict[str, Any]:
    """Reads `x_train y_train x_test y_test` and, where they exist, the weights `w_train w_test`; labels may be missing.

    Each is an array, or in place of `y_train` there are `y_train/boxes`, `y_train/classes` and so on, which become a
    dict by these names.

    Raises:
        UsageError: the inputs are missing, label arrays have other names, or the file cannot be read.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} holds one array, expected a .npz file with {', '.join(_KEYS)}")
        with archive:
            keys = {key: match.groups() for key in archive.files if (match := _KEY.fullmatch(key))}
            missing = [key for key in _KEYS if key not in {part for part, _ in keys.values()}]
            # A misspelled name must not pass as data without labels.
            if any(key in _NEEDED for key in missing) or (missing and len(keys) < len(archive.files)):
                names = ", ".join(archive.files) or "nothing"
                raise UsageError(f"{path} lacks {', '.join(missing)}; it holds {names}")
            arrays: dict[str, Any] = {}
            for key, (part, name) in keys.items():
                if name is not None and part in keys:
                    raise UsageError(f"{path} holds {part} and {key}; leave one of them out")
                array = _plain_array(archive, key, path)
                arrays |= {part: array if name is None else {**arrays.get(part, {}), name: array}}
            return arrays
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except UsageError:  # which is a ValueError
        raise
    except ValueError as error:  # NumPy takes it for a pickle, and says how to load that unsafely
        raise UsageError(f"{path} is no .npz file; write one with numpy.savez") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is no .npz file of plain arrays: {error}") from error


def _plain_array(archive: np.lib.npyio.NpzFile, key: str, path: str) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise UsageError(
            f"{key} of {path} holds Python objects; store one array of numbers, all images of one shape (numpy.stack)"
        ) from error
