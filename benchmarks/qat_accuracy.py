r"""How much accuracy do integer files lose, with and without training for them? Top-1 of the files themselves.

    python benchmarks/qat_accuracy.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --train_samples=4000 --qat_epochs=1

Each file is run on all test images. --modes takes all of `tflite.Quantization`, and qat0: quantizers whose ranges were
measured as qat measures them, without training. For the command above (2 cores):

    file          top-1  of its weights      bytes  operations      s
    float32      91.73%          91.73%  1,092,768          36      3
    int8         91.67%          91.73%    306,944          38      7
    qat0         91.72%          91.73%    305,512          38     14
    qat          91.82%          91.77%    305,512          38     66
"""

import dataclasses
import sys
import time

import numpy as np

from dcp_tf.settings.deployment import Deployment, QatSettings
from dcp_tf.tools.app.qat_file import make_qat_file
from dcp_tf.tools.cli import data_flags
from dcp_tf.tools.cli.flags_from_settings import define, read, values_of
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("qat_accuracy", __doc__)
data_flags.define_model(PROGRAM)
data_flags.define_dataset(PROGRAM)
data_flags.define_outputs(PROGRAM)
PROGRAM.list("modes", ["float32", "int8", "qat0", "qat"], "Which files to make.")
PROGRAM.integer("train_samples", 4000, "Training images of qat, drawn evenly of all classes.", lower=1)
PROGRAM.integer("test_samples", 10000, "Test images.", lower=1)
PROGRAM.integer("calibration_samples", 200, "Training images that calibrate.", lower=1)
define(PROGRAM, QatSettings)
data_flags.define_seed(PROGRAM, "Of everything that is drawn.")


def main(flags) -> None:
    """Prints one row for each file."""
    from dcp_tf import tflite
    from dcp_tf.tools.app import tflite_files

    model_and_data = data_flags.load_model_and_data(flags)
    data = model_and_data.dataset
    train = data.train.take(data.train.balanced_subset(flags.train_samples, flags.seed))
    data = dataclasses.replace(data, train=train)
    test = data.test.take(data.test.balanced_subset(flags.test_samples, flags.seed))
    images = np.concatenate([batch[0] for batch in test.batches(256).as_numpy_iterator()])
    model = tflite_files.fixed_size(model_and_data.model, data)
    settings = Deployment(calibration_samples=flags.calibration_samples, qat=read(values_of(flags), QatSettings))
    print(f"{model_and_data.source}: {train.size} training images, {test.size} test images", flush=True)
    print(f"{'file':10} {'top-1':>8} {'of its weights':>15} {'bytes':>10} {'operations':>11} {'s':>6}", flush=True)
    for mode in flags.modes:
        started = time.perf_counter()
        file, source = make(mode, model, data, model_and_data.objective, settings, flags.seed)
        seconds = time.perf_counter() - started
        parity = tflite.check_parity(file, source, images, test.labels, outputs=model_and_data.objective.parity)
        details = tflite.inspect(file)
        print(
            f"{mode:10} {parity.top1:8.2%} {parity.keras_top1:15.2%} {details.size:10,} "
            f"{sum(details.operations.values()):11} {seconds:6.0f}",
            flush=True,
        )


def make(mode: str, model, data, objective, settings, seed: int) -> tuple:
    """A file, and the Keras model whose weights it holds."""
    from dcp_tf.tools.app import tflite_files

    if mode == "qat0":
        settings = dataclasses.replace(settings, qat=dataclasses.replace(settings.qat, epochs=0))
    if mode.startswith("qat"):
        return make_qat_file(model, data, objective, settings, seed)
    return tflite_files.convert(model, mode, data, settings, seed), model


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
