"""Measures how good a model file is on a data set's test images.

    python -m dcp_tf.tools.evaluate --model=runs/mine/pruned.keras --dataset=npz:my_data.npz
    python -m dcp_tf.tools.evaluate --model=runs/mine/pruned_int8.tflite --dataset=npz:my_data.npz

It prints how many images were measured, and for classes top-1 and top-5 as fractions of 1 and the mean cross-entropy;
for several classes at once the mean average precision (map) and F1; for numbers mse, mae and r2; for maps of classes
mean IoU and pixel accuracy; for embeddings how often the nearest other image is of the same class (recall_at_1).
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags
from dcp_tf.tools.program import Program

PROGRAM = Program("evaluate", __doc__)
common_flags.define_model(PROGRAM, about="The model; also a .tflite file")
common_flags.define_dataset(PROGRAM)
common_flags.define_outputs(PROGRAM)
common_flags.define_seed(PROGRAM, "Draws which images are set aside for testing where the data set does not say.")
PROGRAM.section("Output")
PROGRAM.boolean("json", False, "Print JSON.")


def main(flags) -> None:
    """Prints the figures of the objective."""
    if not flags.model:
        raise UsageError("say which model: --model=PATH")
    is_file = flags.model.endswith(".tflite")
    subject = common_flags.load_tflite(flags) if is_file else common_flags.load_subject(flags)
    dataset = subject.dataset
    if dataset.test.labels is None:
        raise UsageError(f"{flags.dataset} has no labels to measure on")
    if subject.objective is None:
        raise UsageError(f"{flags.model} has {len(subject.model.outputs)} outputs; only models with one are measured")
    subject.announce()
    found = subject.objective.evaluate(subject.model, dataset.test.batches(256))
    found["images"] = dataset.test.size
    if flags.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:14} {value:.4f}" if isinstance(value, float) else f"{name:14} {value:,}")


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
