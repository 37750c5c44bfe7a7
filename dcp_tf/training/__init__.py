"""Training: one GradientTape loop for every phase, its losses and learning rates, and files that survive a kill."""

from dcp_tf.deprecated import renamed
from dcp_tf.settings.schedules import Schedule, cosine_schedule, step_schedule
from dcp_tf.settings.training import FEW_IMAGES, TrainConfig
from dcp_tf.training.advice import finetuning_advice
from dcp_tf.training.checkpoint import History, TrainState, load_weights, save_model, save_weights
from dcp_tf.training.choose_joint import as_objective
from dcp_tf.training.choose_objective import LOSSES, choose_for_outputs, choose_objective
from dcp_tf.training.custom_objective import Custom
from dcp_tf.training.distribution import distributed, make_strategy
from dcp_tf.training.embeddings import Directions, Embedding
from dcp_tf.training.joint_loss import JointLoss
from dcp_tf.training.joint_objective import Joint
from dcp_tf.training.keras_distillation import distill, distiller
from dcp_tf.training.layers import seed_everything
from dcp_tf.training.loop import fit
from dcp_tf.training.losses import (
    ClassificationLoss,
    Distillation,
    Loss,
    MeanSquaredError,
    distillation_weight,
    soft_targets,
)
from dcp_tf.training.margins import ArcFace, ASoftmax, CosFace, MarginHead
from dcp_tf.training.masks import MaskedKernels
from dcp_tf.training.objectives import Classification, Objective, Regression, output_shape
from dcp_tf.training.strided_gradients import repair_strided_gradients

repair_strided_gradients()

__getattr__ = renamed(
    __name__, {"share_of_teacher": "distillation_weight", "classification_loss": "ClassificationLoss"}
)

__all__ = [
    "FEW_IMAGES",
    "LOSSES",
    "ASoftmax",
    "ArcFace",
    "Classification",
    "ClassificationLoss",
    "CosFace",
    "Custom",
    "Directions",
    "Distillation",
    "Embedding",
    "History",
    "Joint",
    "JointLoss",
    "Loss",
    "MarginHead",
    "MaskedKernels",
    "MeanSquaredError",
    "Objective",
    "Regression",
    "Schedule",
    "TrainConfig",
    "TrainState",
    "as_objective",
    "choose_for_outputs",
    "choose_objective",
    "cosine_schedule",
    "distill",
    "distillation_weight",
    "distiller",
    "distributed",
    "finetuning_advice",
    "fit",
    "load_weights",
    "make_strategy",
    "output_shape",
    "repair_strided_gradients",
    "save_model",
    "save_weights",
    "seed_everything",
    "soft_targets",
    "step_schedule",
]
