"""Which share of a network's parameters can pruning reach?

    python benchmarks/share_that_shrinks.py
    python benchmarks/share_that_shrinks.py --networks=zoo:vit_cifar,swin

A parameter can go if it lies in a slice of a channel that can be removed: as the model is, with `--prune_residual`, and
with `--ignore_statistics` too. Random weights. Behind it what holds back most of the rest, by its share.
"""

import collections
import math
import pathlib
import sys

from dcp_tf.tools.cli.program import Program

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "graph"))
SIZED = {
    "mlp_mixer": {"size": 32, "patch": 4, "width": 128, "tokens": 64, "hidden": 512, "depth": 6, "classes": 10},
    "gmlp": {"size": 32, "patch": 4, "width": 128, "hidden": 512, "depth": 6, "classes": 10},
    "pool_former": {"size": 64, "widths": (32, 64, 128), "ratio": 4, "depth": 2, "classes": 10},
    "swin": {"size": 32, "widths": (48, 96, 192), "heads": (2, 4, 8), "window": 4, "ratio": 4, "classes": 10},
    "conv_then_attention": {"size": 64, "widths": (48, 96), "ratio": 4, "depth": 3, "heads": 4, "classes": 10},
}
APPLICATIONS = ("ConvNeXtTiny", "MobileNetV3Small", "EfficientNetV2B0")
PROGRAM = Program("share_that_shrinks", __doc__)
PROGRAM.list(
    "networks",
    ["zoo:vit_cifar", "zoo:mobilevit_cifar", *(f"keras:{name}" for name in APPLICATIONS), *SIZED],
    "Networks: zoo:NAME, keras:NAME, hub:NAME, or a function of tests/graph/mixing_networks.py.",
)


def main(flags) -> None:
    """Prints one row for each network."""
    from dcp_tf.graph import ChannelGraph

    print(f"{'network':24} {'parameters':>11} {'as it is':>9} {'residual':>9} {'statistics':>11}  held back by")
    for name in flags.networks:
        model = network(name)
        graphs = [ChannelGraph(model, ignore_statistics=ignored) for ignored in (False, True)]
        shares = [share(graphs[0], False), share(graphs[0], True), share(graphs[1], True)]
        cells = " ".join(f"{value:>{width}.1%}" for value, width in zip(shares, (9, 9, 11), strict=True))
        print(f"{name:24} {model.count_params():>11,} {cells}  {held_back(graphs[1])}", flush=True)


def network(name: str):
    """The network of a name, with random weights."""
    import mixing_networks

    from dcp_tf import models

    if name.startswith("hub:"):
        import keras_hub

        from dcp_tf.tools.app.hub_networks import HUB_NETWORKS, SHAPE

        return models.to_functional(HUB_NETWORKS[name[4:]](keras_hub), SHAPE)
    return getattr(mixing_networks, name)(**SIZED[name]) if name in SIZED else models.load(name, weights=None).model


def share(graph, residual: bool) -> float:
    """The fraction of the parameters that lie in slices of channels that can go."""
    import numpy as np

    free = np.zeros(len(graph.class_of_label), bool)
    for group in graph.prunable(residual):
        free |= graph.channel_of_label(group) >= 0
    reached = total = 0
    for record in graph.records.values():
        for index, weight in enumerate(getattr(record.operation, "weights", ())):
            stay = math.prod(1 - free[labels].mean() for labels in record.weights.get(index, {}).values())
            total += math.prod(weight.shape)
            reached += math.prod(weight.shape) * (1 - stay)
    return reached / total


def held_back(graph) -> str:
    """What pins the groups on which most parameters depend, outputs left out, with their share."""
    from dcp_tf.graph import group_fractions

    fractions, reasons = group_fractions(graph), collections.Counter()
    for group in graph.groups:
        if group.pinned_because and "an output of the model" not in group.pinned_because:
            reasons[f"{group.name}: {group.pinned_because}"] += fractions[group.name][0]
    return "; ".join(f"{fraction:.1%} {reason}" for reason, fraction in reasons.most_common(2) if fraction > 0.01)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
