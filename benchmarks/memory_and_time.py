r"""What does pruning cost? Peak memory and CPU seconds of each phase of one run, without fine-tuning.

    python benchmarks/memory_and_time.py --model=model.keras --images=x.npy --labels=y.npy --target_macs=50% \
        --checkouts=/path/before,/path/after --output=memory_and_time.json

Each run is a process of its own. Several checkouts of the project take turns, so that a change of the machine's speed
meets all of them. Pixels are read as they are stored: a model with a `Rescaling` layer takes integers of 0 to 255.
`--model=mobilenet_v1` is MobileNetV1 with three quarters of the channels, random weights and 1,000 classes.
"""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import write_json
from dcp_tf.tools.cli.program import Program

# Function that does the work of a phase -> what the phase is called.
PHASES = {
    "dcp_tf.pruning.prune_model.global_widths": "allocation",
    "dcp_tf.pruning.dcp.algorithm1._train_auxiliary": "auxiliary heads",
    "dcp_tf.pruning.dcp.stage_runner._selection_images": "selection images",
    "dcp_tf.pruning.dcp.algorithm1._select": "selection",
    "dcp_tf.pruning.prune_model.rebuild": "surgery",
    "dcp_tf.pruning.prune_model.recover_weights": "recovery",
}
_MARK = "PHASE "  # begins the lines that the worker prints for the parent
_SAMPLE_SECONDS = 0.02

PROGRAM = Program("memory_and_time", __doc__)
PROGRAM.section("What is pruned")
PROGRAM.string("model", None, "A .keras file, or mobilenet_v1.")
PROGRAM.string("images", None, "A .npy file of images, (N, H, W, C).")
PROGRAM.string("labels", None, "A .npy file of class numbers, (N,).")
PROGRAM.string("test_images", None, "A .npy file of images on which the pruned model is measured.")
PROGRAM.string("test_labels", None, "Their class numbers.")
PROGRAM.integer("train_samples", None, "Only the first images of --images.", lower=1)
PROGRAM.string("target_macs", None, "Target cost such as 50%.")
PROGRAM.float("rate", 0.5, "The rate, without a target.")
PROGRAM.float("cache_gib", 2.0, "Memory for cached layer inputs.")
PROGRAM.integer("aux_epochs", 3, "Epochs of auxiliary training.")
PROGRAM.integer("round_to", 1, "Widths are multiples of it.", lower=1)
PROGRAM.integer("seed", 0, "Of everything that is drawn.")
PROGRAM.section("How it is measured")
PROGRAM.list("checkouts", [], "Folders of the project to compare; this one without the flag.")
PROGRAM.integer("repeats", 1, "Runs of each checkout.", lower=1)
PROGRAM.string("output", None, "A JSON file for all figures.")
PROGRAM.boolean("worker", False, "Prune in this process (what the benchmark itself starts).")


def main(flags) -> None:
    """Runs all checkouts interleaved and prints a table for each run."""
    for name in ("model", "images", "labels"):
        if getattr(flags, name) is None:
            raise UsageError(f"--{name} is missing")
    if flags.worker:
        prune(flags)
        return
    here = str(pathlib.Path(__file__).resolve().parent.parent)
    runs = []
    for repeat in range(flags.repeats):
        for checkout in flags.checkouts or [here]:
            runs.append({"checkout": checkout, "repeat": repeat, **measure(checkout)})
            print_run(runs[-1])
            if flags.output is not None:
                write_json(flags.output, {"benchmark": "memory_and_time", "arguments": sys.argv[1:], "runs": runs})


def measure(checkout: str) -> dict:
    """Runs this script as a worker on a checkout's code, and watches its memory from outside."""
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--worker"]
    environment = {**os.environ, "PYTHONPATH": checkout, "PYTHONUNBUFFERED": "1"}
    samples = []
    with tempfile.TemporaryFile("w+") as output:
        worker = subprocess.Popen(command, env=environment, stdout=output)
        while worker.poll() is None:
            samples.append((time.monotonic(), resident_bytes(worker.pid)))
            time.sleep(_SAMPLE_SECONDS)
        output.seek(0)
        text = output.read()
    if worker.returncode:
        raise RunError(f"the run on {checkout} failed with exit code {worker.returncode}")
    marks = [json.loads(line.removeprefix(_MARK)) for line in text.splitlines() if line.startswith(_MARK)]
    return by_phase(marks, samples)


def by_phase(marks: list[dict], samples: list[tuple[float, int]]) -> dict:
    """Sums the marks of the worker up: the last one holds what the whole run tells."""
    phases: dict[str, dict] = {}
    for mark, after in itertools.pairwise(marks):
        phase = phases.setdefault(mark["phase"], {"cpu_seconds": 0.0, "seconds": 0.0, "peak_bytes": 0})
        phase["cpu_seconds"] += after["cpu"] - mark["cpu"]
        phase["seconds"] += after["time"] - mark["time"]
        during = (used for moment, used in samples if mark["time"] <= moment <= after["time"])
        phase["peak_bytes"] = max(phase["peak_bytes"], *during, 0)
    return {"phases": phases, "cpu_seconds": marks[-1]["cpu"], **marks[-1]["results"]}


def resident_bytes(process: int) -> int:
    """The memory that a process holds now, 0 where it has ended."""
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def print_run(run: dict) -> None:
    """Prints the table of one run."""
    print(f"\n{run['checkout']}, run {run['repeat'] + 1}")
    print(f"{'phase':<20}{'CPU s':>8}{'s':>8}{'peak GiB':>10}")
    for name, phase in run["phases"].items():
        peak = phase["peak_bytes"] / 2**30
        print(f"{name:<20}{phase['cpu_seconds']:>8.1f}{phase['seconds']:>8.1f}{peak:>10.2f}")
    print(f"{'whole run':<20}{run['cpu_seconds']:>8.1f}{'':>8}{run['peak_bytes'] / 2**30:>10.2f}")
    top1 = "" if run["top1"] is None else f", top-1 {run['top1']:.4f} before fine-tuning"
    print(f"{run['macs_before'] / 1e6:.1f} M -> {run['macs'] / 1e6:.1f} M MACs{top1}", flush=True)


def prune(flags) -> None:
    """One run, with a line on standard output where a phase begins."""
    mark("start")
    import resource

    import keras
    import numpy as np

    import dcp_tf
    from dcp_tf.pruning import Target
    from dcp_tf.training import TrainConfig

    known = flags.model == "mobilenet_v1"
    model = random_mobilenet() if known else keras.models.load_model(flags.model, compile=False)
    images, labels = np.load(flags.images)[: flags.train_samples], np.load(flags.labels)[: flags.train_samples]
    target = None if flags.target_macs is None else Target("macs", flags.target_macs)
    method = dcp_tf.DCP(rate=flags.rate, target=target, cache_gib=flags.cache_gib, round_to=flags.round_to)
    auxiliary = TrainConfig(epochs=flags.aux_epochs, learning_rate=0.01)
    mark("rest")
    with marked_phases():
        result = dcp_tf.prune(
            model, (images, labels), method, auxiliary=auxiliary, finetuning=TrainConfig(epochs=0), seed=flags.seed
        )
    results = {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "macs_before": dcp_tf.count_cost(model).macs,
        "macs": dcp_tf.count_cost(result.model).macs,
        "kept": {group.name: len(group.kept) for group in result.plan.groups},
        "top1": None,
    }
    ended = time.process_time()
    if flags.test_images is not None:
        results["top1"] = top1(result.model, np.load(flags.test_images), np.load(flags.test_labels))
    mark("end", cpu=ended, results=results)


def top1(model, images, labels) -> float:
    """The share of the images that the model tells right."""
    outputs = [model(images[i : i + 100].astype("float32"), training=False) for i in range(0, len(images), 100)]
    right = sum((x.numpy().argmax(-1) == labels[100 * i : 100 * i + len(x)]).sum() for i, x in enumerate(outputs))
    return float(right / len(labels))


def random_mobilenet():
    """MobileNetV1 .75 for images of 0 to 255, its BatchNormalizations with statistics of random images."""
    import keras
    from common import take_statistics

    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNet(alpha=0.75, weights=None)
    image = keras.Input((224, 224, 3))
    model = keras.Model(image, base(keras.layers.Rescaling(1 / 127.5, -1.0)(image)))
    take_statistics(model, keras.random.uniform((8, 224, 224, 3), 0, 255, seed=0))
    return model


@contextlib.contextmanager
def marked_phases() -> Iterator[None]:
    """Makes the functions of `PHASES` print where they begin and end."""
    import importlib

    before = []
    for path, phase in PHASES.items():
        module_name, name = path.rsplit(".", 1)
        module = importlib.import_module(module_name)
        if hasattr(module, name):
            before.append((module, name, getattr(module, name)))
            setattr(module, name, _marking(before[-1][2], phase))
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def _marking(function, phase: str):
    def marking(*args, **kwargs):
        mark(phase)
        try:
            return function(*args, **kwargs)
        finally:
            mark("rest")

    return marking


def mark(phase: str, **more) -> None:
    """Tells the parent that a phase begins."""
    moment = {"phase": phase, "time": time.monotonic(), "cpu": time.process_time(), **more}
    print("\n" + _MARK + json.dumps(moment), flush=True)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
