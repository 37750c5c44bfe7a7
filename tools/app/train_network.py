"""Builds and trains a network from scratch."""

import functools
import pathlib
import time
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli import face_flags, objective_flags
from dcp_tf.tools.cli.data_flags import ModelAndData, check_shape, zoo_input_shape


def build(
    model: str,
    dataset: str,
    seed: int,
    *,
    data_dir: str | None = None,
    loss: str = "auto",
    augmentation: str | None = None,
    faces: Any = None,
    image_size: int | None = None,
) -> ModelAndData:
    """Builds `zoo:NAME` or `keras:NAME` with random weights for a data set.

    Args:
        model: `zoo:NAME`, or `keras:NAME` without weights.
        dataset: as `--dataset`.
        seed: of the weights and, if the data set has no test images, of the split.
        data_dir: of TensorFlow Datasets.
        loss: as `--loss`.
        augmentation: as `--augmentation`.
        faces: which identities of `faces:DIR` to read; see `dcp_tf.data.FaceSettings`.
        image_size: as `--image_size`.

    Raises:
        UsageError: the model is a file, or does not fit the data.
    """
    from dcp_tf import data, models
    from dcp_tf.training import choose_objective, output_shape, seed_everything

    if not model.startswith(("zoo:", "keras:")):
        raise UsageError(f"networks are trained from scratch: give --model=zoo:NAME or keras:NAME, received {model!r}")
    seed_everything(seed)
    load = functools.partial(data.load, dataset, seed=seed, data_dir=data_dir, faces=faces)
    raw = load(input_shape=None if image_size is None else (image_size, image_size, None))
    if raw.train.labels is None:
        raise UsageError(f"{dataset} has no labels to train on")
    if raw.test.labels is None:
        raise UsageError(f"{dataset} has no labels to measure on: its test images need some too")
    shape = zoo_input_shape(raw.input_shape) if model.startswith("zoo:") else None
    loaded = models.load(model, input_shape=shape, num_classes=objective_flags.outputs_for(model, raw))
    normalization = objective_flags.of_cifar100(loaded.normalization, model, dataset)
    input_shape = loaded.model.inputs[0].shape[1:]
    images = load(input_shape=input_shape, normalization=normalization, augmentation=augmentation)
    kind, notes = models.outputs_kind(loaded.model), [*images.notes]
    loss = objective_flags.face_loss(loss, dataset, kind)
    objective = choose_objective(loaded.model, images.train, loss, kind, f"{raw.name} (train)")
    objective.check(images.test.labels, output_shape(loaded.model, images.test), f"{raw.name} (test)")
    if loss == "auto":
        notes.append(f"loss: {objective.describe()} (from the outputs and the labels; --loss overrides)")
    images = objective_flags.drop_geometric_augmentation(images, objective, augmentation, notes)
    return ModelAndData(loaded.model, images, kind, normalization, model, tuple(notes), objective)


def build_from_flags(flags: Any, model: str, image_size: int | None) -> ModelAndData:
    """As `build`, with the data, the seed and the loss of the flags; verified on `--pairs` if they are given.

    Raises:
        UsageError: as `build`, or the user's own arrays are of another shape than `keras:NAME` takes.
    """
    model_and_data = build(
        model,
        flags.dataset,
        flags.seed,
        data_dir=flags.data_dir,
        loss=flags.loss,
        augmentation=flags.augmentation,
        faces=face_flags.face_settings(flags),
        image_size=image_size,
    )
    if not model.startswith("zoo:"):  # which are built for the data
        check_shape(flags, model_and_data.dataset)
    return face_flags.with_pairs(flags, model_and_data)


def train(
    model_and_data: ModelAndData, config: Any, state: pathlib.Path, *, log_dir: str | None = None
) -> dict[str, Any]:
    """Trains a built network in place; resumes from `state`.

    Args:
        model_and_data: the network and its data.
        config: how to train.
        state: file that keeps the finished epochs.
        log_dir: folder for TensorBoard scalars.

    Returns:
        The phase for the summary.

    Raises:
        UsageError: `state` is from a training with other settings or data.
        RunError: the loss became NaN, or `state` cannot be written.
    """
    from dcp_tf.data import digest, images_per_measurement
    from dcp_tf.training import TrainState, fit

    model, images, objective = model_and_data.model, model_and_data.dataset, model_and_data.objective
    started = time.perf_counter()
    history = fit(
        objective.with_loss_head(model, None),
        images.train,
        [objective.loss],
        config,
        validation=lambda: objective.evaluate(model, images.test.batches(images_per_measurement(images.test.shape))),
        checkpoint=TrainState(state, {"data": digest(images.train), "loss": objective.name}),
        phase="training",
        log_dir=log_dir,
        lr_setting="learning_rate",
    )
    return {"name": "training", "seconds": time.perf_counter() - started, "history": list(history)}
