"""Graph analysis: trace, channel labels, layer rules, surgery, cost."""

from dcp_tf.deprecated import renamed
from dcp_tf.graph.channel_graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.cost import Cost, LayerCost, count_cost
from dcp_tf.graph.fractions import group_fractions, shrinkable_fraction
from dcp_tf.graph.prelu import replace_prelu
from dcp_tf.graph.rotation import rotate_streams
from dcp_tf.graph.rule import OperationRecord, RuleCall, register_rule
from dcp_tf.graph.sparsity import KernelCount, kernel_sparsity, nominal_macs, zero_kernel_masks
from dcp_tf.graph.surgery import apply_masks, check_layers, copy_model, masked, masks, rebuild

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "Cost",
    "KernelCount",
    "LayerCost",
    "OperationRecord",
    "RuleCall",
    "apply_masks",
    "check_layers",
    "copy_model",
    "count_cost",
    "group_fractions",
    "kernel_sparsity",
    "masked",
    "masks",
    "nominal_macs",
    "rebuild",
    "register_rule",
    "replace_prelu",
    "rotate_streams",
    "shrinkable_fraction",
    "zero_kernel_masks",
]

__getattr__ = renamed(__name__, {"group_shares": "group_fractions", "shrinkable_share": "shrinkable_fraction"})
