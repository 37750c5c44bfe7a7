"""Tiny models and images for the programs, the flags of a short run, and how a program is run as a process."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = (
    *("quickstart", "train", "prune", "finetune", "evaluate", "export", "benchmark"),
    *("inspect_model", "report", "compare", "latency_table", "setup"),
)
# Short, without TFLite files; later flags override earlier ones.
SHORT = (
    *("--aux_epochs=1", "--finetune_epochs=1", "--selection_samples=64", "--selection_batch=32", "--batch_size=32"),
    *("--round_to=2", "--benchmark_runs=3", "--quantization=", "--noreload_check"),
)
WHOLE = (*SHORT, "--seed=3", "--recover=60")  # the run that many tests read


def write_images(path, shape=(8, 8, 3), classes=4, size=160, **replaced):
    """An npz file of images with one bright band each, whose height tells the class; `replaced` overrides arrays."""
    arrays = {}
    for seed, (part, count) in enumerate((("train", size), ("test", size // 2))):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % classes
        images = rng.uniform(0.0, 0.5, (count, *shape))
        band = shape[0] // classes
        for image, label in zip(images, labels, strict=True):
            image[label * band : (label + 1) * band] += 0.5
        arrays |= {f"x_{part}": images.astype(np.float32), f"y_{part}": labels}
    np.savez(path, **(arrays | replaced))
    return path


def residual_model():
    """Two groups of channels to prune, one residual stream, and the pinned outputs of a softmax."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    stem = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    x = layers.BatchNormalization(name="norm")(stem)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="inside")(x)
    x = layers.Conv2D(8, 3, padding="same", name="back")(x)
    x = layers.ReLU(name="joined")(layers.Add(name="sum")([stem, x]))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="wide")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(4, activation="softmax", name="classes")(x), name="residual")


def plain_model(shape=(8, 8, 3), units=4, activation=None):
    """Two convolutions, open to any size if `shape` is."""
    import keras
    from keras import layers

    image = keras.Input(shape)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(units, activation=activation, name="classes")(x), name="plain")


def detector():
    """Two outputs of different kinds."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = layers.GlobalMaxPooling2D(name="pool")(layers.Conv2D(8, 3, activation="relu", name="second")(x))
    outputs = [
        layers.Dense(4, activation="softmax", name="kind")(x),
        layers.Dense(4, activation="sigmoid", name="box")(x),
    ]
    return keras.Model(image, outputs, name="detector")


def sequential_model():
    """One sigmoid output for two classes."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation="relu", name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(1, activation="sigmoid", name="classes"),
        ]
    )


def nested_model():
    """A model with a model among its layers."""
    import keras
    from keras import layers

    inner_image = keras.Input((8, 8, 8))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(inner_image)
    inner = keras.Model(inner_image, layers.Conv2D(8, 3, activation="relu", name="b")(x), name="inner")
    image = keras.Input((8, 8, 3))
    x = inner(layers.Conv2D(8, 3, padding="same", name="outer")(image))
    return keras.Model(image, layers.Dense(4, name="classes")(layers.Flatten(name="flat")(x)), name="nested")


def unprunable_model():
    """A linear classifier: all of its channels are inputs or outputs."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(image)))


def run_process(*arguments, cwd=None, env=None, code=None, timeout=900):
    """Runs `python ARGUMENTS`, with what a user's environment does not have taken out of it."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_")) or k.startswith("TF_NUM_")}
    clean |= {"PYTHONPATH": str(CHECKOUT), **(env or {})}
    command = [sys.executable, *(("-c", code) if code else ()), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, timeout=timeout, check=False)


def kept_channels(folder):
    """Group name -> channels that stay, of the plan in a run's folder."""
    plan = json.loads((pathlib.Path(folder) / "plan.json").read_text())
    return {group["name"]: group["kept"] for group in plan["groups"]}


def contents(folder):
    """What lies below a folder: relative path -> bytes."""
    folder = pathlib.Path(folder)
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def architecture(model):
    """Layers with the shapes of their weights and outputs."""
    return [
        (type(layer).__name__, layer.name, [tuple(w.shape) for w in layer.weights], layer.output.shape)
        for layer in model.layers
    ]


class Stop:
    """Raises in place of the n-th call of a function."""

    def __init__(self, function, call, error):
        self.function, self.left, self.error = function, call, error

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.function(*args, **kwargs)
