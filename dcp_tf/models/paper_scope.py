"""Which layers' outputs the papers prune, as data: names of layers, network by network."""

import re

from dcp_tf.errors import UsageError

# Regular expressions of layer names (whole names). Residual streams, block outputs and 1x1 convolution shortcuts are
# never among them.
_BASIC_BLOCKS = (r"stage\d+_block\d+_conv1",)
_BOTTLENECKS = (r"stage\d+_block\d+_conv[12]",)
_EXPANSIONS = r"stage\d+_block\d+_expand_conv"
_PAPER_SCOPES: dict[str, tuple[str, ...]] = {
    "resnet18": _BASIC_BLOCKS,
    "resnet50": _BOTTLENECKS,
    # The input of the fully connected layer stays: the last convolution of stage 5 is not pruned.
    "vgg16_cifar": (r"stage[1-4]_conv\d", r"stage5_conv[12]"),
    "vgg19_cifar": (r"stage[1-4]_conv\d", r"stage5_conv[1-3]"),
    "mobilenet_v1": (r"stem_conv", r"block\d+_pointwise_conv"),
    "mobilenet_v1_sparse": (r"stem_conv", r"block\d+_pointwise_conv"),
    "mobilenet_v1_cifar": (r"stem_conv", r"block([1-9]|1[0-2])_pointwise_conv"),
    # The stem is the hidden width of the first block, which has no expansion; stage 7 is not followed by an addition.
    "mobilenet_v2": (r"stem_conv", _EXPANSIONS, r"stage7_block1_project_conv", r"head_conv"),
    "mobilenet_v2_cifar": (_EXPANSIONS,),
}
_BASIC_BLOCK_NETWORK = re.compile(r"preresnet\d+(_cifar)?|resnet(20|56|110)b?")


def paper_scope(name: str) -> tuple[str, ...]:
    """The layers whose output channels the papers prune (Liu et al. 2021, Zhuang et al. 2018) in a network of the zoo.

    At a rate R a layer of c channels keeps c - floor(R * c) of them; this gives the complexity in the papers' tables.

    Args:
        name: a network's name, as in `NETWORKS`.

    Returns:
        Regular expressions; a layer whose whole name matches one of them is pruned.

    Raises:
        UsageError: the papers do not say what they prune in this network.

    Example:
        >>> patterns = paper_scope("resnet18")
        >>> [layer.name for layer in model.layers if any(re.fullmatch(p, layer.name) for p in patterns)]
    """
    if _BASIC_BLOCK_NETWORK.fullmatch(name):
        return _BASIC_BLOCKS
    if name not in _PAPER_SCOPES:
        networks = ", ".join(sorted(_PAPER_SCOPES))
        raise UsageError(f"the papers have no scope for {name!r}; they have one for {networks}, preresnetN and resnetN")
    return _PAPER_SCOPES[name]
