"""How to train, as one value."""

import dataclasses
import types

from dcp_tf.errors import UsageError
from dcp_tf.field_types import check_fields
from dcp_tf.training.schedules import Schedule, cosine_schedule, step_schedule

DECAYS = ("kernels", "no_depthwise", "all")
PRECISIONS = ("float32", "bfloat16", "float16")
# Of a fine-tuning whose length nobody set: ten epochs of some hundred images have hardly any steps of 128.
FEW_IMAGES = types.MappingProxyType({"min_steps": 300, "min_batch_size": 32, "max_epochs": 100})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are those of Liu et al. 2021 on CIFAR-10, with a cosine in place of steps.

    Attributes:
        epochs: passes over the data; 0 trains nothing.
        min_steps: steps that the whole training takes at least, as far as smaller batches, no smaller than
            `min_batch_size`, and then more epochs, no more than `max_epochs`, reach them. It has no effect beside
            `steps_per_epoch`, and on batches whose number is unknown.
        min_batch_size: None: the batches stay as they are.
        max_epochs: None: the epochs stay as they are.
        batch_size: images per step.
        learning_rate: the highest rate.
        schedule: "cosine" to 0, or "step", which multiplies the rate by `factor` at each of the `boundaries`.
        boundaries: for "step": epochs, or fractions of the run.
        factor: for "step".
        warmup: epochs over which the rate first rises from 0.
        momentum: of SGD.
        nesterov: whether the momentum looks ahead.
        weight_decay: L2 coefficient inside the gradient.
        decay: which weights decay. "kernels": those of convolutions and fully connected layers; "no_depthwise": the
            same without depthwise kernels, which have few weights each (Howard et al. 2017); "all": every weight that
            is trained, biases and BatchNormalization's gamma and beta too.
        clip_norm: largest global norm of the gradient; 0: no limit. None: 1, or what the losses ask for in their
            attribute `clip_norm` where that is less.
        label_smoothing: share of the targets that is spread evenly over all classes (Szegedy et al. 2016), 0 to 1.
        mixed_precision: what layers compute in: "float32", "bfloat16" or "float16"; weights stay float32. With float16
            the loss is scaled up before the gradients are taken, so that small ones do not become 0.
        ema: decay of the moving average of all weights, such as 0.999, that is measured after each epoch and takes the
            place of the weights at the end; 0: none. The first steps use less, `(1 + step) / (10 + step)`.
        steps_per_epoch: at most so many batches per epoch; None: all. For rehearsals.
        bn_sparsity: factor of the L1 norm of BatchNormalization's gammas in the loss, which drives those of needless
            channels to 0 before pruning by `bn_scale` (network slimming, Liu et al. 2017, arXiv:1708.06519, eq. 1:
            1e-4 or 1e-5). 0: none.
        batch_norm_momentum: of BatchNormalization's running statistics while training; None leaves each layer its own.
            Keras' 0.99 needs hundreds of steps to follow the weights, more than a short fine-tuning has; the papers'
            networks were trained with 0.9. The first steps use less, `(1 + step) / (10 + step)`, so that a training of
            few steps does not end with the statistics of weights that it began with.
        held_out: inputs that `fit(..., keep_best=True)` holds out of training to find the best epoch by; None: a tenth,
            at most 1,000; 0: none, and the weights after the last epoch are kept. Other trainings hold none out.
        seed: of the data's order and augmentation, and of Dropout.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "cosine"
    boundaries: tuple[float, ...] = (0.4, 0.6)
    factor: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    decay: str = "kernels"
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixed_precision: str = "float32"
    ema: float = 0.0
    steps_per_epoch: int | None = None
    bn_sparsity: float = 0.0
    batch_norm_momentum: float | None = 0.9
    min_steps: int = 0
    min_batch_size: int | None = None
    max_epochs: int | None = None
    held_out: int | None = None
    seed: int = 0

    def __post_init__(self):
        check_fields(self)
        allowed = {
            "epochs": (self.epochs >= 0, "0 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "above 0"),
            "schedule": (self.schedule in ("cosine", "step"), "cosine or step"),
            "warmup": (self.warmup >= 0, "0 or more epochs"),
            "momentum": (0 <= self.momentum < 1, "0 or more and below 1"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more"),
            "decay": (self.decay in DECAYS, f"one of {', '.join(DECAYS)}"),
            "bn_sparsity": (0 <= self.bn_sparsity < float("inf"), "0 or more"),
            "clip_norm": (self.clip_norm is None or 0 <= self.clip_norm < float("inf"), "0 or more, or None"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 or more and below 1"),
            "mixed_precision": (self.mixed_precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "ema": (0 <= self.ema < 1, "0 or more and below 1"),
            "steps_per_epoch": (self.steps_per_epoch is None or self.steps_per_epoch >= 1, "1 or more, or None"),
            "batch_norm_momentum": (
                self.batch_norm_momentum is None or 0 <= self.batch_norm_momentum < 1,
                "0 or more and below 1, or None",
            ),
            "min_steps": (self.min_steps >= 0, "0 or more"),
            "min_batch_size": (self.min_batch_size is None or self.min_batch_size >= 1, "1 or more, or None"),
            "max_epochs": (self.max_epochs is None or self.max_epochs >= 1, "1 or more, or None"),
            "held_out": (self.held_out is None or self.held_out >= 0, "0 or more, or None"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (fine, expected) in allowed.items():
            if not fine:
                raise UsageError(f"Expected {name} to be {expected}. Received: {getattr(self, name)!r}")
        self.rate()

    def for_inputs(self, count: int) -> "TrainConfig":
        """The same for so many inputs, without `min_steps`: batch size and epochs are what it makes of them.

        Batches are evened out where they are few, so that none of a handful of images spoils BatchNormalization.
        """
        batch_size, epochs = self.batch_size, self.epochs
        if epochs and self.min_steps and self.steps_per_epoch is None:
            smallest = self.min_batch_size or batch_size
            while batch_size // 2 >= smallest and -(-count // batch_size) * epochs < self.min_steps:
                batch_size //= 2
            wanted = -(-self.min_steps // -(-count // batch_size))
            epochs = max(epochs, min(wanted, self.max_epochs or epochs))
        batch_size = -(-count // -(-count // batch_size))
        settled = {"min_steps": 0, "min_batch_size": None, "max_epochs": None}
        return dataclasses.replace(self, batch_size=batch_size, epochs=epochs, **settled)

    def rate(self) -> Schedule:
        """The schedule: from the epoch (float) to the learning rate."""
        if self.schedule == "cosine":
            return cosine_schedule(self.learning_rate, self.epochs, self.warmup)
        return step_schedule(self.learning_rate, self.boundaries, self.factor, epochs=self.epochs, warmup=self.warmup)
