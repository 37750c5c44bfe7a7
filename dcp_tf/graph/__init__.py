"""Graph analysis: trace, channel labels, layer rules, surgery, cost."""

from dcp_tf.graph.channel_graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.cost import Cost, LayerCost, count_cost, group_shares
from dcp_tf.graph.rule import RuleCall, register_rule
from dcp_tf.graph.shrinkable import shrinkable_share
from dcp_tf.graph.surgery import apply_masks, copy_model, masked, masks, rebuild

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Cost",
    "LayerCost",
    "RuleCall",
    "apply_masks",
    "copy_model",
    "count_cost",
    "group_shares",
    "masked",
    "masks",
    "rebuild",
    "register_rule",
    "shrinkable_share",
]
