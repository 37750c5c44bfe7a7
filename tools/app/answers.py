"""The classes that baseline and pruned model give for the test images: `answers.json` of a run, for its page."""

import base64
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from dcp_tf.files import write_json

FILE = "answers.json"
_EXAMPLES = 10
_LARGEST = 96  # pixels of a thumbnail's longer side


def recorded(model_and_data: Any, name: str, model: Any) -> Any:
    """The model as a function that keeps its classes in `model_and_data.answers[name]`; itself if it gives none.

    Measuring a model this way costs no pass of its own over the test images.
    """
    from dcp_tf.evaluation import predict_function

    test, objective = model_and_data.dataset.test, model_and_data.objective
    if getattr(test, "order_may_change", False) or objective.class_numbers(test.labels) is None:
        return model
    predict, batches = predict_function(model), model_and_data.answers.setdefault(name, [])
    batches.clear()

    def predict_and_keep(images: Any) -> Any:
        outputs = predict(images)
        batches.append(objective.decide(np.asarray(outputs, np.float32)))
        return outputs

    return predict_and_keep


def write_answers(model_and_data: Any, folder: pathlib.Path) -> None:
    """Writes what `recorded` kept of both models; where it kept nothing, the file of an earlier run goes."""
    test, objective = model_and_data.dataset.test, model_and_data.objective
    sides = [_joined(model_and_data.answers.get(name, [])) for name in ("baseline", "pruned")]
    labels = objective.class_numbers(test.labels) if objective is not None else None
    if labels is None or any(side is None or len(side) != len(labels) for side in sides):
        (folder / FILE).unlink(missing_ok=True)
        return
    before, after = sides
    count = 1 + int(max(labels.max(), before.max(), after.max()))
    images, right_before, right_after = (
        np.bincount(labels[mask], minlength=count).tolist()
        for mask in (np.ones(len(labels), bool), before == labels, after == labels)
    )
    lost, gained = ((a == labels) & (b != labels) for a, b in ((before, after), (after, before)))
    other = (before != after) & ~lost & ~gained
    shown: list[int] = []
    for mask, most in (
        (lost, max(7, _EXAMPLES - int((gained | other).sum()))),
        (gained, _EXAMPLES),
        (other, _EXAMPLES),
    ):
        shown += _spread(np.flatnonzero(mask), min(most, _EXAMPLES - len(shown))).tolist()
    pictures = _thumbnails(test, shown)
    write_json(
        folder / FILE,
        {
            "images": len(labels),
            "class_names": list(map(str, model_and_data.dataset.class_names)),
            "per_class": list(zip(images, right_before, right_after, strict=True)),
            "changed": {"lost": int(lost.sum()), "gained": int(gained.sum()), "other": int(other.sum())},
            "p_value": _p_value(int(lost.sum()), int(gained.sum())),
            "examples": [
                {"image": i, "label": int(labels[i]), "baseline": int(before[i]), "pruned": int(after[i])}
                | ({"picture": picture} if picture else {})
                for i, picture in zip(shown, pictures, strict=True)
            ],
        },
    )


def _joined(batches: list) -> np.ndarray | None:
    return np.concatenate([np.asarray(batch).reshape(len(batch)) for batch in batches]).astype(int) if batches else None


def _p_value(lost: int, gained: int) -> float | None:
    """How likely chance alone makes a difference as large as this (exact McNemar test); None where nothing changed."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else None


def _spread(positions: np.ndarray, most: int) -> np.ndarray:
    """At most so many positions, evenly spread."""
    return positions[np.unique(np.linspace(0, len(positions) - 1, min(most, len(positions))).astype(int))]


def _thumbnails(split: Any, indices: list[int]) -> list[str | None]:
    """Small pictures of images as data addresses; None for inputs that are none."""
    from dcp_tf.data import split_batch

    shape = split.shape
    is_image = len(shape) == 3 and all(isinstance(size, int) for size in shape) and shape[-1] in (1, 3)
    if not indices or not is_image or min(shape[:2]) < 4:
        return [None] * len(indices)
    batch = next(iter(split.batches(len(indices), indices=indices)))
    images = np.asarray(split_batch(batch)[0], np.float32)
    normalization = getattr(split, "normalization", None)
    images = images if normalization is None else normalization.undo(images)
    return [_picture(image) for image in images]


def _picture(image: np.ndarray) -> str:
    import tensorflow as tf

    low, high = float(image.min()), float(image.max())
    if low < -0.02 or high > 1.02:  # on a scale that nobody stated
        image = (image - low) / max(high - low, 1e-6)
    shrink = min(1.0, _LARGEST / max(image.shape[:2]))
    if shrink < 1:
        image = tf.image.resize(image, [max(1, round(size * shrink)) for size in image.shape[:2]], method="area")
    pixels = tf.cast(tf.round(255 * tf.clip_by_value(image, 0, 1)), tf.uint8)
    is_small = max(pixels.shape[:2]) <= 32
    encode: Callable = tf.io.encode_png if is_small else tf.io.encode_jpeg
    return f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(encode(pixels).numpy()).decode()}"
