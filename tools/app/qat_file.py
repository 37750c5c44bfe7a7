"""Makes a qat file: trains a copy of a model with rounded weights, and converts it."""

import dataclasses
from typing import Any

from dcp_tf.errors import UsageError


def refused(model: Any) -> str | None:
    """Why a model has too many inputs or outputs for this training; None if it has not."""
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) > 1:
            return f"qat trains models of one {what}, {model.name!r} has {len(tensors)}"
    return None


def make_qat_file(model: Any, dataset: Any, objective: Any, settings: Any, seed: int) -> tuple[Any, Any]:
    """Trains a copy of a model for an integer file, and converts it.

    Zero kernels stay zero.

    Args:
        model: a Keras model of fixed sizes; it stays unchanged.
        dataset: its training images are used for training and calibration.
        objective: of the model, None if it has several outputs.
        settings: a `Deployment`.
        seed: of all random choices.

    Returns:
        The file, and the Keras model whose weights it rounds.

    Raises:
        UsageError: the model cannot be trained this way.
        RunError: the training or the conversion failed.
    """
    from dcp_tf import tflite
    from dcp_tf.graph import zero_kernel_masks

    if reason := refused(model):
        raise UsageError(f"{reason}: export int8")
    losses, teacher, train = _distillation_losses(model, dataset.train, objective, settings.qat.distillation)
    quantized = tflite.quantization_aware_training(
        model,
        train,
        losses,
        epochs=settings.qat.epochs,
        learning_rate=settings.qat.learning_rate,
        batch_size=settings.qat.batch_size,
        masks=zero_kernel_masks(model),
        teacher=teacher,
        seed=seed,
        lower="qat.learning_rate",
    )
    images = dataset.train.representative(settings.calibration_samples, seed)
    allow_float = not settings.strict
    file = tflite.convert_qat(quantized, representative_data=images, io=settings.io, allow_float=allow_float)
    return file, tflite.trained_copy(quantized, model)


def _distillation_losses(model: Any, train: Any, objective: Any, distillation: float) -> tuple[list, Any, Any]:
    """Losses, teacher and data for the objective."""
    from dcp_tf.training import Distillation, MeanSquaredError

    if objective.loss_head(model, train) is not None:
        # The training head of embeddings is not part of the model, so the embeddings are trained to stay the same.
        return [MeanSquaredError()], lambda images: model(images, training=False), _without_labels(train)
    teacher = objective.targets(model, train)
    if distillation and hasattr(objective.loss, "distance"):
        return [Distillation(objective.loss, distillation)], teacher, train
    return [objective.loss], None if train.labels is not None else teacher, train


def _without_labels(train: Any) -> Any:
    return dataclasses.replace(train, labels=None)
