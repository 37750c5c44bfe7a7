"""Prunes a trained Keras model, fine-tunes it, and hands over TFLite files with their measured latency.

    python -m dcp_tf.tools.prune --model=my_model.keras --dataset=npz:my_data.npz --rate=0.3 --output_dir=runs/mine
    python -m dcp_tf.tools.prune --model=my_model.keras --dataset=folder:photos --method=adapt_dcp --output_dir=runs/2

Which groups of channels there are, and why some stay, is shown by inspect_model. A stopped run goes on with the same
command and --resume. --output_dir receives baseline.keras and pruned.keras (both load in plain Keras), plan.json (which
channels stay), the .tflite files, benchmark.json, summary.json, report.html, events/ (TensorBoard) and state/.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags, face_flags, pruning_flags
from dcp_tf.tools.program import Program

PROGRAM = Program("prune", __doc__)
common_flags.define_model(PROGRAM, about="The trained model, functional or Sequential")
common_flags.define_dataset(PROGRAM)
common_flags.define_outputs(PROGRAM)
face_flags.define_pairs(PROGRAM)
pruning_flags.define_pruning(PROGRAM, pruning_flags.Defaults())
pruning_flags.define_training(PROGRAM, pruning_flags.Defaults())
pruning_flags.define_deployment(PROGRAM)
PROGRAM.section("The run")
PROGRAM.string("output_dir", None, "Where everything goes: models, plan, TFLite files, summary, report.")
common_flags.define_seed(PROGRAM, "Of everything that is drawn.")
PROGRAM.boolean("resume", False, "Go on with a stopped run in --output_dir.")


def main(flags) -> None:
    """Runs the main job on the user's model."""
    started = time.time()
    if not flags.output_dir:
        raise UsageError("say where the results shall go: --output_dir=FOLDER")
    from dcp_tf import progress
    from dcp_tf.files import writable_folder
    from dcp_tf.tools import pipeline

    job = pruning_flags.read_job(flags)
    subject = common_flags.load_subject(flags)
    outlook = pipeline.foresee(subject, job)
    folder = writable_folder(flags.output_dir)
    subject.announce()
    progress.say(outlook)
    pipeline.run(flags, subject, job, folder, started)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
