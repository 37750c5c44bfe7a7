"""Trains a network of ours from scratch."""

import pathlib
import time
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.common_flags import Subject, zoo_input_shape


def train(
    model: str,
    dataset: str,
    config: Any,
    state: pathlib.Path,
    resume: bool,
    *,
    log_dir: str | None = None,
    data_dir: str | None = None,
) -> tuple[Subject, dict[str, Any]]:
    """Builds and trains `zoo:NAME` for a data set.

    Args:
        model: `zoo:NAME`, or `keras:NAME` without weights.
        dataset: as `--dataset`.
        config: how to train; its seed draws the weights too.
        state: file that keeps the epochs that are done.
        resume: whether to go on with it.
        log_dir: folder for TensorBoard scalars.
        data_dir: of TensorFlow Datasets.

    Returns:
        The trained model with its data, and the phase for the summary.

    Raises:
        UsageError: the model is a file, or does not fit the data.
    """
    from dcp_tf import data, models
    from dcp_tf.evaluation import accuracy
    from dcp_tf.training import TrainState, classification_loss, fit, seed_everything

    if not model.startswith(("zoo:", "keras:")):
        raise UsageError(f"train builds networks: --model=zoo:NAME or keras:NAME, received {model!r}")
    seed_everything(config.seed)
    raw = data.load(dataset, seed=config.seed, data_dir=data_dir)
    shape = zoo_input_shape(raw.input_shape) if model.startswith("zoo:") else None
    loaded = models.load(model, input_shape=shape, num_classes=raw.num_classes)
    images = data.load(
        dataset,
        input_shape=loaded.model.inputs[0].shape[1:],
        normalization=loaded.normalization,
        seed=config.seed,
        data_dir=data_dir,
    )
    if images.train.labels is None:
        raise UsageError(f"{dataset} has no labels to train on")
    kind = models.outputs_kind(loaded.model)
    started = time.perf_counter()
    if not resume:
        state.unlink(missing_ok=True)
    history = fit(
        loaded.model,
        images.train,
        [classification_loss(kind)],
        config,
        validation=lambda: accuracy(loaded.model, images.test.batches(256), outputs_kind=kind),
        checkpoint=TrainState(state),
        phase="training",
        log_dir=log_dir,
        lower="--learning_rate",
    )
    phase = {"name": "training", "seconds": time.perf_counter() - started, "history": list(history)}
    return Subject(loaded.model, images, kind, loaded.normalization, model), phase
