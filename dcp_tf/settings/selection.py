"""How Algorithms 1 and 2 choose, and at which images they look."""

import dataclasses

from dcp_tf.errors import UsageError
from dcp_tf.settings.table import Settings, documented, setting

# What guides the choice: the factors `reconstruction` and `discrimination`.
LOSSES = {"joint": (1.0, 1.0), "reconstruction": (1.0, 0.0), "discrimination": (0.0, 1.0)}


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Heads(Settings):
    """The auxiliary classifiers, whose losses guide the choice."""

    auxiliary_losses: int = setting(
        2, "Auxiliary classifiers, spread over the depth. By default 2, for width_multiplier none.", lower=0
    )
    auxiliary_layers: tuple[str, ...] = setting(
        (), "Layers to put the auxiliary classifiers at instead; inspect_model --layers lists them."
    )
    auxiliary_trains: str | None = setting(
        None,
        "What the epochs with auxiliary losses train: all: the whole model, as the paper; heads (the default): the "
        "auxiliary classifiers alone, which takes a third of the time, leaves the model as it is, and measures better "
        "where training is short. Not for {per_stage}, which trains the whole model.",
        choices=("all", "heads"),
    )
    per_stage: bool = setting(
        False, "Fine-tune before the groups of each auxiliary classifier (the NeurIPS variant), not once."
    )


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Settings):
    """How the channels are found that the losses need."""

    reconstruction: float = setting(
        1.0, "Factor lambda of the loss L_M in eq. 6; 0: discrimination only.", lower=0, by_hand=True, flag="losses"
    )
    discrimination: float = setting(
        1.0, "Factor of the losses L_S; 0: reconstruction only.", lower=0, by_hand=True, flag="losses"
    )
    selection: str = setting(
        "fast",
        "fast: by elimination in a quadratic model of the losses, built in one pass over the images (as exact where "
        "the model does not cover a layer); exact: step by step over the images, as the paper.",
        choices=("fast", "exact"),
    )
    per_step: int | None = setting(
        None,
        "Channels that each step of the selection adds to a group. By default 2, and more in groups that keep over 64, "
        "so that none takes over 32 steps. Kernels come in by as many times the filters of the layer (by default 1, as "
        "far as it takes no more than 32 steps).",
        lower=1,
    )
    score: str | None = setting(
        None,
        "For {selection}=exact, which come in first. paper: those with the largest gradient of the loss (Frobenius "
        "norm); code: the same, norms added up over the filters; reduction (the default): those that lower the loss "
        "most by its slope and curvature.",
        choices=("paper", "code", "reduction"),
    )
    selection_passes: int | None = setting(
        None,
        "Passes of training over the selection's images, per step for exact, once per group or layer for fast. By "
        "default 1 and 0.",
        lower=0,
    )
    recover: float | None = setting(
        None,
        "Minutes, at most, in which all weights of the pruned model are fitted together to the outputs of the "
        "baseline's blocks, on the selection's images and without labels; 0: not at all. By default as long as some "
        "passes over the images take, for {selection}=exact not at all.",
        lower=0,
    )
    selection_lr: float = setting(0.01, "Learning rate of the selection.", above=0)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Images(Settings):
    """At which images the selection looks, and how many of their layer inputs are kept.

    Half of `cache_gib` holds layer inputs, a quarter what passes make on their way, a quarter the matrices of quadratic
    models. Passes of SGD (selection="exact", or `selection_passes`) take what their batches need.
    """

    selection_samples: int = setting(4096, "Training images that the selection looks at.", lower=1)
    selection_views: int | None = setting(
        None,
        "How often the selection sees each image: as it is, and as random crops, half of them mirrored. By default as "
        "often as fills {selection_samples} where images of at least 32 x 32 pixels are few, up to 16 times, if the "
        "model recognizes the crops; 1: only as it is.",
        lower=1,
    )
    selection_batch: int = setting(128, "Images per training step of the selection.", lower=1)
    cache_gib: float = setting(2.0, "Memory that the selection takes beside model and images, GiB.", lower=0)
    cache_disk_gib: float = setting(
        8.0,
        "Temporary files for what does not fit there, GiB (at most half of the free space; 0: none); what does not fit "
        "either is computed again.",
        lower=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(Heads, Search, Images):
    """Everything that Algorithms 1 and 2 need to know."""

    def __post_init__(self):
        super().__post_init__()
        if self.score is not None and self.selection == "fast":
            raise UsageError(
                f"score={self.score} goes with selection='exact', received selection={self.selection!r}",
                setting=("score", "selection"),
            )
        if self.per_stage and self.auxiliary_trains:
            raise UsageError(
                f"auxiliary_trains={self.auxiliary_trains} is not for per_stage, which trains the whole model",
                setting=("auxiliary_trains", "per_stage"),
            )
        if not (self.reconstruction or self.discrimination):
            raise UsageError("reconstruction and discrimination must not both be 0")
