"""How large a model's file is at given widths, and sizes as users write them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tflite.types import TFLiteFile

# Bytes per weight; the rest of a file hardly depends on the widths, and is measured.
_WEIGHT_BYTES = {"float32": 4.0, "float16": 2.0, "weight_only_int4": 0.5, "dynamic_int4": 0.5}
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}


class FileSizes:
    """Sizes of a model's files of one mode at several widths.

    Args:
        graph: of the model, with fixed input sizes.
        mode: of the file; a "qat" file has the size of an int8 one.
        size: of the file of a model in a mode, in bytes.

    Attributes:
        full: the size of the whole model's file.
    """

    def __init__(self, graph: Any, mode: str, size: Callable[[Any, str], int]):
        self._graph, self._mode, self._size = graph, "int8" if mode == "qat" else mode, size
        self._params = self._params_at({})
        self.full = size(graph.trace.model, self._mode)

    def predict(self, widths: Mapping[str, int]) -> float:
        """The predicted size of the file at given widths, from the number of weights."""
        return self.full - _WEIGHT_BYTES.get(self._mode, 1.0) * (self._params - self._params_at(widths))

    def measure(self, widths: Mapping[str, int]) -> float:
        """The measured size of a file at given widths; it does not depend on which channels stay."""
        from dcp_tf.graph import rebuild

        return float(self._size(rebuild(self._graph, self._kept(widths)), self._mode))

    def _params_at(self, widths: Mapping[str, int]) -> int:
        from dcp_tf.graph import count_cost

        return count_cost(self._graph, self._kept(widths)).params

    def _kept(self, widths: Mapping[str, int]) -> Any:
        return self._graph.at_widths(widths)


def size_of(file: TFLiteFile) -> int:
    """The bytes of a file."""
    return len(file.content)


def size_text(text: str, advice: str) -> str:
    """A size such as "200KiB" as a number of bytes; a share such as "60%" stays.

    Raises:
        UsageError: the text is no size; it says `advice`.
    """
    match = re.fullmatch(r"\s*([\d.,_]+)\s*(%|[KMkm]?[iI]?[bB]?)\s*", text)
    if match and match.group(2) == "%":
        return f"{match.group(1)}%"
    unit = None if match is None else _UNITS.get(match.group(2).upper())
    try:
        return str(int(float(match.group(1).replace(",", "")) * unit))
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{advice}, received {text!r}") from error
