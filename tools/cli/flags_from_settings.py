"""Flags made of settings, and settings made of flags: names, defaults, help and choices stand in the settings alone."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.table import Rule, rules
from dcp_tf.tools.cli.program import FLAG_OF, Program, name_flags, read_share

Changes = Mapping[str, Mapping[str, Any]]
_NONE: Changes = types.MappingProxyType({})


def define(program: Program, settings: Any, fields: Sequence[str] | None = None, changes: Changes = _NONE) -> None:
    """Defines a flag for every setting that has one of its own.

    Args:
        program: gets the flags; its own defaults come first.
        settings: a class of settings, or an instance, whose values are the defaults then.
        fields: only these.
        changes: what of a field's `Rule` is different in this program, by field; also its `default`.
    """
    for field in dataclasses.fields(settings):
        if "rule" not in field.metadata or (fields is not None and field.name not in fields):
            continue
        change = dict(changes.get(field.name, {}))
        default = field.default if isinstance(settings, type) else getattr(settings, field.name)
        default = change.pop("default", default)
        rule = dataclasses.replace(field.metadata["rule"], **change)
        if rule.python_only is None and not rule.by_hand:
            FLAG_OF[settings.PART + field.name] = field.metadata["rule"].flag or field.name
            _define_flag(program, rule.flag or field.name, field.type, default, rule)


def _define_flag(program: Program, name: str, kind: Any, default: Any, rule: Rule) -> None:
    default = program.defaults.get(name, default)
    about = re.sub(r"\{([\w.]+)\}", lambda match: f"--{FLAG_OF.get(match[1], match[1])}", rule.about)
    kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
    if isinstance(kind, types.UnionType) and len(kinds) == 1:
        kind = kinds[0]
    if typing.get_origin(kind) is tuple:
        program.list(name, [str(value) for value in default], about)
    elif rule.choices:
        program.enum(name, default, rule.choices, about)
    elif kind is bool:
        program.boolean(name, default, about)
    elif kind is int:
        program.integer(name, default, about, lower=int(rule.lower or 0), upper=rule.upper)
    elif kind is float:
        (program.share if rule.is_share else program.float)(name, default, about)
    else:
        (program.path if rule.is_path else program.string)(name, default, about)


def values_of(flags: Any) -> dict[str, Any]:
    """The values of all flags by name."""
    return {name: flags[name].value for name in flags}


def read(values: Mapping[str, Any], settings: Any, changes: Changes = _NONE, **given: Any) -> Any:
    """The settings that flags ask for.

    Args:
        values: of flags, by name; see `values_of`. Settings without a flag there, and those whose flag is None and has
            no such value, have their defaults.
        settings: as for `define`.
        changes: as for `define`.
        **given: settings that are no flags.

    Raises:
        UsageError: a value cannot be; it names the flags.
    """
    names = flag_names(settings, changes)
    by_hand = {name for name, rule in rules(settings).items() if rule.by_hand}
    types_of = {field.name: field.type for field in dataclasses.fields(settings)}
    taken = {
        field: _value(values[flag], types_of[field], flag)
        for field, flag in names.items()
        if values.get(flag) is not None and field not in by_hand | given.keys()
    }
    try:
        if isinstance(settings, type):
            return settings(**taken | given)
        return dataclasses.replace(settings, **taken | given)
    except UsageError as error:
        raise UsageError(name_flags(str(error), error.settings, names)) from error


def flag_names(settings: Any, changes: Changes = _NONE) -> dict[str, str]:
    """Which flag sets which field, by field."""
    return {
        name: changes.get(name, {}).get("flag", rule.flag) or name
        for name, rule in rules(settings).items()
        if rule.python_only is None
    }


def _value(value: Any, kind: Any, flag: str) -> Any:
    """The value of a flag as its setting has it."""
    if not isinstance(value, list):
        return value
    (kind, *_) = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return read_rates(value, flag)
    return tuple(value) if kind is str else read_numbers(flag, value, kind)


def read_numbers(name: str, texts: Sequence[str], kind: type = float) -> tuple[Any, ...]:
    """The numbers of a list flag; raises UsageError where something else is among them."""
    try:
        return tuple(kind(text) for text in texts if text != "")
    except ValueError as error:
        raise UsageError(f"--{name} takes numbers with commas between them, received {','.join(texts)!r}") from error


def read_rates(entries: Sequence[str], flag: str = "rates") -> tuple[tuple[str, float], ...]:
    """`PATTERN=RATE` entries as pairs; raises UsageError where one has another form."""
    pairs = []
    for entry in entries:
        pattern, _, rate = entry.rpartition("=")
        try:
            pairs.append((pattern, float(read_share(rate))))
        except ValueError:
            pattern = ""
        if not pattern:
            raise UsageError(f"--{flag} takes PATTERN=RATE with commas between them, received {entry!r}")
    return tuple(pairs)
