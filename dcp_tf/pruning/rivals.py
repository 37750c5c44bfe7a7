"""The methods that DCP is compared with; all of them rank the channels of the same groups."""

import dataclasses
from typing import ClassVar

from dcp_tf.pruning.methods import Guided


@dataclasses.dataclass(frozen=True, kw_only=True)
class Criterion(Guided):
    """A criterion that ranks the channels of each group in one shot.

    Attributes:
        update: whether the weights that read the remaining channels are fitted as DCP's are, layer by layer, with all
            settings of `Guided`. Without it the remaining weights stay as they are, and those settings have no meaning.
    """

    update: bool = False

    @property
    def guided(self) -> bool:
        """Whether the weights are fitted."""
        return self.update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """Channels drawn by chance; with `update` the paper's Random-DCP."""

    name: ClassVar[str] = "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class L1(Criterion):
    """The channels whose filters have the largest L1 norm stay (Li et al. 2017)."""

    name: ClassVar[str] = "l1"
