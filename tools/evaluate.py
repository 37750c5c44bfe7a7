"""Measures how good a model file is on a data set's test images.

    dcp-tf evaluate --model=runs/mine/pruned.keras --dataset=npz:my_data.npz
    dcp-tf evaluate --model=runs/mine/pruned_int8.tflite --dataset=npz:my_data.npz
    dcp-tf evaluate --model=runs/faces/pruned.keras --pairs=pairs.txt --pairs_root=lfw

It prints the number of images and the figures of the task: top-1, top-5 (fractions of 1) and cross-entropy for classes;
mean average precision (map) and F1 for several classes at once; mse, mae and r2 for numbers; mean IoU and pixel
accuracy for maps of classes; the accuracy of steps and of whole sequences; for embeddings, how often the nearest other
image has the same class (recall_at_1). With --pairs in place of --dataset it prints the accuracy of face
verification, its spread over the folds, the area under the ROC curve (auc), and the fraction of accepted pairs of one
person at which 1% and 0.1% of the other pairs are accepted (tar_at_far).
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json

from dcp_tf.errors import UsageError
from dcp_tf.tools.app import baseline, run_summary, tflite_model
from dcp_tf.tools.app.pair_verification import load_with_pairs
from dcp_tf.tools.cli import data_flags, face_flags, joint_outputs
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("evaluate", __doc__)
data_flags.define_model_and_data(PROGRAM, "The model; also a .tflite file")
data_flags.define_seed(PROGRAM, "Draws which images are set aside for testing where the data set does not say.")
PROGRAM.section("Output")
PROGRAM.boolean("json", False, "Print JSON.")


def main(flags) -> None:
    """Prints the figures of the objective."""
    if not flags.model:
        raise UsageError("say which model: --model=PATH")
    model_and_data = _load(flags)
    dataset = model_and_data.dataset
    if dataset.test.labels is None:
        raise UsageError(f"{flags.dataset} has no labels to measure on{joint_outputs.names_of_labels(model_and_data)}")
    model_and_data.announce()
    if flags.pairs:
        figures = run_summary.measure_figures(model_and_data.model, dataset, model_and_data.objective)
    else:
        from dcp_tf.data import images_per_measurement

        batches = dataset.test.batches(images_per_measurement(dataset.test.shape))
        figures = dict(model_and_data.objective.evaluate(model_and_data.model, batches))
    baseline.report_baseline(flags, model_and_data, figures=figures, what="model")
    figures["images"] = dataset.test.size
    if flags.json:
        print(json.dumps(figures, indent=2))
        return
    folds = figures.pop("verification", None)
    width = max(14, *map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}} {value:.4f}" if isinstance(value, float) else f"{name:{width}} {value:,}")
    if folds is not None:
        rows = zip(folds["folds"], folds["fold_accuracies"], folds["thresholds"], strict=True)
        for fold, accuracy, threshold in rows:
            print(f"{f'fold {fold}':{width}} {accuracy:.4f} at a cosine of {threshold:.4f}")


def _load(flags):
    """The model with what it is measured on."""
    if flags.pairs:
        return load_with_pairs(flags)
    face_flags.require_pairs(flags)
    return tflite_model.load_tflite(flags) if flags.model.endswith(".tflite") else data_flags.load_model_and_data(flags)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
