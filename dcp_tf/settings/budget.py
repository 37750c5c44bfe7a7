"""How much is removed: a rate, or what the pruned model may cost."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import ClassVar

from dcp_tf.errors import UsageError
from dcp_tf.field_types import check_fields
from dcp_tf.settings.table import Settings, documented, setting

# What a model costs whatever it runs on.
MEASURES = {
    "macs": "Multiply-accumulates",
    "params": "Parameters",
    "bytes": "Bytes of the float32 weights, not of what is shipped",
}

# What an absolute target may end with, and what a cost is shown with; for targets that come with a cost.
UNITS = {
    "latency": ("ms", " ms"),
    "instructions": ("M", " M instructions"),
    "file": ("", " bytes"),
    "ram": ("", " bytes of RAM"),
}


@dataclasses.dataclass(frozen=True)
class Target:
    """What the pruned model may cost.

    Attributes:
        measure: "macs", "params", "bytes" (of float32 weights), or with `cost` "latency" in milliseconds,
            "instructions" in millions of an inference, "file" in bytes of a TFLite file, or "ram" in bytes of its
            activations.
        text: an absolute number (as in "4.5ms" or "30M"), or a share of the baseline such as "60%".
        cost: for those four: what the model takes at some widths (group -> channels that stay; groups that are not
            named keep all), such as `LatencyTable.predict`.
        origin: for those four: tells where `cost` comes from, as a run resumes only with the same.
        measured: for those four: what the model really takes at some widths, in the unit of `cost`, which only
            predicts it; see `fit_measured_budget`.
    """

    EXAMPLE: ClassVar[str] = 'dcp_tf.Target("macs", "50%")'

    measure: str
    text: str
    cost: Callable[[Mapping[str, int]], float] | None = dataclasses.field(default=None, repr=False)
    origin: str = ""
    measured: Callable[[Mapping[str, int]], float] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        if isinstance(self.text, numbers.Real) and not isinstance(self.text, bool):
            object.__setattr__(self, "text", f"{self.text:.15g}")
        check_fields(self)
        if (self.cost is None) != (self.measure in MEASURES):
            raise UsageError(
                f"a target is one of {', '.join(MEASURES)}, or latency, instructions, file or ram with a cost. "
                f"Received: {self.measure!r}"
            )
        self.limit(1)

    def limit(self, baseline: float) -> float:
        """The largest cost that is allowed; a whole number but of latency and instructions.

        Raises:
            UsageError: the text is neither a positive number nor a percentage below 100.
        """
        text, (unit, _) = self.text.strip(), UNITS.get(self.measure, ("", ""))
        try:
            share = text.endswith("%")
            number = float(text.removesuffix("%") if share else text.removesuffix(unit))
            if number <= 0 or not math.isfinite(number) or (share and number >= 100):
                raise ValueError
        except ValueError as error:
            raise UsageError(
                f"the target for {self.measure} must be a positive number{unit and f' of {unit}'} or a share of the "
                f"baseline below 100%, received {self.text!r}"
            ) from error
        limit = number / 100 * baseline if share else number
        return limit if self.cost else int(limit)

    def show(self, cost: float) -> str:
        """A cost with its unit."""
        if self.cost is None:
            return f"{cost:,} {self.measure}"
        return f"{cost:,.{0 if self.measure in ('file', 'ram') else 3}f}{UNITS[self.measure][1]}"

    def settings(self) -> dict[str, str]:
        """What JSON files say of it."""
        return {"measure": self.measure, "text": self.text, **({"origin": self.origin} if self.cost else {})}


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(Settings):
    """How much is removed."""

    rate: float = setting(
        0.5,
        "Share of channels to remove from each group, as 0.3 or 30%; for dkp share of kernels to remove from each "
        "layer; for adapt_dcp and adapt_dkp the least share.",
        above=0,
        below=1,
        is_share=True,
    )
    allocation: str | None = setting(
        None,
        "uniform: all groups lose the same share; global: the channels of least importance go first, whatever group "
        "they are in, until the model costs as little as by the rate or the target. By default global for dcp and "
        "adapt_dcp (the widest that its groups may stay) under a target, uniform for all else.",
        choices=("uniform", "global"),
    )
    target: Target | None = setting(
        None, "What the pruned model may cost; it sets the rate, for dcp_dkp the kernel rate.", by_hand=True
    )


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds(Settings):
    """In how many steps it is removed."""

    steps: int = setting(
        1,
        "Prune in so many steps of equal ratios, each with the whole training, down to the rate or the target; for "
        "channels, and not where a latency, a file or its RAM is the target.",
        lower=1,
    )


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Settings):
    """Widths that the selection finds."""

    epsilon: float = setting(
        1e-4,
        "For adapt_dcp and adapt_dkp: relative fall of the loss, per step of the selection, at which a group has "
        "enough channels, or a layer enough kernels (Liu et al. 2021, eq. 10).",
        lower=0,
    )


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelRate(Settings):
    """Kernels that go after channels."""

    kernel_rate: float = setting(
        0.3,
        "For dcp_dkp: share of the remaining kernels to remove from each layer.",
        above=0,
        below=1,
        is_share=True,
    )
