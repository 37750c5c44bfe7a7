"""Are the papers' pruned networks really faster as TFLite files, and by as much as their multiply-accumulates say?

    python benchmarks/latency_speedup.py
    python benchmarks/latency_speedup.py --models=mobilenet_v1:0.3 --quantizations=float32 --cpu=1
    python benchmarks/latency_speedup.py --arm=cortex-a53,cortex-a76 --runs=10
    python benchmarks/latency_speedup.py --models=vit_cifar:70%,vit_cifar:50% --quantizations=float32,dynamic,int8

Networks at 224 pixels with random weights, pruned at the papers' rates (which channels stay does not matter for the
time), with widths in multiples of 8, of 16 and without rounding, each interleaved with the unpruned file on one thread.
With a percentage for a rate all groups but streams are narrowed alike, to so many of the multiply-accumulates.
A row passes if the speedup is at least 90% of the ratio of the multiply-accumulates. "undisturbed" compares the tenth
percentiles, which other work on the machine touches least. With --arm, the instructions that emulated cores execute
stand below, which are exact but not time.
"""

import re
import sys

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("latency_speedup", __doc__)
PROGRAM.list(
    "models",
    ["mobilenet_v1:0.3", "mobilenet_v2:0.3", "resnet50:0.3", "resnet50:0.5"],
    "Networks of the zoo, with rates.",
)
PROGRAM.list("quantizations", ["float32", "int8"], "Modes of the files.")
PROGRAM.list("round_to", ["8", "16", "1"], "Widths are multiples of these numbers.")
PROGRAM.integer("runs", 50, "Measured runs of each file.", lower=1)
PROGRAM.list("cpu", [], "Pin the measuring processes to these processors.")
PROGRAM.list("arm", [], "Emulated Arm cores on which instructions are counted too; run `dcp-tf setup arm` once.")

ENOUGH = 0.9  # of the ratio of the multiply-accumulates


def main(flags) -> None:
    """Prints one row for each network, mode and rounding."""
    head = f"{'network':14} {'rate':>5} {'mode':8} {'round_to':>8} {'full ms':>9} {'pruned ms':>9} {'MACs':>6}"
    print(f"{head} {'speedup (95 % interval)':>26} {'undisturbed':>11}  verdict", flush=True)
    for entry in flags.models:
        name, _, rate = entry.partition(":")
        report(name, rate, flags)


def report(name: str, rate: str, flags) -> None:
    """Measures one network."""
    from dcp_tf import models, tflite
    from dcp_tf.graph import ChannelGraph, count_cost, rebuild
    from dcp_tf.tflite.latency.layer_files import convert_for_timing

    graph = ChannelGraph(models.build(name))
    kept = {round_to: graph.kept(widths(graph, name, rate, round_to)) for round_to in map(int, flags.round_to)}
    variants = {"full": graph.trace.model} | {str(key): rebuild(graph, value) for key, value in kept.items()}
    full = count_cost(graph).macs
    for mode in flags.quantizations:
        quantization = tflite.Quantization.parse(mode)
        files = {
            key: tflite.TFLiteFile(convert_for_timing(model, mode), quantization) for key, model in variants.items()
        }
        result = tflite.benchmark(files, runs=flags.runs, cpus=[int(cpu) for cpu in flags.cpu])
        for round_to, value in kept.items():
            row(name, rate, mode, round_to, result, full / count_cost(graph, value).macs)
        for core in flags.arm:
            counted(name, rate, mode, tflite.count_instructions(files, core=core), graph, kept)


def counted(name: str, rate: str, mode: str, result, graph, kept) -> None:
    """Prints a comparison of instructions for each rounding."""
    from dcp_tf.graph import count_cost

    for round_to, value in kept.items():
        macs, ratio = count_cost(graph).macs / count_cost(graph, value).macs, result.ratios[str(round_to)]
        print(
            f"{name:14} {rate:>5} {mode:8} {round_to:8} {result.counts['full'] / 1e6:8.2f}M "
            f"{result.counts[str(round_to)] / 1e6:8.2f}M {macs:5.2f}x {ratio:25.2f}x {'':12} {ratio / macs:.0%} of the "
            f"MACs, instructions on {result.machine}",
            flush=True,
        )


def widths(graph, name: str, rate: str, round_to: int) -> dict[str, range]:
    """The channels that stay in the groups that the papers prune, or in all but streams."""
    from dcp_tf.models import paper_scope
    from dcp_tf.pruning import Target, Widths
    from dcp_tf.pruning.budget import kept_at_rate

    if rate.endswith("%"):
        at = Widths(graph, graph.prunable(), round_to).within(Target("macs", rate))
        return {group: graph.group(group).first(width) for group, width in at.items()}
    scope = paper_scope(name)
    groups = [group for group in graph.groups if any(re.fullmatch(pattern, group.name) for pattern in scope)]
    return {group.name: range(kept_at_rate(group.size, float(rate), round_to)) for group in groups}


def row(name: str, rate: str, mode: str, round_to: int, result, macs: float) -> None:
    """Prints one comparison."""
    full, pruned = result.latencies["full"], result.latencies[str(round_to)]
    ratio = result.ratios[str(round_to)]
    undisturbed = full.p10_ms / pruned.p10_ms
    share = ratio.value / macs
    verdict = f"{share:.0%} of the MACs: {'passes' if share >= ENOUGH else 'fails'}"
    if ratio.too_noisy:
        verdict = f"too noisy; undisturbed {undisturbed / macs:.0%} of the MACs"
    print(
        f"{name:14} {rate:>5} {mode:8} {round_to:8} {full.median_ms:9.2f} {pruned.median_ms:9.2f} {macs:5.2f}x "
        f"{ratio.text():>26} {undisturbed:10.2f}x  {verdict}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
