"""Settings that Python programs write by hand: values of the declared types, or one line that names the field."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from dcp_tf.errors import UsageError

_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}


def check_fields(settings: Any) -> None:
    """Checks a frozen dataclass against its declared types, and makes plain Python values of NumPy's.

    A single text in place of a tuple of texts counts as one; a mapping in place of a tuple of pairs as its items.

    Raises:
        UsageError: a field has another type.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        plain = _plain(value, field.type)
        if plain is _WRONG:
            raise UsageError(f"{field.name} must be {_describe(field.type)}, received {value!r:.200}")
        object.__setattr__(settings, field.name, plain)


def whole_number(value: Any, name: str) -> int:
    """The value as a Python integer; raises UsageError, which calls it `name`, where it is none."""
    plain = _plain(value, int)
    if plain is _WRONG:
        raise UsageError(f"{name} must be a whole number, received {value!r:.200}")
    return plain


_WRONG = object()


def _plain(value: Any, kind: Any) -> Any:
    """The value as the declared type has it, or `_WRONG`."""
    if isinstance(kind, types.UnionType):
        results = (_plain(value, one) for one in typing.get_args(kind))
        return next((result for result in results if result is not _WRONG), _WRONG)
    if typing.get_origin(kind) is tuple:
        return _plain_tuple(value, typing.get_args(kind))
    value = value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value
    if kind is float:
        return value if isinstance(value, numbers.Real) and not isinstance(value, bool) else _WRONG
    if kind is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        return int(value) if whole else _WRONG
    if kind in (bool, str, types.NoneType) or dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _WRONG
    return value


def _plain_tuple(value: Any, parts: tuple[Any, ...]) -> Any:
    if len(parts) == 2 and parts[1] is Ellipsis:
        if isinstance(value, str) and parts[0] is str:
            return (value,)
        if isinstance(value, Mapping):
            value = value.items()
        parts = (parts[0],)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return _WRONG
    values = tuple(value)
    kinds = parts * len(values) if len(parts) == 1 else parts
    plain = tuple(_plain(one, kind) for one, kind in zip(values, kinds, strict=False))
    return _WRONG if len(values) != len(kinds) or _WRONG in plain else plain


def _describe(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_describe(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        parts = [one for one in typing.get_args(kind) if one is not Ellipsis]
        if len(parts) == 1:
            return f"a tuple, each of it {_describe(parts[0])}"
        return f"a pair of {' and '.join(map(_describe, parts))}"
    if dataclasses.is_dataclass(kind):
        return f"a {kind.__name__}, such as {getattr(kind, 'EXAMPLE', kind.__name__)}"
    return "None" if kind is types.NoneType else _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
