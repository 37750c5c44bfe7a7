r"""How long does the selection take, and how much memory? Seconds per layer, per step and in total, exact and fast.

    python benchmarks/selection_speed.py --output=speed.json
    python benchmarks/selection_speed.py --blocks=1,14,27 --variants=exact,fast

The setting is that of the authors' figures: PreResNet-56 on CIFAR-sized images, the inputs of each block's second
convolution, 4096 images, B = 2, eta = .5, P = 3. The images are noise unless --dataset names some: time does not depend
on them. The auxiliary classifiers stay untrained. Each variant runs in a process of its own, whose peak memory is that
of the whole process, TensorFlow and images included. One-shot criteria are listed with the tracing of the network. The
steps of fast are those of its elimination, over which the one pass through the images is spread.
Beside it stands an epoch of 50,000 training images, measured on 20 steps of 128 images and scaled.

The authors' own code takes 14.4, 17.0 and 23.7 s per selected channel for blocks 1, 14 and 27 (score and one pass of
the sub-problem) and 3.2 hours for all 27 layers, on a machine with 2 cores.
"""

import itertools
import json
import re
import resource
import subprocess
import sys
import time

import common

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tools.cli import data_flags
from dcp_tf.tools.cli.program import Program

AUTHORS_PER_CHANNEL = {1: 14.4, 14: 17.0, 27: 23.7}  # seconds, by block
AUTHORS_TOTAL = 3.2 * 3600
WANTED = {"exact": 16, "fast": 96}  # times as fast
NOISE = "noise"
EPOCH_IMAGES, EPOCH_STEPS, BATCH = 50_000, 20, 128
GUIDED = ("exact", "fast")

PROGRAM = Program("selection_speed", __doc__)
data_flags.define_model(PROGRAM)
data_flags.define_dataset(PROGRAM)
data_flags.define_outputs(PROGRAM)
PROGRAM.flags.set_default("model", "zoo:preresnet56")
PROGRAM.flags.set_default("dataset", NOISE)
PROGRAM.section("What is measured")
PROGRAM.list("variants", [], "exact, fast, the name of a one-shot criterion, epoch; without the flag all of them.")
PROGRAM.list("blocks", [], "Which groups, counted from 1 (shallow to deep); without the flag all.")
PROGRAM.float("rate", 0.5, "Share of channels to remove from each group.")
PROGRAM.integer("per_step", 2, "Channels added per step, B.", lower=1)
PROGRAM.integer("auxiliary_losses", 3, "Auxiliary classifiers, P.")
PROGRAM.integer("selection_samples", 4096, "Training images of the selection, N.", lower=1)
PROGRAM.float("cache_gib", 2.0, "Memory for cached layer inputs, GiB.")
PROGRAM.string("measure", None, "Measure this variant alone, in this process, and print it as JSON.")
data_flags.define_seed(PROGRAM, "Of the weights and of everything that is drawn.")
PROGRAM.path("output", None, "A JSON file with everything that was measured.")


def main(flags) -> None:
    """Measures each variant in a process of its own and prints the tables."""
    if flags.measure:
        print(json.dumps(measure(flags, flags.measure)))
        return
    from dcp_tf.files import write_json
    from dcp_tf.pruning import METHODS, Criterion

    known = [*GUIDED, *(name for name, method in METHODS.items() if issubclass(method, Criterion)), "epoch"]
    variants = flags.variants or known
    unknown = [name for name in variants if name not in known]
    if unknown:
        raise UsageError(f"--variants: unknown variant {unknown[0]!r}; choose among {', '.join(known)}")
    block_numbers(flags, len(model_data_and_groups(flags)[2]))
    results = {"settings": {name: flags[name].value for name in flags if name not in ("help", "debug")}, "variants": {}}
    for name in variants:
        results["variants"][name] = record = in_own_process(name)
        print(line_of(name, record), flush=True)
        if flags.output:
            write_json(flags.output, results)
    print_layers(results["variants"])
    if flags.model == "zoo:preresnet56":
        print_ratios(results["variants"])


def in_own_process(name: str) -> dict:
    """What `--measure` prints.

    Raises:
        RunError: the process failed.
    """
    command = [sys.executable, __file__, *sys.argv[1:], f"--measure={name}"]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise RunError(f"the process that measures {name} ended with code {process.returncode}")
    return json.loads(process.stdout.splitlines()[-1])


def measure(flags, name: str) -> dict:
    """Runs one variant here."""
    from dcp_tf.pruning import DCP, METHODS

    model, train, groups = model_data_and_groups(flags)
    ready = peak_gib()
    if name == "epoch":
        return {"seconds": epoch_seconds(model, train), "peak_gib": peak_gib(), "ready_gib": ready}
    chosen = block_numbers(flags, len(groups))
    exclude = tuple(re.escape(group) for number, group in enumerate(groups, start=1) if number not in chosen)
    settings = {"rate": flags.rate, "exclude": exclude, "selection_samples": flags.selection_samples, "round_to": 1}
    if name in GUIDED:
        own = {"per_step": flags.per_step, "auxiliary_losses": flags.auxiliary_losses, "cache_gib": flags.cache_gib}
        record = pruned(flags, model, train, DCP(selection=name, **settings, **own))
        for layer in record["layers"]:
            layer["block"] = groups.index(layer["name"]) + 1
    else:
        record = pruned(flags, model, train, METHODS[name](**settings))
    return record | {"peak_gib": peak_gib(), "ready_gib": ready}


def model_data_and_groups(flags) -> tuple:
    """The model, its training images, and the names of its groups from shallow to deep."""
    import numpy as np

    from dcp_tf import models
    from dcp_tf.data import as_split
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.training import seed_everything

    seed_everything(flags.seed)
    if flags.dataset == NOISE:
        rng = np.random.default_rng(flags.seed)
        model = models.load(flags.model, weights=flags.weights, input_shape=(32, 32, 3), num_classes=10).model
        size = max(flags.selection_samples, EPOCH_STEPS * BATCH)
        images = rng.normal(size=(size, *model.inputs[0].shape[1:])).astype(np.float32)
        train = as_split((images, np.arange(size) % model.outputs[0].shape[-1]))
        if not flags.weights:
            common.take_statistics(model, images[:256])
    else:
        model_and_data = data_flags.load_model_and_data(flags)
        model, train = model_and_data.model, model_and_data.dataset.train
    return model, train, [group.name for group in ChannelGraph(model).prunable(residual=False)]


def block_numbers(flags, count: int) -> set[int]:
    """The blocks to measure.

    Raises:
        UsageError: there is no such block.
    """
    try:
        chosen = {int(text) for text in flags.blocks} or set(range(1, count + 1))
    except ValueError as error:
        raise UsageError(f"--blocks takes numbers with commas between them, received {flags.blocks}") from error
    if not chosen <= set(range(1, count + 1)):
        raise UsageError(f"--blocks: the model has the groups 1 to {count}, received {','.join(flags.blocks)}")
    return chosen


def pruned(flags, model, train, method) -> dict:
    """Seconds of tracing, of the selection and, where it goes layer by layer, of each layer."""
    from dcp_tf import models, progress
    from dcp_tf.pruning import prepare, prune
    from dcp_tf.training import TrainConfig, as_objective

    kind = models.outputs_kind(model)
    objective = as_objective(None, model, train, kind)
    started = time.perf_counter()
    prepare(model, train, method, objective=objective)
    tracing = time.perf_counter() - started
    timed_lines: list[tuple[float, str]] = []
    say = progress.say

    def listen(line: str) -> None:
        timed_lines.append((time.perf_counter(), line))
        say(line)

    progress.say = listen
    started = time.perf_counter()
    none = TrainConfig(epochs=0)
    result = prune(model, train, method, outputs_kind=kind, auxiliary=none, finetuning=none, seed=flags.seed)
    whole = time.perf_counter() - started
    seconds = next(p["seconds"] for p in result.history if p["name"] == "selection")
    layers = layer_records(timed_lines, result.plan, seconds) if method.guided else []
    return {"tracing_seconds": tracing, "seconds": seconds, "whole_seconds": whole, "layers": layers}


def layer_records(timed_lines: list[tuple[float, str]], plan, total: float) -> list[dict]:
    """From one layer's line of progress to the next's is what a layer takes, its inputs included."""
    by_name = {group.name: group for group in plan.groups}
    lines = [(at, match[1]) for at, line in timed_lines if (match := re.match(r"selected \d+/\d+ +(\S+):", line))]
    if [name for _, name in lines] != list(by_name):
        raise RunError("the lines of progress do not name the layers that the plan has")
    # The last line comes at the end of the selection, so the first layer has what the others leave of the total.
    ends = [at for at, _ in lines]
    seconds = [total - (ends[-1] - ends[0]), *(b - a for a, b in itertools.pairwise(ends))]
    return [
        {
            "name": name,
            "kept": len(by_name[name].kept),
            "size": by_name[name].size,
            "steps": len(by_name[name].history["loss"]) - 1,
            "seconds": took,
        }
        for (_, name), took in zip(lines, seconds, strict=True)
    ]


def epoch_seconds(model, train) -> float:
    """Seconds of an epoch of `EPOCH_IMAGES`, scaled from some steps after the compilation."""
    from dcp_tf import models
    from dcp_tf.training import ClassificationLoss, TrainConfig, fit

    def steps(epoch: int):
        return train.batches(BATCH, shuffle=True, augment=True).repeat().take(2 if epoch == 0 else EPOCH_STEPS)

    history = fit(model, steps, [ClassificationLoss(models.outputs_kind(model))], TrainConfig(2, BATCH, 1e-3))
    return history[1]["seconds"] * EPOCH_IMAGES / (EPOCH_STEPS * BATCH)


def peak_gib() -> float:
    """The most memory that this process has had, GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def line_of(name: str, record: dict) -> str:
    """One variant in one line."""
    memory = f"peak {record['peak_gib']:.2f} GiB ({record['ready_gib']:.2f} before it began)"
    if name == "epoch":
        steps = f"scaled from {EPOCH_STEPS} steps of {BATCH}"
        return f"epoch of {EPOCH_IMAGES:,} images: {record['seconds']:.0f} s ({steps}); {memory}"
    if name not in GUIDED:
        both = record["tracing_seconds"] + record["seconds"]
        return f"{name}: {both:.2f} s, of which tracing {record['tracing_seconds']:.2f} s; {memory}"
    steps = sum(layer["steps"] for layer in record["layers"])
    return (
        f"{name}: {record['seconds']:.1f} s for {len(record['layers'])} layers, {steps} steps, "
        f"{record['seconds'] / max(steps, 1):.2f} s per step; whole call {record['whole_seconds']:.1f} s; {memory}"
    )


def print_layers(variants: dict) -> None:
    """Seconds of each layer."""
    shown = [name for name in GUIDED if name in variants]
    if not shown:
        return
    head = "".join(f"{name + ' s':>10}{'steps':>6}{'s/step':>8}" for name in shown)
    print(f"\n{'block':>5} {'group':28}{'kept':>8}{head}")
    for number, layer in enumerate(variants[shown[0]]["layers"]):
        cells = ""
        for name in shown:
            own = variants[name]["layers"][number]
            cells += f"{own['seconds']:10.2f}{own['steps']:6}{own['seconds'] / max(own['steps'], 1):8.2f}"
        kept = f"{layer['kept']}/{layer['size']}"
        print(f"{layer['block']:5} {layer['name']:28}{kept:>8}{cells}")


def print_ratios(variants: dict) -> None:
    """How many times as fast as the authors' code."""
    print()
    for name in (name for name in GUIDED if name in variants):
        layers = {layer["block"]: layer for layer in variants[name]["layers"]}
        for block, theirs in AUTHORS_PER_CHANNEL.items():
            if block in layers:
                ours = layers[block]["seconds"] / layers[block]["kept"]
                print(f"{name}, block {block}: {ours:.3f} s per channel, authors {theirs} s: {theirs / ours:.0f} times")
        if len(layers) == 27:
            ratio = AUTHORS_TOTAL / variants[name]["seconds"]
            print(f"{name}, all layers: authors {AUTHORS_TOTAL:.0f} s: {ratio:.0f} times (wanted: {WANTED[name]})")


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
