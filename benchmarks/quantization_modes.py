r"""What does each quantization mode cost a model, and what does it gain? Top-1, agreement, size and latency.

    python benchmarks/quantization_modes.py --model=pruned.keras --dataset=npz:cifar96.npz --qat_images=2000

All files are made of the same model, calibrated on the same images, compared with the model on all test images, and
timed in one interleaved run. MODE:plain leaves the biases as the converter rounded them.
"""

import dataclasses
import pathlib
import sys
import tempfile

import common

from dcp_tf.settings.deployment import Deployment, QatSettings
from dcp_tf.tools.cli import data_flags
from dcp_tf.tools.cli.flags_from_settings import define, read, values_of
from dcp_tf.tools.cli.program import Program

MODES = ("float32", "dynamic", "int8:plain", "int8", "int16x8:plain", "int16x8", "qat")

PROGRAM = Program("quantization_modes", __doc__)
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
PROGRAM.list("modes", list(MODES), "Quantization modes; the first is the one that others are compared with in time.")
PROGRAM.integer("qat_images", None, "Training images for qat, evenly of all classes; default: all.", lower=1)
define(PROGRAM, Deployment, ["calibration_samples", "threads", "runs"])
define(PROGRAM, QatSettings)
data_flags.define_seed(PROGRAM, "Draws the calibration images.")


def main(flags) -> None:
    """Prints a row for each mode."""
    from dcp_tf import tflite

    subject = data_flags.load_model_and_data(flags)
    images = subject.dataset.test.representative(subject.dataset.test.size)
    labels, kind = subject.objective.class_numbers(subject.dataset.test.labels), subject.objective.parity
    values = values_of(flags)
    settings = read(values, Deployment, qat=read(values, QatSettings))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for mode in flags.modes:
            file = made(subject, mode, settings, flags)
            paths[mode] = file.save(pathlib.Path(folder) / f"{mode.replace(':', '_')}.tflite").path
            rows[mode] = tflite.check_parity(file, subject.model, images, labels, outputs=kind), len(file.content)
            print(f"{mode}: top-1 {rows[mode][0].top1:.2%}", file=sys.stderr, flush=True)
        latencies = {}
        if flags.benchmark_runs:
            result = tflite.benchmark(paths, threads=flags.threads, runs=flags.benchmark_runs, seed=flags.seed)
            latencies = result.latencies
            print(f"\n{result.machine}, {flags.threads} thread")
    print(f"{len(labels)} test images, Keras {rows[flags.modes[0]][0].keras_top1:.2%}")
    print(f"{'mode':14} {'top-1':>7} {'agrees':>8} {'SNR':>8} {'KB':>7} {'ms':>8} {'speedup':>8}")
    for mode, (parity, size) in rows.items():
        time = f"{latencies[mode].median_ms:8.3f} {latencies[mode].speedup:7.2f}x" if latencies else ""
        figures = f"{100 * parity.top1:7.2f} {parity.top1_agreement:8.2%} {parity.snr_db:5.1f} dB"
        print(f"{mode:14} {figures} {size / 1000:7.0f} {time}")


def made(subject, name: str, settings: Deployment, flags):
    """The file of a mode."""
    from dcp_tf import tflite
    from dcp_tf.tflite.types import Quantization
    from dcp_tf.tools.app.qat_file import make_qat_file

    mode, _, plain = name.partition(":")
    if mode == "qat":
        dataset, train = subject.dataset, subject.dataset.train
        if flags.qat_images:
            dataset = dataclasses.replace(
                dataset, train=train.take(train.balanced_subset(flags.qat_images, flags.seed))
            )
        return make_qat_file(subject.model, dataset, subject.objective, settings, flags.seed)[0]
    images = None
    if Quantization(mode).takes_samples:
        images = subject.dataset.train.representative(settings.calibration_samples, flags.seed)
    return tflite.convert(subject.model, mode, representative_data=images, bias_correction=not plain)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
