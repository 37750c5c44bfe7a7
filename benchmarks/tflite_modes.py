"""Do the networks of keras.applications, pruned, become TFLite files that compute the same?

    python benchmarks/tflite_modes.py --output=runs/tflite_modes.json
    python benchmarks/tflite_modes.py --output=runs/tflite_modes.json --only='MobileNet|DenseNet'

Each network (random weights, the smallest images that it takes) loses 30 % of its channels by L1 norm and is exported
as float32 and int8; the files are run and compared with Keras. Where that fails, the same is tried on the unpruned
network: what fails there too is TFLite's own limit. Each network has a process of its own; what is done is kept in the
JSON file and not done again, so a stopped run resumes where it was.

BatchNormalization gets the statistics of the images: with those that it starts with, the images fade away in the deep
networks, and int8 has nothing left to round. In some networks with random weights rounding grows into the outputs all
the same: "amplified" is how far Keras' own outputs move when the images change by a millionth, and a float32 error
that is no larger is none of the file's. Agreement of int8 says little here, as untrained classes lie close together.
"""

import os
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import common

from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import read_json, write_json
from dcp_tf.tools.cli.program import Program

RATE = 0.3
SIZES = (32, 64, 71, 75, 96, 128, 160, 224, 331)
MODES = ("float32", "int8")
IMAGES = 16
TOLERANCE = 1e-3  # of the outputs' spread
OUT_OF_MEMORY = -9  # how a process ends that the system stops

PROGRAM = Program("tflite_modes", __doc__)
PROGRAM.path("output", "tflite_modes.json", "Where the results are kept.")
PROGRAM.string("only", "", "A regular expression: networks whose names it matches.")
PROGRAM.boolean("again", False, "Also networks that the file has already.")
PROGRAM.string("network", None, "Used by the program itself: do this one network and write it to --output.")
PROGRAM.integer("timeout", 3600, "Seconds after which a network is given up.", lower=1)


def main(flags) -> int:
    """Runs what is missing, then prints all that is known."""
    if flags.network:
        write_json(flags.output, measure(flags.network))
        return 0
    from dcp_tf.models import APPLICATIONS

    path = pathlib.Path(flags.output)
    known = read_json(path) if path.is_file() else {}
    chosen = [name for name in APPLICATIONS if re.search(flags.only, name)]
    if not chosen:
        raise UsageError(f"--only={flags.only} matches no network; there are {', '.join(APPLICATIONS)}")
    for name in chosen:
        if name in known and not flags.again:
            continue
        print(name, flush=True)
        known[name] = in_process(name, path.with_suffix(f".{name}.json"), flags.timeout)
        write_json(path, known)
    table({name: known[name] for name in chosen})
    return int(any(failed(known[name]) for name in chosen))


def in_process(name: str, result: pathlib.Path, timeout: int) -> dict:
    """The row of one network, measured in a process of its own."""
    command = [sys.executable, __file__, f"--network={name}", f"--output={result}"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"failure": f"not done after {timeout} s"}
    if process.returncode:
        message = (process.stderr.strip().splitlines() or ["no message"])[-1]
        memory = ": the system stopped it, probably for its memory" if process.returncode == OUT_OF_MEMORY else ""
        return {"failure": f"exit code {process.returncode}{memory}: {message}"}
    row = read_json(result)
    result.unlink()
    return row


def measure(name: str) -> dict:
    """Prunes and exports one network."""
    import keras
    import numpy as np

    import dcp_tf
    from dcp_tf.models import APPLICATIONS

    keras.utils.set_random_seed(0)
    model = build(name)
    shape = tuple(model.inputs[0].shape[1:])
    images = np.random.default_rng(0).random((IMAGES, *shape), np.float32)
    images *= 255 if APPLICATIONS[name] == "raw" else 1  # those rescale inside
    common.take_statistics(model, images)
    labels = np.arange(IMAGES) % model.outputs[0].shape[-1]
    row = {"size": shape[0], "baseline_macs": dcp_tf.count_cost(model).macs}
    started = time.perf_counter()
    nothing = dcp_tf.TrainConfig(epochs=0)
    pruned = dcp_tf.prune(model, (images, labels), dcp_tf.L1(rate=RATE, round_to=1), finetuning=nothing).model
    row |= {"macs": dcp_tf.count_cost(pruned).macs, "prune_seconds": time.perf_counter() - started}
    row["amplified"] = amplified(pruned, images)
    for mode in MODES:
        row[mode] = export(pruned, mode, images)
        if "failure" in row[mode]:
            row[mode]["unpruned"] = export(model, mode, images).get("failure")
    return row


def build(name: str):
    """The network with logits, for the smallest images that it takes."""
    import keras

    for size in SIZES:
        try:
            constructor = getattr(keras.applications, name)
            return constructor(weights=None, classifier_activation=None, input_shape=(size, size, 3))
        except ValueError:  # too small, or (NASNet) not the size that it was made for
            continue
    raise RunError(f"{name} takes none of the sizes {SIZES}")


def amplified(model, images) -> float:
    """By how much of their spread Keras' outputs move when the images change by a millionth."""
    import keras
    import numpy as np

    before, after = (keras.ops.convert_to_numpy(model(x, training=False)) for x in (images, images * (1 + 1e-6)))
    return float(np.abs(after - before).max() / (before.std() or 1.0))


def export(model, mode: str, images) -> dict:
    """Converts to one mode, runs the file and compares it."""
    from dcp_tf import tflite
    from dcp_tf.graph import count_cost

    settings = {} if mode == "float32" else {"representative_data": images, "allow_float": True}
    started = time.perf_counter()
    try:
        file = tflite.convert(model, mode, **settings)
        if missing := tflite.unsupported_operations(file):
            return {"failure": f"cannot be run: {missing[0]}"}
        parity = tflite.check_parity(file, model, images)
    except RunError as error:
        return {"failure": str(error)}
    details = tflite.inspect(file)
    row = {
        "bytes": details.size,
        "max_error": parity.max_error,
        "mean_error": parity.mean_error,
        "top1_agreement": parity.top1_agreement,
        "macs": details.macs,
        "keras_macs": count_cost(model).macs,
        "float_operations": details.float_operations if mode == "int8" else [],
    }
    if mode == "float32" and parity.max_error > TOLERANCE:
        row["first_divergence"] = str(tflite.first_divergence(file, model, images))
    return row | {"seconds": time.perf_counter() - started}


def failed(row: dict) -> bool:
    """Whether a pruned network does what its unpruned one can, but not as TFLite."""
    if "failure" in row:
        return True
    broken = any("failure" in row[mode] and row[mode]["unpruned"] is None for mode in MODES)
    return broken or verdict(row) == "DIFFERS"


def verdict(row: dict) -> str:
    """What the float32 file's error means."""
    float32 = row["float32"]
    if "failure" in float32:
        return "TFLite cannot" if float32["unpruned"] else "FAILED"
    if float32["max_error"] <= TOLERANCE:
        return "equal"
    return "rounding" if float32["max_error"] <= 10 * row["amplified"] else "DIFFERS"


def table(rows: dict[str, dict]) -> None:
    """Prints a row for each network, then the reasons of what failed."""
    head = (
        "network",
        "size",
        "MACs left",
        "float32",
        "max error",
        "amplified",
        "int8",
        "mean error",
        "agrees",
        "in float",
    )
    print("{:18} {:>5} {:>10} {:>14} {:>10} {:>10} {:>10} {:>10} {:>7} {:>9}".format(*head))
    notes = []
    for name, row in rows.items():
        if "failure" in row:
            notes.append(f"{name}: {row['failure']}")
            continue
        notes += [
            f"{name}, {mode}{'' if row[mode]['unpruned'] is None else ' (unpruned too)'}: {row[mode]['failure']}"
            for mode in MODES
            if "failure" in row[mode]
        ]
        plain, small = row["float32"], row["int8"]
        error = f"{plain['max_error']:.1e}" if "max_error" in plain else "-"
        agrees = f"{small['top1_agreement']:.0%}" if "bytes" in small else "-"
        ratio = f"1/{plain['bytes'] / small['bytes']:.1f}" if "bytes" in plain and "bytes" in small else "failed"
        mean = f"{small['mean_error']:.2g}" if "bytes" in small else "-"
        left = str(len(small["float_operations"])) if "bytes" in small else "-"
        share = f"{row['macs'] / row['baseline_macs']:.1%}"
        print(
            f"{name:18} {row['size']:5} {share:>10} {verdict(row):>14} {error:>10} {row['amplified']:>10.1e} "
            f"{ratio:>10} {mean:>10} {agrees:>7} {left:>6}"
        )
        if "keras_macs" in plain and plain["macs"] != plain["keras_macs"]:
            notes.append(f"{name}: {plain['macs']:,} MACs in the file, {plain['keras_macs']:,} counted in the model")
        if verdict(row) == "DIFFERS":
            notes.append(f"{name}: {plain['first_divergence']}")
    print("\n".join(notes))


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
