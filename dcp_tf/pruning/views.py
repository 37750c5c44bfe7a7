"""More views of few images for the selection: random crops, where the model recognizes them."""

import dataclasses

import numpy as np

from dcp_tf import progress
from dcp_tf.data.cropped_split import CroppedSplit, views_per_image, with_crops
from dcp_tf.errors import UsageError
from dcp_tf.evaluation import top1_classes
from dcp_tf.pruning.context import Context
from dcp_tf.training import Classification

_LOOKED_AT = 64  # images: only large losses count
_RECOGNIZED = 0.7  # of their crops at least


def with_views(context: Context) -> Context:
    """The context with several views of each image for the selection, where images are few.

    A kernel that is fitted on a few hundred images follows them too closely; the baseline's outputs for crops of them
    are as good a target and cost nothing but time (docs/decisions/058).

    Args:
        context: of the run.

    Raises:
        UsageError: `selection_views` asks for crops of what is no image.
    """
    method, data = context.method, context.data
    if not method.guided or method.selection_views == 1:
        return context
    is_image = len(data.shapes) == 1 and len(data.shape) == 3 and None not in data.shape
    has_one_answer = len(context.model.outputs) == 1 and not context.objective.is_dense
    if method.selection_views and not (is_image and has_one_answer):
        raise UsageError(
            f"crops keep their labels only where a whole image of one size has them, not those of shape {data.shape} "
            "with one answer for each place; leave it out",
            setting="selection_views",
        )
    views = method.selection_views or _default_views(context)
    if views == 1:
        return context
    crops = with_crops(data, views, context.seed)
    if method.selection_views is None and not _are_recognized(context, crops):
        return context
    progress.say(f"selecting on {views} views of each of {data.size} images: the image and random crops")
    return dataclasses.replace(context, selection_data=crops)


def _default_views(context: Context) -> int:
    """As many as fill the selection set, of images whose class is the largest output."""
    if len(context.data.shapes) > 1 or len(context.model.outputs) > 1:
        return 1
    objective, outputs = context.objective, context.model.outputs[0].shape
    has_classes = isinstance(objective, Classification) and not objective.multilabel
    answers_itself = context.data.labels is None and len(outputs) == 2 and outputs[1] > 2
    if objective.is_dense or not (has_classes or answers_itself):
        return 1
    return views_per_image(context.data, context.method.selection_samples)


def _are_recognized(context: Context, crops: CroppedSplit) -> bool:
    """Whether the model gives the crops of some images the class that it gives the images."""
    images = crops.images.balanced_subset(_LOOKED_AT, context.seed)
    kind = context.objective.outputs_kind
    # The second view is the first crop.
    answers = [
        top1_classes(np.asarray(context.model(crops.read(positions), training=False), np.float32), kind)
        for positions in (images, images + crops.images.size)
    ]
    return float((answers[0] == answers[1]).mean()) >= _RECOGNIZED
