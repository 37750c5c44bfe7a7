"""`--rotate_streams`: the rotated model takes the place of the original for the whole run."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.data_flags import ModelAndData


def rotate(
    model_and_data: ModelAndData, methods: Iterable[Any], folder: str | os.PathLike, resume: bool
) -> tuple[ModelAndData, Callable[[], None]]:
    """Rotates the streams of the model where the methods want that.

    Args:
        model_and_data: the trained model and its data.
        methods: of the run.
        folder: of the run, which need not exist.
        resume: whether the run resumes: then the rotation is that of the stopped run.

    Returns:
        The model and its data, and a function that keeps the rotation in the folder, once it exists.

    Raises:
        UsageError: the model has no stream that can be rotated, or some methods rotate and others do not.
    """
    from dcp_tf.graph.rotation import is_rotated, rotated
    from dcp_tf.models.weights_digest import weights_digest
    from dcp_tf.training.checkpoint import load_weights, save_weights

    wants = {method.rotate_streams for method in methods}
    if len(wants) > 1:
        raise UsageError("--rotate_streams changes the model that all methods start from: give it to all or none")
    if wants != {True} or is_rotated(model_and_data.model):
        return model_and_data, lambda: None
    model, lines = rotated(model_and_data.model, model_and_data.dataset.train)
    path = pathlib.Path(folder) / "state" / f"rotated-{weights_digest(model_and_data.model):08x}.npz"
    if resume and path.exists():
        load_weights(model, path)

    def keep() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(model, path)

    return dataclasses.replace(model_and_data, model=model, notes=(*model_and_data.notes, *lines)), keep
