"""How long do analysis and surgery take, and do they grow linearly with depth?

    python benchmarks/graph_speed.py
    python benchmarks/graph_speed.py --models=EfficientNetB7,NASNetLarge

For chains of 50 to 1000 layers and for networks of keras.applications (random weights): seconds to trace and group, to
rebuild at half the channels, and, beside it, what Keras takes to clone the model. Best of three.
"""

import sys
import time

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("graph_speed", __doc__)
PROGRAM.list("depths", ["50", "100", "200", "500", "1000"], "Layers of the chains.")
PROGRAM.list("models", ["EfficientNetB7", "NASNetLarge"], "Networks of keras.applications.")


def main(flags) -> None:
    """Prints one row for each model."""
    from dcp_tf import models

    print(f"{'model':20} {'layers':>7} {'analysis s':>11} {'per layer ms':>13} {'rebuild s':>10} {'Keras clone s':>14}")
    for depth in map(int, flags.depths):
        report(f"chain of {depth}", chain(depth))
    for name in flags.models:
        report(name, models.load(f"keras:{name}").model)


def chain(depth: int):
    """Convolutions with BatchNorm, ReLU and a residual sum every other block: about `depth` layers."""
    import keras

    x = inputs = keras.Input((8, 8, 16))
    for index in range(depth // 4):
        y = keras.layers.Conv2D(16, 3, padding="same")(x)
        y = keras.layers.BatchNormalization()(y)
        y = keras.layers.ReLU()(y)
        x = keras.layers.Add()([x, y]) if index % 2 else keras.layers.Identity()(y)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))


def report(name: str, model) -> None:
    """Measures one model."""
    import keras

    from dcp_tf.graph import ChannelGraph, rebuild

    analysis, graph = best(lambda: ChannelGraph(model))
    kept = graph.kept({g.name: range((g.size + 1) // 2) for g in graph.prunable(residual=True)})
    rebuilding, _ = best(lambda: rebuild(graph, kept))
    cloning, _ = best(lambda: keras.models.clone_model(model))
    layers = len(graph.trace.calls)
    per_layer = 1000 * analysis / layers
    print(f"{name:20} {layers:7} {analysis:11.3f} {per_layer:13.3f} {rebuilding:10.2f} {cloning:14.2f}", flush=True)


def best(work, repeats: int = 3):
    """The shortest time of some repeats, and the last result."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return min(times), result


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
