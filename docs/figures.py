"""Draws the figures of how_it_works.md from a small model that it trains: python docs/figures.py

Each is drawn for light and for dark pages, into docs/assets.
"""

import pathlib
import sys

import keras
import matplotlib
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.datasets import load_digits

import dcp_tf
from dcp_tf.drawing import LIGHT, Palette, style
from dcp_tf.graph import masked, rebuild

DARK = Palette("#e8ebee", "#a9b2bb", "#454c55", "#8b96a3", "#33b3a6", "#d884c2", "#1e2129")
GROUPS = ("#3f8fd6", "#e0782f", "#3aa76d", "#b35bb0")  # stand out from both pages
ASSETS = pathlib.Path(__file__).resolve().parent / "assets"


def residual_block():
    """A residual block of six channels with eight between its convolutions."""
    image = keras.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(6, 3, padding="same", name="stem")(image)
    x = layers.Conv2D(8, 3, padding="same", name="conv1")(stem)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(6, 3, padding="same", name="conv2")(x)
    x = layers.Add(name="add")([stem, x])
    outputs = layers.Dense(3, name="classes")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(image, outputs)


def draw_labels(figure, colors):
    """The labels of every tensor of the block: cells of one color and number are the same channel."""
    graph = dcp_tf.ChannelGraph(residual_block())
    axes = figure.subplots()
    axes.axis("off")
    calls = [call for call in graph.trace.calls if call.outputs]
    numbers = graph.group_of_label()
    classes = np.asarray(graph.class_of_label)
    for row, call in enumerate(calls):
        labels = np.ravel(graph.labels[call.outputs[0]])
        axes.text(-0.4, -row, call.path, ha="right", va="center", color=colors.ink)
        for column, label in enumerate(labels):
            group = graph.groups[numbers[label]] if numbers[label] < len(graph.groups) else None
            color = GROUPS[numbers[label] % len(GROUPS)] if group else colors.muted
            pinned = group is None or group.pinned_because
            axes.add_patch(
                Rectangle(
                    (column, -row - 0.36), 0.9, 0.72, facecolor=colors.line if pinned else color, edgecolor="none"
                )
            )
            text = str(list(group.classes).index(classes[label])) if group is not None else ""
            axes.text(
                column + 0.45, -row, text, ha="center", va="center", fontsize=9, color=colors.ink if pinned else "w"
            )
        note = {
            "conv2": "six channels, tied to the stem by the sum",
            "add": "the residual stream",
            "relu": "the same eight",
        }
        axes.text(9.2, -row, note.get(call.path, ""), va="center", fontsize=10, color=colors.muted)
    axes.set_xlim(-2.6, 17)
    axes.set_ylim(-len(calls) + 0.4, 0.7)


def trained():
    """A small network for the digits, and its data."""
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for width in (16, 32, 32):
        model.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:1200], labels[:1200], epochs=12, verbose=0)
    return model, (images[:1200], labels[:1200]), images[1200:]


def draw_selection(figure, colors, group):
    """The loss of one group while Algorithm 2 adds channels."""
    history = group.history
    axes = figure.subplots()
    for name, color in (("loss", colors.ink), ("reconstruction", colors.pruned), ("discrimination", colors.third)):
        label = {"loss": "joint loss"}.get(name, name)
        axes.plot(history["kept"], history[name], marker="o", markersize=4, color=color, label=label)
    axes.set_xlabel(f"channels of {group.name} that came in (of {group.size})")
    axes.set_ylabel("loss on the selection images")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_masked(figure, colors, model, images):
    """A kernel with masked channels, the same kernel rebuilt, and the outputs of both models."""
    graph = dcp_tf.ChannelGraph(model)
    group = graph.prunable()[1]
    norms = sum(
        np.abs(np.moveaxis(kernel, axis, 0)).reshape(len(channel), -1).sum(1)
        for kernel, axis, channel in graph.producing_kernels(group)
    )
    kept = graph.kept({group.name: sorted(np.argsort(norms)[group.size // 2 :])})
    full, small = masked(graph, kept), rebuild(graph, kept)
    reader = group.consumers[0]
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    kernels = [np.abs(net.get_layer(reader).kernel.numpy()).sum((0, 1)) for net in (full, small)]
    for axes, kernel, title in zip(panels, kernels, ("masked", "rebuilt"), strict=False):
        shown = matplotlib.colors.LinearSegmentedColormap.from_list("kernel", [colors.line, colors.pruned])
        axes.imshow(kernel, cmap=shown, vmin=0, vmax=kernels[0].max(), interpolation="none")
        axes.set_title(f"{title}: {kernel.shape[0]} inputs", fontsize=11)
        axes.set_ylim(kernels[0].shape[0] - 0.5, -0.5)
        axes.grid(visible=False)
        axes.set_xlabel("filters")
    panels[0].set_ylabel("input channels")
    outputs = [net.predict(images[:40], verbose=0) for net in (full, small)]
    panels[2].plot(*(output.ravel() for output in outputs), ".", markersize=2, color=colors.pruned)
    panels[2].set_xlabel("outputs of the masked model")
    panels[2].set_ylabel("of the rebuilt model")
    panels[2].set_title(f"largest difference {np.abs(outputs[0] - outputs[1]).max():.1g}", fontsize=11)


def draw_all(folder):
    """Writes each figure as NAME-light.svg and NAME-dark.svg."""
    model, data, unseen = trained()
    method = dcp_tf.DCP(rate=0.25, selection="exact", round_to=1, recover=0, selection_samples=512)
    auxiliary = dcp_tf.TrainConfig(epochs=2, learning_rate=0.01)
    plan = dcp_tf.prune(model, data, method, auxiliary=auxiliary, finetuning=None, verbose=0).plan
    figures = {
        "labels": (draw_labels, (), (7.6, 3.4)),
        "selection": (draw_selection, (plan.groups[-1],), (7.6, 3.4)),
        "masked": (draw_masked, (model, unseen), (9, 3.4)),
    }
    for name, (draw, arguments, size) in figures.items():
        for page, colors in (("light", LIGHT), ("dark", DARK)):
            settings = {**style(colors), "svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
            with matplotlib.rc_context(settings):
                figure = Figure(figsize=size)
                draw(figure, colors, *arguments)
                figure.savefig(pathlib.Path(folder, f"{name}-{page}.svg"), metadata={"Date": None})


if __name__ == "__main__":
    draw_all(sys.argv[1] if len(sys.argv) > 1 else ASSETS)
