"""What makes a frozen dataclass a table of settings: each field has its help, choices and range beside its default."""

import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from dcp_tf.errors import UsageError, check_call
from dcp_tf.field_types import check_fields

_Class = TypeVar("_Class", bound=type)
_NAME = r"\{([\w.]+)\}"  # of a setting inside of a text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What describes a setting beside its type and default.

    Attributes:
        about: the help text; `{name}` stands for another setting.
        choices: the allowed texts.
        above: the value must be greater.
        lower: the least value.
        below: the value must be less.
        upper: the greatest value.
        hint: ends the error about a value out of range; `{name}` as in `about`.
        is_share: the command line takes percentages too.
        is_path: the command line expands `~`.
        flag: its flag on the command line, where that has another name.
        by_hand: the flag is defined by hand, as it sets several fields, or several flags set this one.
        python_only: why the command line has no flag for it.
    """

    about: str = ""
    choices: Sequence[str] = ()
    above: float | None = None
    lower: float | None = None
    below: float | None = None
    upper: float | None = None
    hint: str = ""
    is_share: bool = False
    is_path: bool = False
    flag: str | None = None
    by_hand: bool = False
    python_only: str | None = None

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is in range."""
        if self.choices:
            values = value if isinstance(value, tuple) else (value,)
            return all(one in self.choices for one in values if not isinstance(one, dict))
        limits = (self.above, self.lower, self.below, self.upper)
        if all(limit is None for limit in limits):
            return True
        above, lower, below, upper = limits
        return (
            math.isfinite(value)
            and (above is None or value > above)
            and (lower is None or value >= lower)
            and (below is None or value < below)
            and (upper is None or value <= upper)
        )

    def expected(self) -> str:
        """The choices or the range in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.lower is not None and self.upper is not None:
            parts = [f"{self.lower} to {self.upper}"]
        else:
            limits = {
                "above {}": self.above,
                "{} or more": self.lower,
                "below {}": self.below,
                "{} or less": self.upper,
            }
            parts = [text.format(limit) for text, limit in limits.items() if limit is not None]
        return " and ".join(parts) + re.sub(_NAME, r"\1", self.hint)


def setting(default: Any = dataclasses.MISSING, about: str = "", **rule: Any) -> Any:
    """A field of a class of settings.

    Args:
        default: of the field.
        about: its help text.
        **rule: see `Rule`.
    """
    return dataclasses.field(default=default, metadata={"rule": Rule(about=about, **rule)})


def same_setting(owner: type, name: str, default: Any) -> Any:
    """A field as another class has it, but for its default."""
    field = owner.__dataclass_fields__[name]
    return dataclasses.field(default=default, metadata=field.metadata)


def rules(settings: Any) -> dict[str, Rule]:
    """The rules of a class of settings, by the names of its fields."""
    return {f.name: f.metadata["rule"] for f in dataclasses.fields(settings) if "rule" in f.metadata}


def check(settings: Any) -> None:
    """Checks every field against its type, choices and range, and makes plain Python values of NumPy's.

    Raises:
        UsageError: names the first field that does not fit.
    """
    check_fields(settings)
    for name, rule in rules(settings).items():
        value = getattr(settings, name)
        if value is not None and not rule.allows(value):
            named = (name, *re.findall(_NAME, rule.hint))
            raise UsageError(f"{name} must be {rule.expected()}, received {value!r}", setting=named)


class _CheckedCalls(type):
    """Makes a setting that a class does not have an error of one line."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        check_call(cls.__name__, cls.__signature__, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        own = inspect.signature(cls.__init__)
        return own.replace(parameters=list(own.parameters.values())[1:])


@dataclasses.dataclass(frozen=True)
class Settings(metaclass=_CheckedCalls):
    """A table of settings; what is wrong with several together, subclasses find after this.

    Attributes:
        PART: stands before the names of fields where errors and notes name them, such as "qat.".
    """

    PART: ClassVar[str] = ""

    def __post_init__(self):
        check(self)


def documented(settings: _Class) -> _Class:
    """Lists the fields in a class's docstring, as `help()` shows it."""
    lines = [f"{name}: {plain_text(rule.about)}" for name, rule in rules(settings).items() if rule.about]
    wrapped = (textwrap.fill(line, 110, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines)
    settings.__doc__ = "\n".join([f"{inspect.cleandoc(settings.__doc__)}\n\nAttributes:", *wrapped])
    return settings


def plain_text(about: str) -> str:
    """A help text with the names of settings as Python has them."""
    return re.sub(_NAME, r"`\1`", about)
