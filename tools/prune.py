"""Prunes a trained Keras model, fine-tunes it, and hands over TFLite files with their measured latency.

    dcp-tf prune --model=my_model.keras --dataset=npz:my_data.npz --rate=0.3 --output_dir=runs/mine
    dcp-tf prune --model=my_model.keras --dataset=folder:photos --method=adapt_dcp --output_dir=runs/2
    dcp-tf prune --experiment=cifar10_resnet56_dcp_50 --epochs_scale=0.01 --output_dir=runs/smoke_test

inspect_model shows the groups of channels, and why some stay. A stopped run resumes with the same command and
--resume. --output_dir receives baseline.keras and pruned.keras (both load in plain Keras), plan.json (which
channels stay), the .tflite files, benchmark.json, summary.json, report.html, events/ (TensorBoard), state/, and
flags.txt, by which --flagfile=runs/mine/flags.txt repeats the run.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses
import shutil
import time

from dcp_tf.errors import UsageError
from dcp_tf.settings.budget import Rounds
from dcp_tf.tools.app import baseline, file_target, latency_target
from dcp_tf.tools.cli import data_flags, experiment_flags, model_flags, plan_flag, pruning_flags, run_flags
from dcp_tf.tools.cli.class_weight_flag import define_class_weight, weigh_classes
from dcp_tf.tools.cli.flags_from_settings import define
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("prune", __doc__)
data_flags.define_model_and_data(PROGRAM, "The trained model, functional or Sequential")
pruning_flags.define_pruning(PROGRAM)
define(PROGRAM, Rounds)
plan_flag.define_plan(PROGRAM)
PROGRAM.section("A latency as the target")
latency_target.define_latency_target(PROGRAM)
PROGRAM.section("The size of a file, or the RAM that it takes, as the target")
file_target.define_file_target(PROGRAM)
pruning_flags.define_training(PROGRAM)
define_class_weight(PROGRAM)
pruning_flags.define_deployment(PROGRAM)
experiment_flags.define_experiment(PROGRAM)
run_flags.define_run(PROGRAM, "Where everything goes: models, plan, TFLite files, summary, report.")
model_flags.define_reload_check(PROGRAM)
experiment_flags.define_strategy(PROGRAM)


def main(flags, strategy) -> None:
    """Runs the main job on the user's model, or an experiment."""
    started = time.time()
    if flags.list_experiments:
        print(experiment_flags.list_experiments())
        return
    run_flags.require_folder(flags, "the results")
    from dcp_tf import progress
    from dcp_tf.tools.app import augmentation_check, preflight, rotated_streams, run, train_network
    from dcp_tf.training.distribution import distributed

    chosen = experiment_flags.choose(flags)
    job = pruning_flags.read_job(flags)
    trains = chosen is not None and chosen.baseline is not None
    if trains:
        model_and_data = train_network.build_from_flags(flags, chosen.model, chosen.image_size)
    else:
        model_and_data = data_flags.load_model_and_data(flags)
    model_and_data = weigh_classes(flags, model_and_data)
    if trains and job.method.rotate_streams:
        raise UsageError("--rotate_streams needs a trained model: --model=FILE brings it to the experiment")
    model_and_data, keep_rotation = rotated_streams.rotate(model_and_data, [job.method], flags.output_dir, flags.resume)
    if job.latency and job.latency.path is None and getattr(strategy, "cluster_resolver", None):
        raise UsageError("several workers need one table: measure it first, then give --latency_table to each")
    if job.latency and job.latency.path is not None:
        job = latency_target.bind_latency_table(job, model_and_data)
    if job.file:
        job = file_target.bind_file_target(job, model_and_data)
    job, outlook = preflight.check_job(model_and_data, job)
    job, changes = preflight.drop_impossible_files(flags, model_and_data, job)
    folder, worker = run_flags.open_folder(flags, strategy)
    keep_rotation()
    run_flags.record_flags(PROGRAM, flags, folder)
    if worker:
        job = dataclasses.replace(job, deployment=dataclasses.replace(job.deployment, quantizations=()))
    baseline_check = None if trains else baseline.report_baseline(flags, model_and_data)
    if not trains:
        model_and_data = augmentation_check.drop_harmful_augmentation(flags, model_and_data)
    model_and_data.announce()
    for line in (*changes, outlook):
        progress.say(line)
    run_flags.announce_strategy(flags, strategy)
    if job.latency and job.latency.path is None:
        job = latency_target.bind_latency_table(job, model_and_data, folder)
    if job.latency and not getattr(strategy, "cluster_resolver", None):  # several workers would measure differently
        job = latency_target.measure_chosen_widths(job, model_and_data, folder, flags.resume)
    with distributed(strategy):
        phases = [_train(flags, chosen, model_and_data, folder)] if trains else []
        run.run(flags, model_and_data, job, folder, started, phases, baseline_check)
    run_flags.record_flags(PROGRAM, flags, folder, finished=True)


def _train(flags, chosen, model_and_data, folder) -> dict:
    """Trains the baseline of an experiment."""
    from dcp_tf import progress
    from dcp_tf.tools.app import train_network

    progress.say(f"{chosen.name}: training {chosen.model} first; --model=FILE brings a trained one")
    if not flags.resume:  # what an earlier run kept belongs to its own baseline
        shutil.rmtree(folder / "state", ignore_errors=True)
    return train_network.train(
        model_and_data, chosen.baseline, folder / "state" / "baseline.npz", log_dir=str(folder / "events")
    )


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv, experiment_flags.make_strategy)


if __name__ == "__main__":
    sys.exit(run())
