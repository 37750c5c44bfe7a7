"""Which groups of channels may be pruned, and to which widths."""

import dataclasses
import re

from dcp_tf.errors import UsageError
from dcp_tf.settings.table import Settings, documented, setting


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Scope(Settings):
    """Which groups may be pruned."""

    prune_residual: bool = setting(
        False,
        "Prune residual streams (sums of feature maps) too, over all layers that make or read them, and the units of "
        "recurrent layers.",
    )
    prune_blocks: bool = setting(
        False,
        "Remove whole residual blocks too (all layers between a split of the stream and the sum behind it), where that "
        "keeps more than narrowing alone; for dcp and adapt_dcp with {allocation}=global, the default under a target.",
    )
    search_scope: bool = setting(
        False,
        "Under a target, also try residual streams and whole residual blocks, apart and together, and keep what is "
        "estimated to lose least at that cost; for dcp and adapt_dcp with {allocation}=global, their default there.",
    )
    ignore_statistics: bool = setting(
        False,
        "Remove channels also where LayerNormalization and its like take statistics over them; fine-tuning mends that.",
    )
    rotate_streams: bool = setting(
        False,
        "Turn the residual streams of transformers to their principal axes first, which changes no output, and prune "
        "the axes, exactly: with {prune_residual} or {search_scope}. The rotated model replaces the original.",
    )
    exclude: tuple[str, ...] = setting(
        (),
        "Groups that keep all channels (a,b,c), and layers that keep all kernels: regular expressions for whole names, "
        "as inspect_model lists them.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.rotate_streams and not self.offers_streams:
            raise UsageError(
                "rotate_streams turns residual streams so that they can be pruned: add prune_residual",
                ("rotate_streams", "prune_residual"),
            )

    @property
    def offers_streams(self) -> bool:
        """Whether residual streams and recurrent units are candidates."""
        return self.prune_residual or self.search_scope

    @property
    def offers_blocks(self) -> bool:
        """Whether whole residual blocks are candidates."""
        return self.prune_blocks or self.search_scope

    def excludes(self, name: str) -> bool:
        """Whether the group or layer of that name is left alone."""
        return any(re.fullmatch(pattern, name) for pattern in self.exclude)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthSettings(Settings):
    """To which widths groups are pruned."""

    # Arm's int8 kernels step at multiples of 16 channels, its float32 kernels at 8; an int8 file is made by default
    # (docs/measurements.md).
    round_to: int = setting(
        16,
        "The channels that a group keeps are the nearest multiple of it, which suits hardware (on Arm 16 in int8, 8 in "
        "float32); 1: exactly the rate. Groups no wider than it follow the plain rate. Kernels are not rounded, and "
        "channels that no kernel reads any more all go.",
        lower=1,
    )
    min_channels: int = setting(1, "Fewest channels that a group keeps.", lower=1)
    rates: tuple[tuple[str, float], ...] = setting(
        (), "Rates of single groups, as in stage1_.*=0.2,head=0.7; the first that matches counts."
    )

    def __post_init__(self):
        super().__post_init__()
        for _, rate in self.rates:
            if not 0 < rate < 1:
                raise UsageError(f"each of rates must be above 0 and below 1, received {rate}", setting="rates")
