"""Training: one GradientTape loop for every phase, its losses and learning rates, and files that survive a kill."""

from dcp_tf.training.checkpoint import TrainState, load_weights, save_model, save_weights
from dcp_tf.training.history import History
from dcp_tf.training.loop import TrainConfig, fit
from dcp_tf.training.losses import ClassificationLoss, Distillation, Loss, classification_loss, soft_targets
from dcp_tf.training.schedules import Schedule, cosine_schedule, step_schedule
from dcp_tf.training.seeds import seed_everything

__all__ = [
    "ClassificationLoss",
    "Distillation",
    "History",
    "Loss",
    "Schedule",
    "TrainConfig",
    "TrainState",
    "classification_loss",
    "cosine_schedule",
    "fit",
    "load_weights",
    "save_model",
    "save_weights",
    "seed_everything",
    "soft_targets",
    "step_schedule",
]
