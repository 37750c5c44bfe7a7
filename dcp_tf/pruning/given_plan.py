"""A plan in place of a method: nothing is chosen, what it names is removed."""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import PruningPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenPlan(Method):
    """Removes what a plan names.

    Attributes:
        plan: what stays.
    """

    name: ClassVar[str] = "plan"
    plan: PruningPlan

    @classmethod
    def of(cls, plan: PruningPlan) -> "GivenPlan":
        """The method that a plan stands for."""
        ignored = bool(plan.settings.get("ignore_statistics"))
        return cls(plan=plan, prune_residual=True, ignore_statistics=ignored)

    @property
    def chooses_kernels(self) -> bool:
        """Whether the plan removes single kernels."""
        return bool(self.plan.kernels)

    def groups(self, graph: ChannelGraph) -> Sequence[ChannelGroup]:
        """The groups that the plan names; raises UsageError where it does not fit the model."""
        self.plan.kept(graph)
        blocks = {block.name for block in graph.blocks}
        return [graph.group(group.name) for group in self.plan.groups if group.name not in blocks]

    def widths(self, graph: ChannelGraph) -> dict[str, int]:
        """Group name -> channels that stay; of attention heads that go, as many as of those that stay.

        Of a residual block that goes as a whole its name -> 0.
        """
        widths = {}
        for plan in self.plan.groups:
            if not plan.kept:
                widths[plan.name] = 0
                continue
            group = graph.group(plan.name)
            left = 1 if group.head is None else len(np.unique(group.head[list(plan.kept)]))
            widths[plan.name] = len(plan.kept) * group.heads // max(left, 1)
        return widths

    def settings(self) -> dict[str, Any]:
        """The plan by a number that tells it from others."""
        return {"plan": zlib.crc32(json.dumps(self.plan.to_json(), sort_keys=True).encode())}
