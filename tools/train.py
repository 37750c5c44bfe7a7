"""Trains a network of the zoo or of keras.applications, so that there is something to prune.

    dcp-tf train --model=zoo:preresnet56 --dataset=tfds:cifar10 --epochs=100 --output_dir=runs/resnet
    dcp-tf train --model=zoo:mobilefacenet --dataset=faces:DIR --loss=arcface --output_dir=runs/faces

--output_dir receives the model as baseline.keras, with summary.json, events/ (TensorBoard) and state/ (for --resume).
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.settings.training import TrainConfig
from dcp_tf.tools.cli import data_flags, experiment_flags, face_flags, run_flags
from dcp_tf.tools.cli.flags_from_settings import define
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import define_phase, define_recipe, read_training

PROGRAM = Program("train", __doc__)
PROGRAM.section("Model")
PROGRAM.path("model", "zoo:preresnet20", "The network: zoo:NAME, or keras:NAME (keras.applications).")
data_flags.define_data_source(PROGRAM)
experiment_flags.define_image_size(PROGRAM)
data_flags.define_loss(PROGRAM)
face_flags.define_pairs(PROGRAM)
PROGRAM.section("Training")
define_phase(PROGRAM, "baseline")
define_recipe(PROGRAM)
define(PROGRAM, TrainConfig, ["bn_sparsity"])
run_flags.define_run(PROGRAM, "Where the model (baseline.keras) and its summary go.")
experiment_flags.define_strategy(PROGRAM)


def main(flags, strategy) -> None:
    """Trains and writes baseline.keras with its summary."""
    started = time.time()
    run_flags.require_folder(flags, "the model")
    from dcp_tf import progress
    from dcp_tf.tools.app import run_summary, train_network
    from dcp_tf.training import save_model
    from dcp_tf.training.distribution import distributed

    config = read_training(flags, "baseline")
    model_and_data = train_network.build_from_flags(flags, flags.model, flags.image_size)
    folder, _ = run_flags.open_folder(flags, strategy)
    run_flags.record_flags(PROGRAM, flags, folder)
    model_and_data.announce()
    state = run_flags.kept_training(flags, folder, "baseline")
    run_flags.announce_strategy(flags, strategy)
    with distributed(strategy):
        phase = train_network.train(model_and_data, config, state, log_dir=str(folder / "events"))
    path = save_model(model_and_data.model, folder / "baseline.keras")
    measured = run_summary.measure_model(model_and_data.model, model_and_data.dataset, model_and_data.objective)
    run_summary.write_summary(folder, started, model_and_data, flags, baseline=measured, phases=[phase])
    run_flags.record_flags(PROGRAM, flags, folder, finished=True)
    progress.say(f"written to {folder}: baseline.keras, flags.txt, summary.json")
    metric = model_and_data.objective.primary
    print(f"{path}: {metric} {measured[metric]:.4f}, {measured['params']:,} parameters, {measured['macs']:,} MACs")


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv, experiment_flags.make_strategy)


if __name__ == "__main__":
    sys.exit(run())
