r"""What does a transformer keep when its residual stream loses channels, and nothing is fitted?

    python benchmarks/rotated_streams.py --model=vit/baseline.keras --dataset=npz:cifar8k.npz --normalization=cifar10

One row for each width: top-1 of the rotated model without its last directions, and of the model itself without the
channels that carry the least, where statistics are ignored. Above them the share of parameters that can shrink.
"""

import sys

import numpy as np

from dcp_tf.tools.cli import data_flags
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("rotated_streams", __doc__)
data_flags.define_model_and_data(PROGRAM, "The trained transformer")
PROGRAM.integer("images", 1000, "Test images.", lower=1)
PROGRAM.integer("seed", 0, "Of the split of the data, where it has no test images.")
PROGRAM.list("shares", ["0.875", "0.75", "0.5", "0.375", "0.25"], "Shares of the stream's channels that stay.")


def main(flags) -> None:
    """Prints the table."""
    from keras import layers

    from dcp_tf.graph import ChannelGraph, rebuild, shrinkable_fraction
    from dcp_tf.graph.rotation import rotated
    from dcp_tf.graph.streams import find_streams

    loaded = data_flags.load_model_and_data(flags)
    test = loaded.dataset.test.take(range(min(flags.images, loaded.dataset.test.size)))
    model, (new, lines) = loaded.model, rotated(loaded.model, loaded.dataset.train)
    own, turned = ChannelGraph(model, ignore_statistics=True), ChannelGraph(new)
    kinds = (layers.Dense, layers.EinsumDense, layers.Conv2D, layers.DepthwiseConv2D)
    print(*lines, sep="\n")
    for name, graph in (("the model", ChannelGraph(model)), ("rotated", turned)):
        print(f"{name}: {shrinkable_fraction(graph, kinds=kinds):.1%} of the parameters can shrink")

    def top1(net) -> float:
        return 100 * loaded.objective.evaluate(net, test.batches(100))["top1"]

    stream = find_streams(own)[0][0]
    energy = _energy(own, stream.norms, loaded.dataset.train)
    cut = []  # graph, name of the stream, its channels from the best to the worst
    for graph, order in ((own, np.argsort(-energy)), (turned, np.arange(stream.width))):
        group = max((g for g in graph.prunable(True) if g.size == stream.width), key=lambda g: len(g.consumers))
        cut.append((graph, group.name, order))
    print(f"{'channels':>9} {'ignored':>8} {'rotated':>8}\n{stream.width:>9} {top1(model):>8.2f} {top1(new):>8.2f}")
    for share in map(float, flags.shares):
        width = round(share * stream.width)
        cells = [top1(rebuild(graph, graph.kept({name: np.sort(order[:width])}))) for graph, name, order in cut]
        print(f"{width:>9} " + " ".join(f"{cell:>8.2f}" for cell in cells), flush=True)


def _energy(graph, norms, train) -> np.ndarray:
    """The mean square of each channel of a stream over what its normalizations make of it."""
    from dcp_tf.data import split_batch

    batch = split_batch(next(iter(train.batches(200, shuffle=True))))[0]
    values = graph.trace.run(graph.trace.bind_inputs(batch), [norm.call.inputs[0] for norm in norms])
    energy = 0
    for x in map(np.asarray, values.values()):
        x = x - x.mean(-1, keepdims=True)
        energy = energy + ((x / x.std(-1, keepdims=True)) ** 2).reshape(-1, x.shape[-1]).mean(0)
    return energy


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
