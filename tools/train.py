"""Trains a network of ours, so that there is something to prune.

    python -m dcp_tf.tools.train --model=zoo:preresnet56 --dataset=tfds:cifar10 --epochs=100 --output_dir=runs/resnet
    python -m dcp_tf.tools.train --model=zoo:mobilefacenet --dataset=faces:DIR --loss=arcface --output_dir=runs/faces

--output_dir receives the model as baseline.keras, with summary.json, events/ (TensorBoard) and state/ (for --resume).
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags, experiment_flags, face_flags
from dcp_tf.tools.program import Program
from dcp_tf.tools.training_flags import define_recipe, read_training

PROGRAM = Program("train", __doc__)
PROGRAM.section("Model")
PROGRAM.string("model", "zoo:preresnet20", "The network: zoo:NAME, or keras:NAME (keras.applications).")
common_flags.define_data_source(PROGRAM)
experiment_flags.define_image_size(PROGRAM)
common_flags.define_loss(PROGRAM)
face_flags.define_pairs(PROGRAM)
PROGRAM.section("Training")
PROGRAM.integer("epochs", 30, "Passes over the training images.", lower=1)
PROGRAM.integer("batch_size", 128, "Images per step.", lower=1)
PROGRAM.float("learning_rate", 0.1, "The highest learning rate.")
define_recipe(PROGRAM)
PROGRAM.float(
    "bn_sparsity",
    0.0,
    "Factor of the L1 norm of BatchNormalization's scales in the loss (network slimming), such as 1e-4; prune by "
    "--method=bn_scale afterwards.",
)
PROGRAM.section("The run")
PROGRAM.string("output_dir", None, "Where the model (baseline.keras) and its summary go.")
common_flags.define_seed(PROGRAM, "Of everything that is drawn.")
PROGRAM.boolean("resume", False, "Go on with a stopped training in --output_dir.")
experiment_flags.define_strategy(PROGRAM)


def main(flags, strategy) -> None:
    """Trains and writes baseline.keras with its summary."""
    started = time.time()
    if not flags.output_dir:
        raise UsageError("say where the model shall go: --output_dir=FOLDER")
    from dcp_tf import progress
    from dcp_tf.files import writable_folder
    from dcp_tf.tools import artefacts, baseline
    from dcp_tf.tools.pruning_flags import settings_of
    from dcp_tf.training import save_model
    from dcp_tf.training.distribution import distributed, worker_number

    config = read_training(flags, "epochs", "learning_rate")
    subject = baseline.build(
        flags.model,
        flags.dataset,
        flags.seed,
        data_dir=flags.data_dir,
        loss=flags.loss,
        augmentation=flags.augmentation,
        faces=face_flags.face_settings(flags),
        image_size=flags.image_size,
    )
    if not flags.model.startswith("zoo:"):  # which are built for the data
        common_flags.check_shape(flags, subject.dataset)
    subject = face_flags.with_pairs(flags, subject)
    folder = writable_folder(flags.output_dir)
    if worker := worker_number(strategy):
        folder = writable_folder(folder / f"worker_{worker}")
    subject.announce()
    state = folder / "state" / "baseline.npz"
    if not flags.resume:
        state.unlink(missing_ok=True)
    if strategy is not None:
        progress.say(f"{flags.strategy}: {strategy.num_replicas_in_sync} replicas share each batch")
    with distributed(strategy):
        phase = baseline.train(subject, config, state, log_dir=str(folder / "events"))
    path = save_model(subject.model, folder / "baseline.keras")
    measured = artefacts.measure_model(subject.model, subject.dataset, subject.objective)
    artefacts.write_summary(
        folder,
        started,
        model=subject.source,
        dataset=subject.dataset.name,
        normalization=subject.normalization,
        outputs=subject.outputs_kind,
        loss=subject.objective.name,
        metric=subject.objective.primary,
        settings=settings_of(flags),
        seed=flags.seed,
        baseline=measured,
        phases=[phase],
    )
    progress.say(f"written to {folder}: baseline.keras, summary.json")
    metric = subject.objective.primary
    print(f"{path}: {metric} {measured[metric]:.4f}, {measured['params']:,} parameters, {measured['macs']:,} MACs")


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv, experiment_flags.make_strategy)


if __name__ == "__main__":
    sys.exit(run())
