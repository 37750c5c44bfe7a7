"""Small models that are no classifiers, with data that they are for."""

import dataclasses

import numpy as np

SHAPE = (8, 8, 3)


@dataclasses.dataclass(frozen=True)
class Case:
    """What a model is built of, the labels of its images, and what a run says of it."""

    units: int
    activation: str | None
    labels: object
    loss: str
    metric: str
    ends: str = "vector"
    flags: tuple = ()


def _rows(images):
    return (images.reshape(len(images), 4, -1).mean(-1) > 0.5).astype(np.int32)


CASES = {
    "multilabel": Case(4, "sigmoid", _rows, "multilabel", "map"),
    "multilabel_logits": Case(4, None, _rows, "multilabel", "map"),
    "regression": Case(2, None, lambda x: 90 * (x.mean((1, 2))[:, :2] - 0.5), "mse", "mse"),
    "one_number": Case(1, None, lambda x: 9 * x.mean((1, 2, 3)) - 4.5, "mse", "mse"),
    "vectors": Case(1, None, lambda x: x.sum(1) - 3, "mse", "mse", "mlp"),
    "maps": Case(3, "softmax", lambda x: x.argmax(-1), "softmax", "mean_iou", "map"),
    "unet": Case(1, "sigmoid", lambda x: (x[..., 0] > 0.5).astype(np.int32), "sigmoid", "mean_iou", "unet"),
    "maps_of_numbers": Case(2, None, lambda x: 5 * x[..., :2] - 2.5, "mse", "mse", "map"),
    "embedding": Case(6, None, lambda x: _rows(x).argmax(-1), "arcface", "recall_at_1", flags=("--loss=arcface",)),
}


def model(case):
    import keras
    from keras import layers

    def conv(x, name, width=8):
        return layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)

    keras.utils.set_random_seed(2)
    if case.ends == "mlp":
        image = keras.Input((6,))
        x = layers.Dense(12, activation="relu", name="a")(image)
        x = layers.Dense(12, activation="relu", name="b")(x)
        return keras.Model(image, layers.Dense(case.units, activation=case.activation, name="end")(x))
    image = keras.Input(SHAPE)
    a = conv(conv(image, "a"), "b")
    if case.ends == "vector":
        x = layers.GlobalAveragePooling2D()(conv(a, "c"))
        return keras.Model(image, layers.Dense(case.units, activation=case.activation, name="end")(x))
    x = layers.MaxPooling2D()(a)
    x = layers.UpSampling2D()(conv(conv(x, "c"), "d"))
    x = layers.Concatenate()([x, a]) if case.ends == "unet" else x
    return keras.Model(image, layers.Conv2D(case.units, 1, activation=case.activation, name="end")(conv(x, "e")))


def arrays(case, size=96):
    found = {}
    for part, seed in (("train", 0), ("test", 1)):
        shape = (6,) if case.ends == "mlp" else SHAPE
        images = np.random.default_rng(seed).uniform(size=(size, *shape)).astype(np.float32)
        found |= {f"x_{part}": images, f"y_{part}": case.labels(images)}
    return found


def write(folder, name, **replaced):
    """The flags of a model and its data; `replaced` overrides arrays, None leaves one out."""
    case = CASES[name]
    model(case).save(folder / f"{name}.keras")
    found = {key: value for key, value in (arrays(case) | replaced).items() if value is not None}
    np.savez(folder / f"{name}.npz", **found)
    return (f"--model={folder}/{name}.keras", f"--dataset=npz:{folder}/{name}.npz", *case.flags)
