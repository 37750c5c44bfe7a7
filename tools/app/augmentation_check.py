"""Checks that a model recognizes augmented training images before it is trained on them."""

import dataclasses
from typing import Any

from dcp_tf.tools.cli.data_flags import ModelAndData

_IMAGES = 512  # enough to detect large losses
_SHARE, _POINTS = 0.1, 0.05  # relative and absolute loss of accuracy; larger ones are no accident


def drop_harmful_augmentation(flags: Any, model_and_data: ModelAndData, teacher: Any = None) -> ModelAndData:
    """Turns the default augmentation off if the accuracy collapses on augmented images.

    A model that never saw such images would learn them at the cost of its accuracy, from a baseline that is wrong
    about them. An augmentation that the user asked for stays.

    Args:
        flags: of a program that trains.
        model_and_data: a trained model with its data and its objective.
        teacher: the model to check; None: that of `model_and_data`.
    """
    train, objective = model_and_data.dataset.train, model_and_data.objective
    augmentation = getattr(train, "augmentation", "none")
    if flags.augmentation is not None or augmentation == "none" or not _trains(flags):
        return model_and_data
    if objective is None or objective.is_dense or objective.name not in ("softmax", "sigmoid", "multilabel"):
        return model_and_data
    before, after = _accuracies(teacher or model_and_data.model, train, objective, flags.seed)
    if before - after <= max(_POINTS, _SHARE * before):
        return model_and_data
    note = (
        f"the training images are not augmented ({augmentation}): the model's accuracy falls from "
        f"{100 * before:.0f}% to {100 * after:.0f}% on augmented ones (--augmentation={augmentation} forces it)"
    )
    dataset = dataclasses.replace(model_and_data.dataset, train=dataclasses.replace(train, augmentation="none"))
    return dataclasses.replace(model_and_data, dataset=dataset, notes=(*model_and_data.notes, note))


def _trains(flags: Any) -> bool:
    epochs = "finetune_epochs" in flags and flags.finetune_epochs
    return bool(epochs) or ("quantization" in flags and "qat" in flags.quantization)


def _accuracies(model: Any, train: Any, objective: Any, seed: int) -> tuple[float, float]:
    """The objective's figure on original and on augmented training images.

    Without labels the predictions for the original images are the labels.
    """
    import numpy as np

    from dcp_tf import progress
    from dcp_tf.evaluation import top1_classes
    from dcp_tf.training.objectives import predictions

    images = train.take(train.balanced_subset(_IMAGES, seed))
    if images.labels is None:
        outputs, _ = predictions(model, images, images.size)
        if getattr(objective, "multilabel", False):
            answers = np.asarray(objective.loss.as_probabilities(outputs) > 0.5, np.float32)
        else:
            answers = top1_classes(outputs, objective.outputs_kind)
        images = dataclasses.replace(images, labels=answers)
    accuracies = []
    for changed in (False, True):
        batches = images.batches(64, augment=changed, seed=seed)
        bar = progress.bar(batches, what="looking at augmented images" if changed else "looking at images")
        accuracies.append(objective.evaluate(model, bar)[objective.primary])
    return accuracies[0], accuracies[1]
