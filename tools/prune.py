"""Prunes a trained Keras model, fine-tunes it, and hands over TFLite files with their measured latency.

    python -m dcp_tf.tools.prune --model=my_model.keras --dataset=npz:my_data.npz --rate=0.3 --output_dir=runs/mine
    python -m dcp_tf.tools.prune --model=my_model.keras --dataset=folder:photos --method=adapt_dcp --output_dir=runs/2

A stopped run goes on with the same command and --resume.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags, pruning_flags
from dcp_tf.tools.program import Program

PROGRAM = Program("prune", __doc__)
common_flags.define_model(PROGRAM, about="The trained model, functional or Sequential")
common_flags.define_dataset(PROGRAM)
common_flags.define_outputs(PROGRAM)
PROGRAM.string("output_dir", None, "Where everything goes: models, plan, TFLite files, summary, report.")
pruning_flags.define_pruning(PROGRAM, pruning_flags.Defaults())
pruning_flags.define_training(PROGRAM, pruning_flags.Defaults())
pruning_flags.define_deployment(PROGRAM)
PROGRAM.integer("seed", 0, "Of everything that is drawn.")
PROGRAM.boolean("resume", False, "Go on with a stopped run in --output_dir.")


def main(flags) -> None:
    """Runs the main job on the user's model."""
    started = time.time()
    if not flags.output_dir:
        raise UsageError("say where the results shall go: --output_dir=FOLDER")
    from dcp_tf.files import writable_folder
    from dcp_tf.tools import pipeline

    pruning_flags.read_method(flags)
    pruning_flags.read_deployment(flags)
    subject = common_flags.load_subject(flags)
    pipeline.run(flags, subject, writable_folder(flags.output_dir), started)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
