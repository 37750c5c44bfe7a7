"""How to train, as one value."""

import dataclasses
import types

from dcp_tf.errors import UsageError
from dcp_tf.settings.optimizers import OPTIMIZERS, Default, has_schedule, optimizer_config, rate_and_decay
from dcp_tf.settings.schedules import Schedule, cosine_schedule, step_schedule
from dcp_tf.settings.table import Settings, documented, setting

# Of a fine-tuning whose length nobody set: ten epochs of some hundred images have hardly any steps of 128.
FEW_IMAGES = types.MappingProxyType({"min_steps": 300, "min_batch_size": 32, "max_epochs": 100})
_FEW = "the programs set it where the images are few"
_FIXED = "one value has served all runs so far"


@documented
@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """How to train; the defaults are those of Liu et al. 2021 on CIFAR-10, with a cosine in place of steps."""

    epochs: int = setting(about="Passes over the training images; 0 trains nothing.", lower=0)
    batch_size: int = setting(128, "Images per training step.", lower=1)
    learning_rate: float = setting(
        Default(0.1), "The highest learning rate.", above=0, hint="; {epochs}=0 leaves the training out"
    )
    schedule: str = setting(
        "cosine",
        "How the learning rate falls: to 0 along a cosine, to a tenth at each step, or not at all.",
        choices=("cosine", "step", "constant"),
    )
    boundaries: tuple[float, ...] = setting(
        (0.4, 0.6), "For {schedule}=step: where it falls, in epochs (160,240) or fractions (0.4,0.6)."
    )
    factor: float = setting(0.1, "What each step multiplies the learning rate by.", python_only=_FIXED)
    warmup: float = setting(
        0.0, "Epochs over which the learning rate first rises from 0; not with auxiliary losses.", lower=0
    )
    momentum: float = setting(0.9, "Momentum of SGD, if {optimizer} is a name.", lower=0, below=1, python_only=_FIXED)
    nesterov: bool = setting(True, "Use Nesterov's momentum in that.", python_only=_FIXED)
    weight_decay: float = setting(Default(1e-4), "L2 coefficient of the weights that {decay} names.", lower=0)
    decay: str = setting(
        "kernels",
        "Which weights decay. kernels: those of convolutions and fully connected layers; no_depthwise: those without "
        "depthwise kernels, which have few weights each; all: biases and BatchNormalization too.",
        choices=("kernels", "no_depthwise", "all"),
    )
    clip_norm: float | None = setting(
        None,
        "Largest global norm of the gradient; 0: no limit. By default 1, or less where a loss asks for it.",
        lower=0,
    )
    label_smoothing: float = setting(
        0.0, "Share of the labels that is spread over all classes, such as 0.1.", lower=0, below=1
    )
    mixed_precision: str = setting(
        "float32",
        "What layers compute in while they are trained; weights and models stay float32. float16 scales the loss.",
        choices=("float32", "bfloat16", "float16"),
    )
    ema: float = setting(
        0.0,
        "Decay of a moving average of the weights, such as 0.999, that is measured and kept in their place; 0: none.",
        lower=0,
        below=1,
    )
    steps_per_epoch: int | None = setting(
        None, "At most so many batches per epoch, for smoke tests.", lower=1, flag="max_steps_per_epoch"
    )
    bn_sparsity: float = setting(
        0.0,
        "Factor of the L1 norm of BatchNormalization's scales in the loss (network slimming), such as 1e-4; prune by "
        "{method}=bn_scale afterwards.",
        lower=0,
    )
    batch_norm_momentum: float | None = setting(
        0.9,
        "Momentum of BatchNormalization's running statistics while training; None leaves each layer its own. Keras' "
        "0.99 needs hundreds of steps to follow the weights, more than a short fine-tuning has. The first steps use "
        "less, `(1 + step) / (10 + step)`.",
        lower=0,
        below=1,
        python_only=_FIXED,
    )
    min_steps: int = setting(
        0,
        "Steps that the whole training takes at least, as far as smaller batches (at least {min_batch_size}) and "
        "then more epochs (no more than {max_epochs}) reach them. No effect beside {steps_per_epoch}, and on batches "
        "whose number is unknown.",
        lower=0,
        python_only=_FEW,
    )
    min_batch_size: int | None = setting(None, "None: the batches stay as they are.", lower=1, python_only=_FEW)
    max_epochs: int | None = setting(None, "None: the epochs stay as they are.", lower=1, python_only=_FEW)
    held_out: int | None = setting(
        None,
        "Training images that fine-tuning does not look at, by which the best epoch is found and kept (the model as it "
        "was before, if none does better). By default a tenth, at most 1,000; 0: none, the last epoch is kept.",
        lower=0,
    )
    seed: int = setting(0, "Of everything that is drawn. Equal seeds, equal results.", lower=0, upper=2**32 - 1)
    optimizer: str | dict | None = setting(
        None,
        "What updates the weights, one of Keras' optimizers. By default the one that the model was compiled with, else "
        "SGD with Nesterov's momentum. Others than that have their own learning rate and weight decay (decoupled) "
        "unless {learning_rate} or {weight_decay} are given.",
        choices=OPTIMIZERS,
    )

    def __post_init__(self):
        object.__setattr__(self, "optimizer", optimizer_config(self.optimizer))
        super().__post_init__()
        if not self.is_plain_sgd:
            self._follow_optimizer()
        self.rate()

    def _follow_optimizer(self) -> None:
        """Takes the optimizer's own numbers where none were chosen."""
        given = {name: not isinstance(getattr(self, name), Default) for name in ("learning_rate", "weight_decay")}
        for name, value in zip(given, rate_and_decay(self.optimizer), strict=True):
            if not given[name]:
                object.__setattr__(self, name, Default(value))
        if (self.momentum, self.nesterov) != (type(self).momentum, type(self).nesterov):
            raise UsageError("momentum and nesterov are those of optimizer='sgd'; give them to the optimizer itself")
        if self.has_schedule and (self.warmup or given["learning_rate"]):
            raise UsageError("the optimizer has a schedule of its own: leave out learning_rate and warmup")

    @property
    def is_plain_sgd(self) -> bool:
        """Whether SGD trains with `momentum`, `nesterov` and the weight decay inside of the gradient."""
        return self.optimizer in (None, "sgd")

    @property
    def has_schedule(self) -> bool:
        """Whether the optimizer brings a `keras.optimizers.schedules` object, which counts in place of `schedule`."""
        return has_schedule(self.optimizer)

    def for_inputs(self, count: int) -> "TrainConfig":
        """The same for so many inputs, without `min_steps`: batch size and epochs are what it makes of them.

        Batches are evened out where they are few, so that none of a handful of images spoils BatchNormalization.
        """
        batch_size, epochs = self.batch_size, self.epochs
        if epochs and self.min_steps and self.steps_per_epoch is None:
            smallest = self.min_batch_size or batch_size
            while batch_size // 2 >= smallest and -(-count // batch_size) * epochs < self.min_steps:
                batch_size //= 2
            needed = -(-self.min_steps // -(-count // batch_size))
            epochs = max(epochs, min(needed, self.max_epochs or epochs))
        batch_size = -(-count // -(-count // batch_size))
        settled = {"min_steps": 0, "min_batch_size": None, "max_epochs": None}
        return dataclasses.replace(self, batch_size=batch_size, epochs=epochs, **settled)

    def rate(self) -> Schedule:
        """The schedule: from the epoch (float) to the learning rate."""
        if self.schedule == "cosine":
            return cosine_schedule(self.learning_rate, self.epochs, self.warmup)
        boundaries = () if self.schedule == "constant" else self.boundaries
        return step_schedule(self.learning_rate, boundaries, self.factor, epochs=self.epochs, warmup=self.warmup)


AUXILIARY = TrainConfig(epochs=3, learning_rate=Default(0.01), **FEW_IMAGES)
FINETUNING = TrainConfig(epochs=10, learning_rate=Default(0.01), **FEW_IMAGES)
BASELINE = TrainConfig(epochs=30)
