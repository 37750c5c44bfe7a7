"""What MLPerf Tiny's networks take on a microcontroller, whole and pruned: flash and RAM of their int8 files.

    python benchmarks/microcontrollers.py

Weights and data are random, so nothing is said of accuracy, and channels are chosen by L1 norms; bytes do not depend on
that. Each network is pruned by the program to 60% of the RAM that its activations take, residual streams too; the
autoencoder, whose RAM is its input, by a rate. RAM: the activations as planned, then what TFLite Micro's interpreter
took (needs `pip install 'dcp_tf[micro]'`): activations with scratch memory, and its own structures.
"""

import contextlib
import json
import pathlib
import sys

import numpy as np

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("microcontrollers", __doc__)
PROGRAM.section("The run")
PROGRAM.list("networks", ["ds_cnn", "resnet8", "mobilenet_v1_025", "autoencoder"], "Networks of zoo:.")
PROGRAM.string("target_ram", "60%", "Of the int8 file's activations.")
PROGRAM.float("rate", 0.3, "For the autoencoder.")
PROGRAM.path("output_dir", "microcontrollers_benchmark", "Where models and files go.")

_QUICK = ("--method=l1", "--round_to=1", "--aux_epochs=0", "--finetune_epochs=0", "--benchmark_runs=0")
_FILES = ("--quantization=int8", "--int8_io=int8", "--check_on=micro")


def main(flags) -> None:
    """Prints a row for each file."""
    folder = pathlib.Path(flags.output_dir)
    print(f"{'network':18} {'':9} {'parameters':>10} {'MACs':>11} {'flash':>8} {'planned':>8} {'RAM':>8} {'own':>6}")
    for name in flags.networks:
        how = f"--rate={flags.rate}" if name == "autoencoder" else f"--target_ram={flags.target_ram}"
        summary = prune(name, how, folder / name)
        for record in summary["tflite"].values():
            costs, micro = summary[record["model"]], record["micro"]
            print(
                f"{name:18} {record['model']:9} {costs['params']:10,} {costs['macs']:11,} {record['bytes']:8,} "
                f"{record['arena_bytes']:8,} {micro['activation_bytes']:8,} {micro['persistent_bytes']:6,}",
                flush=True,
            )


def prune(name: str, how: str, folder: pathlib.Path) -> dict:
    """The summary of a run of `prune` on a network with random weights and data.

    Raises:
        RunError: it failed, and printed why.
    """
    import keras

    from dcp_tf import models
    from dcp_tf.errors import RunError
    from dcp_tf.tools import prune as program

    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    model, network = models.build(name), models.NETWORKS[name]
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 64), ("test", 16)):
        levels = rng.random((count, *[1] * (len(network.input_shape) - 1), network.input_shape[-1]), dtype=np.float32)
        arrays[f"x_{part}"] = levels * rng.random((count, *network.input_shape), dtype=np.float32)
        if network.num_classes:
            arrays[f"y_{part}"] = np.arange(count) % network.num_classes
    np.savez(folder / "random.npz", **arrays)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for momentum in (0.0, 0.99):  # statistics of these images, else the last layers hardly tell them apart
        for layer in normalizations:
            layer.momentum = momentum
        if not momentum:
            model(arrays["x_train"], training=True)
    model.save(folder / "network.keras")
    files = (f"--model={folder / 'network.keras'}", f"--dataset=npz:{folder / 'random.npz'}", "--normalization=none")
    with contextlib.redirect_stdout(sys.stderr):  # the table stands alone on standard output
        code = program.run([*files, *_QUICK, *_FILES, how, "--prune_residual", f"--output_dir={folder / 'run'}"])
    if code:
        raise RunError(f"prune ended with exit code {code}")
    return json.loads((folder / "run" / "summary.json").read_text())


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
