"""The form of an experiment, and the settings that the rows of one table share (Liu et al. 2021, sec. 5)."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from dcp_tf.models.paper_scope import paper_scope


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One row of a table: the baseline, and what `prune` does with it.

    Attributes:
        model: the network, zoo:NAME.
        image_size: height and width of its images; None for those of the data set.
        baseline: flags of `train`, for a baseline that is trained if `--model` gives none.
        flags: of `prune`, by name.
    """

    model: str
    image_size: int | None
    baseline: Mapping[str, Any]
    flags: Mapping[str, Any]


def outside_of_the_papers(network: str) -> list[str]:
    """For `--exclude`: all groups of a network that the papers do not prune."""
    return [f"(?!({'|'.join(paper_scope(network))})$).*"]


def steps(prefix: str, *epochs: int, of: int) -> dict[str, Any]:
    """A step schedule: a tenth of the learning rate after each of some epochs, as fractions of the run."""
    return {f"{prefix}schedule": "step", f"{prefix}boundaries": [str(epoch / of) for epoch in epochs]}


# Algorithms 1 and 2 as in the paper: auxiliary losses train the whole model; the selection works on images, two
# channels a step, with one pass of SGD each.
ALGORITHM_1 = {"auxiliary_trains": "all"}
ALGORITHM_2 = {"selection": "exact", "score": "paper", "selection_passes": 1, "selection_lr": 0.01}
BY_TWO = {"per_step": 2}
NO_LIMIT = {"clip_norm": 0.0}  # for gradients; face networks have a limit, because of their losses

_NONE: Mapping[str, Any] = types.MappingProxyType({})


def cifar10(
    network: str, auxiliary_losses: int, /, *, scope: bool = False, baseline: Mapping[str, Any] = _NONE, **flags: Any
) -> Experiment:
    """CIFAR-10: 400 epochs of fine-tuning at .1, a tenth after 160 and 240; 100 with auxiliary losses before.

    The paper does not say how its baselines were trained; here they use the schedule of the fine-tuning.

    Args:
        network: of the zoo.
        auxiliary_losses: P.
        scope: whether to exclude all groups except those that the papers prune.
        baseline: flags of the baseline's training, which override the schedule's.
        **flags: of the row, which override the common ones.
    """
    training = {"batch_size": 128, "weight_decay": 1e-4, **steps("", 160, 240, of=400), **NO_LIMIT}
    common = {
        "dataset": "tfds:cifar10",
        "augmentation": "flip",
        "auxiliary_losses": auxiliary_losses,
        "aux_epochs": 100,
        "aux_lr": 0.1,
        **steps("aux_", 40, 60, of=100),
        "finetune_epochs": 400,
        "finetune_lr": 0.1,
        **training,
        "selection_samples": 50_000,
    }
    trained = {"epochs": 400, "learning_rate": 0.1, **training, **baseline}
    return _experiment(network, None, trained, common, scope, flags)


def imagenet(
    network: str, auxiliary_losses: int, /, *, cosine_epochs: int = 0, scope: bool = False, **flags: Any
) -> Experiment:
    """ILSVRC-12: ResNets 60 epochs at .01, a tenth after 36, 48 and 54; MobileNets along a cosine from .09.

    Baselines, which the paper takes as published: ResNets 90 epochs at .1, a tenth after 30 and 60 (He et al. 2016),
    MobileNets by the schedule of their fine-tuning.

    Args:
        network: of the zoo.
        auxiliary_losses: P.
        cosine_epochs: of the fine-tuning of MobileNets.
        scope: as for `cifar10`.
        **flags: of the row.
    """
    if cosine_epochs:
        training = {"batch_size": 256, "weight_decay": 4e-5, "schedule": "cosine", **NO_LIMIT}
        final = {"finetune_epochs": cosine_epochs, "finetune_lr": 0.09, **training}
        baseline = {"epochs": cosine_epochs, "learning_rate": 0.09, **training}
    else:
        training = {"batch_size": 256, "weight_decay": 1e-4, **NO_LIMIT}
        final = {"finetune_epochs": 60, "finetune_lr": 0.01, **training, **steps("", 36, 48, 54, of=60)}
        baseline = {"epochs": 90, "learning_rate": 0.1, **training, **steps("", 30, 60, of=90)}
    common = {
        "dataset": "tfds:imagenet2012",
        "augmentation": "crop",
        "auxiliary_losses": auxiliary_losses,
        "aux_epochs": 60,
        "aux_lr": 0.01,
        **steps("aux_", 36, 48, 54, of=60),
        **final,
        "selection_samples": 10_000,
        "cache_gib": 16.0,
        "cache_disk_gib": 64.0,
    }
    return _experiment(network, 224, baseline, common, scope, flags)


def faces(network: str, **flags: Any) -> Experiment:
    """Faces: 28 epochs at .01, a tenth after 8, 16 and 24; 15 with two ArcFace losses before (after 4, 8 and 12).

    `--dataset=faces:DIR` says which faces. Without `--model` the baseline is trained with the schedule of the
    fine-tuning from .1.

    Args:
        network: of the zoo.
        **flags: of the row.
    """
    training = {"batch_size": 512, "weight_decay": 1e-4, **steps("", 8, 16, 24, of=28)}
    common = {
        "loss": "arcface",
        "auxiliary_losses": 2,
        "aux_epochs": 15,
        "aux_lr": 0.01,
        **steps("aux_", 4, 8, 12, of=15),
        "finetune_epochs": 28,
        "finetune_lr": 0.01,
        **training,
        "selection_samples": 10_000,
        "cache_gib": 8.0,
    }
    return _experiment(network, 112, {"epochs": 28, "learning_rate": 0.1, **training}, common, False, flags)


def _experiment(network, image_size, baseline, common, scope, flags) -> Experiment:
    exclude = {"exclude": outside_of_the_papers(network)} if scope else {}
    papers = {"round_to": 1, "distillation": 0.0, "held_out": 0, **ALGORITHM_1, **ALGORITHM_2}
    flags = {**common, **papers, **exclude, **flags}
    return Experiment(f"zoo:{network}", image_size, baseline, flags)
