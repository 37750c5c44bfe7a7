"""Which line of a `call` cannot run on symbolic tensors, why, and what to write instead."""

import contextlib
import inspect
import linecache
import os
import pathlib
import re
import sysconfig
import traceback
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import first_line

# What `tf` calls otherwise than `keras.ops`; all other names are the same.
_OTHER_NAMES = {
    **{f"reduce_{name}": name for name in ("mean", "max", "min", "sum", "prod", "any", "all", "logsumexp")},
    "concat": "concatenate",
    "pow": "power",
    "range": "arange",
    "gather": "take",
    "l2_normalize": "normalize",
    "avg_pool2d": "average_pool",
    "max_pool2d": "max_pool",
    "conv2d": "conv",
    "depthwise_conv2d": "depthwise_conv",
    "resize": "image.resize",
    "norm": "norm",
    "swish": "silu",
    "lrelu": "leaky_relu",
    "map_fn": "vectorized_map",
    "clip_by_value": "clip",
}
_OPEN_BATCH = "the batch size is open: use -1 for it in keras.ops.reshape, or keras.ops.zeros_like and its like"
_INSTEAD = (
    ("as a boolean", "a Python condition depends on values: write it with keras.ops.where or keras.ops.cond"),
    ("Iterating over a symbolic", "a loop runs over a tensor: write it with keras.ops.unstack or keras.ops.map"),
    ("convert it to a NumPy array", "NumPy needs values: use the function of keras.ops"),
    (re.compile(r"convert it to an? (int|float)"), "Python needs a value: keep it a tensor, with keras.ops"),
    (
        re.compile(r"'KerasTensor' object has no attribute '(\w+)'"),
        "symbolic tensors have no {0}: use a function of keras.ops",
    ),
    (re.compile(r"interpreted as an integer|None values not|value .None.|operand .*NoneType"), _OPEN_BATCH),
)


def line_of(error: BaseException) -> str:
    """`FILE:LINE: source` of the last line outside of Keras, TensorFlow and Python that an error passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename)]
    return "" if not frames else _place(frames[-1].filename, frames[-1].lineno)


def explain(error: Exception) -> str:
    """`FILE:LINE: source: reason`, for an error that `call` raised on symbolic tensors."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame.filename)]
    text = str(error)
    inner = re.search(r"\x1b\[1m(.*?)\x1b\[0m", text, re.DOTALL)  # Keras puts its own words around it
    text = inner[1] if inner else text
    reason = _replacement(frames[-1] if frames else None, text) or _known(text)
    reason = reason or f"{type(error).__name__}: {first_line(Exception(text))}"[:200]
    return f"{line_of(error)}: {reason}" if frames else reason


def line_with(layer: keras.Layer, *patterns: str) -> str:
    """`FILE:LINE: source` of a line in the methods of a layer that matches a pattern; the `def` of `call` without one.

    Earlier patterns count first, and `call` before other methods; lines that make the layer do not count.
    """
    call = type(layer).call
    others = (value for name, value in vars(type(layer)).items() if name not in ("__init__", "build", "call"))
    methods = [call, *(value for value in others if inspect.isfunction(value))]
    for pattern in patterns:
        for method in methods:
            with contextlib.suppress(OSError):
                lines, first = inspect.getsourcelines(method)
                if numbers := [n for n, line in enumerate(lines) if re.search(pattern, line)]:
                    return _place(inspect.getsourcefile(method), first + numbers[0])
    code = inspect.unwrap(call).__code__
    return _place(code.co_filename, code.co_firstlineno)


def _place(file: str, line: int) -> str:
    return f"{os.path.relpath(file) if _is_near(file) else file}:{line}: `{linecache.getline(file, line).strip()}`"


def _is_near(file: str) -> bool:
    return pathlib.Path.cwd() in pathlib.Path(file).resolve().parents


def _is_foreign(file: str) -> bool:
    """Whether a file is one of Keras, TensorFlow, NumPy, Python or this package."""
    folders = [os.path.dirname(module.__file__) for module in (keras, tf, np)] + [str(pathlib.Path(__file__).parent)]
    folders.append(os.path.join(os.path.dirname(tf.__file__), os.pardir, "optree"))
    library = sysconfig.get_path("stdlib")
    inside = any(file.startswith(os.path.normpath(folder) + os.sep) for folder in folders)
    return inside or file.startswith("<") or (file.startswith(library + os.sep) and "-packages" not in file)


def _replacement(frame: traceback.FrameSummary | None, text: str) -> str | None:
    """What `keras.ops` calls the function of TensorFlow in a line."""
    if "input to a TensorFlow function" not in text and "Could not build a TypeSpec" not in text:
        return None
    calls = [] if frame is None else re.findall(r"\b(?:tf|tensorflow)\.((?:\w+\.)*\w+)\(", frame.line or "")
    for name in calls:
        short = name.rpartition(".")[2]
        short = _OTHER_NAMES.get(short, short)
        if _operation(short) is not None:
            return f"tf.{name} takes no symbolic tensor: use keras.ops.{short}"
    called = f"tf.{calls[0]}" if calls else "a TensorFlow function"
    return f"{called} takes no symbolic tensor: use a function of keras.ops, or put it into a keras.layers.Layer"


def _operation(name: str) -> Any:
    value: Any = keras.ops
    for part in name.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, types.FunctionType) or callable(value) else None


def _known(text: str) -> str | None:
    for pattern, reason in _INSTEAD:
        match = re.search(pattern, text)
        if match:
            return reason.format(*match.groups())
    return None
