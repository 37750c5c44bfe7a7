"""The whole job in one go, on images that come with scikit-learn: trains a network on the digits, prunes it, fine-tunes
it, converts it to TFLite and measures what was gained.

    dcp-quickstart
    dcp-tf quickstart --output_dir=runs/quickstart --rate=0.3

It takes some minutes on two cores. A stopped run resumes with the same command and --resume.
"""

import os
import shutil
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.settings.training import BASELINE
from dcp_tf.tools.app import baseline
from dcp_tf.tools.cli import model_flags, pruning_flags, run_flags
from dcp_tf.tools.cli.flags_from_settings import define
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import PHASES, read_training

DEFAULTS = {"epochs": 12, "aux_epochs": 4, "finetune_epochs": 12, "batch_size": 64, "selection_samples": 1024}

PROGRAM = Program("quickstart", __doc__, DEFAULTS)
PROGRAM.section("Baseline")
PROGRAM.path("model", "zoo:preresnet20", "The network to train, zoo:NAME.")
define(PROGRAM, BASELINE, ["epochs", "learning_rate"], PHASES["baseline"][1])
baseline.define_expected(PROGRAM)
pruning_flags.define_pruning(PROGRAM)
pruning_flags.define_training(PROGRAM)
pruning_flags.define_deployment(PROGRAM)
run_flags.define_run(PROGRAM, "Where everything goes: models, plan, TFLite files, summary, report.", "dcp_quickstart")
model_flags.define_reload_check(PROGRAM)


def main(flags) -> None:
    """Trains the baseline and runs the main job on it."""
    started = time.time()
    if flags["output_dir"].present:  # its own folder is replaced
        run_flags.require_folder(flags, "the results")
    from dcp_tf import progress
    from dcp_tf.files import writable_folder
    from dcp_tf.tools.app import preflight, run, train_network

    job = pruning_flags.read_job(flags)
    config = read_training(flags, "baseline")
    model_and_data = train_network.build(flags.model, "digits", config.seed)
    job, outlook = preflight.check_job(model_and_data, job)
    job, changes = preflight.drop_impossible_files(flags, model_and_data, job)
    folder = writable_folder(flags.output_dir)
    run_flags.record_flags(PROGRAM, flags, folder)
    for line in (*changes, f"training {flags.model} on digits; then {outlook}"):
        progress.say(line)
    if not flags.resume:  # what an earlier run kept belongs to its own baseline
        shutil.rmtree(folder / "state", ignore_errors=True)
    phase = train_network.train(
        model_and_data, config, folder / "state" / "baseline.npz", log_dir=str(folder / "events")
    )
    run.run(flags, model_and_data, job, folder, started, [phase])
    run_flags.record_flags(PROGRAM, flags, folder, finished=True)


def run(argv=None) -> int:
    """The program as a function of its arguments; also the console command dcp-quickstart."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
