r"""How good and how fast is the selection? Top-1 right after surgery, before any fine-tuning, beside its rivals.

    python benchmarks/selection_quality.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --rate=0.5 --variants=random,l1,fast_reconstruction,fast

Every variant prunes the same groups to the same widths. Random is the mean of three seeds. Selection seconds leave out
loading; auxiliary fine-tuning is listed by itself.
"""

import sys

import numpy as np

from dcp_tf.tools import common_flags
from dcp_tf.tools.program import Program

VARIANTS = {
    "random": ("random", {}),
    "l1": ("l1", {}),
    "fast_reconstruction": ("dcp", {"selection": "fast", "discrimination": 0.0}),
    "fast": ("dcp", {"selection": "fast"}),
    "exact_reconstruction": ("dcp", {"discrimination": 0.0}),
    "exact": ("dcp", {}),
}

PROGRAM = Program("selection_quality", __doc__)
common_flags.define_model(PROGRAM)
common_flags.define_dataset(PROGRAM)
common_flags.define_outputs(PROGRAM)
PROGRAM.float("rate", 0.5, "Share of channels to remove from each group.")
PROGRAM.integer("round_to", 1, "Kept counts are the nearest multiple of it.", lower=1)
PROGRAM.list("variants", list(VARIANTS), "Which to run.")
PROGRAM.integer("selection_samples", 4096, "Training images of the selection.", lower=1)
PROGRAM.integer("selection_passes", 1, "Passes of the sub-problem per step.")
PROGRAM.integer("auxiliary_losses", 2, "Auxiliary classifiers.")
PROGRAM.integer("aux_epochs", 1, "Epochs of auxiliary fine-tuning.")
PROGRAM.integer("aux_samples", 10000, "Training images of auxiliary fine-tuning.", lower=1)
common_flags.define_seed(PROGRAM, "Of everything that is drawn.")


def main(flags) -> None:
    """Prints one row for each variant."""
    from dcp_tf.evaluation import accuracy
    from dcp_tf.graph import count_cost

    subject = common_flags.load_subject(flags)
    test = subject.dataset.test
    top1 = accuracy(subject.model, test.batches(256), outputs_kind=subject.outputs_kind)["top1"]
    full = count_cost(subject.model).macs
    print(f"{subject.source}: top-1 {top1:.2%}, {full:,} MACs, {test.size} test images", flush=True)
    print(f"{'variant':22} {'top-1':>8} {'MACs':>8} {'selection s':>12} {'auxiliary s':>12}", flush=True)
    for name in flags.variants:
        seeds = range(3) if name == "random" else [flags.seed]
        rows = [measure(flags, subject, *VARIANTS[name], seed) for seed in seeds]
        top1, macs, selection, auxiliary = (np.mean([row[i] for row in rows]) for i in range(4))
        print(f"{name:22} {top1:8.2%} {macs / full - 1:8.1%} {selection:12.1f} {auxiliary:12.1f}", flush=True)


def measure(flags, subject, method: str, settings: dict, seed: int) -> tuple[float, int, float, float]:
    """Top-1 before fine-tuning, MACs, seconds of the selection and of the auxiliary fine-tuning."""
    from dcp_tf.graph import count_cost
    from dcp_tf.pruning import METHODS, prune
    from dcp_tf.training import TrainConfig

    if method == "dcp":
        settings = {
            "selection_samples": flags.selection_samples,
            "selection_passes": flags.selection_passes,
            "auxiliary_losses": flags.auxiliary_losses,
            **settings,
        }
    train = subject.dataset.train
    train = train.take(train.balanced_subset(max(flags.aux_samples, flags.selection_samples), seed))
    result = prune(
        subject.model,
        train,
        METHODS[method](rate=flags.rate, round_to=flags.round_to, **settings),
        validation_data=subject.dataset.test,
        outputs_kind=subject.outputs_kind,
        auxiliary=TrainConfig(epochs=flags.aux_epochs, learning_rate=0.01),
        finetuning=TrainConfig(epochs=0),
        seed=seed,
    )
    seconds = {phase["name"]: phase["seconds"] for phase in result.history}
    macs = count_cost(result.model).macs
    return result.before_finetuning["top1"], macs, seconds["selection"], seconds.get("auxiliary", 0.0)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
