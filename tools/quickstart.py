"""The whole job in one go, on images that come with scikit-learn: trains a network on the digits, prunes it, fine-tunes
it, converts it to TFLite and measures what was gained.

    dcp-quickstart
    python -m dcp_tf.tools.quickstart --output_dir=runs/quickstart --rate=0.3
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import time

from dcp_tf.tools import pruning_flags
from dcp_tf.tools.program import Program

DEFAULTS = pruning_flags.Defaults(aux_epochs=4, finetune_epochs=12, batch_size=64, selection_samples=1024)

PROGRAM = Program("quickstart", __doc__)
PROGRAM.string("output_dir", "dcp_quickstart", "Where everything goes.")
PROGRAM.string("model", "zoo:preresnet20", "The network to train, zoo:NAME.")
PROGRAM.integer("epochs", 12, "Epochs of the baseline.", lower=1)
PROGRAM.float("learning_rate", 0.1, "Learning rate of the baseline.")
pruning_flags.define_pruning(PROGRAM, DEFAULTS)
pruning_flags.define_training(PROGRAM, DEFAULTS)
pruning_flags.define_deployment(PROGRAM)
PROGRAM.integer("seed", 0, "Of everything that is drawn.")
PROGRAM.boolean("resume", False, "Go on with a stopped run in --output_dir.")


def main(flags) -> None:
    """Trains the baseline and runs the main job on it."""
    started = time.time()
    from dcp_tf.files import writable_folder
    from dcp_tf.tools import baseline, pipeline

    pruning_flags.read_method(flags)
    pruning_flags.read_deployment(flags)
    folder = writable_folder(flags.output_dir)
    config = pruning_flags.read_training(flags, flags.epochs, flags.learning_rate)
    subject, phase = baseline.train(flags.model, "digits", config, folder / "state" / "baseline.npz", flags.resume)
    pipeline.run(flags, subject, folder, started, [phase])


def run(argv=None) -> int:
    """The program as a function of its arguments; also the console command dcp-quickstart."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
