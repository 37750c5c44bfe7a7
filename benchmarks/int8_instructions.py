"""What keeps int8 files from gaining what their multiply-accumulates promise? Instructions of each operation on Arm.

    python benchmarks/int8_instructions.py
    python benchmarks/int8_instructions.py --models=resnet50:0.5 --scope=blocks

Networks at 224 pixels with random weights, pruned at the papers' rates (see latency_speedup.py). Of each kind of
operation the share of all instructions before and after, and how many times fewer they are; "unchanged" are the
operations that pruning leaves as they are. "bound" is the ratio of the whole file if each convolution saved exactly
what its multiply-accumulates promise and all else were as it is counted.

With --scope=residual all groups that --prune_residual frees are narrowed by one rate, with --scope=blocks every third
residual block is left out and the papers' groups are narrowed: to no more multiply-accumulates than the papers' rate.
"""

import sys

from latency_speedup import widths

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("int8_instructions", __doc__)
PROGRAM.list("models", ["mobilenet_v1:0.3", "mobilenet_v2:0.3", "resnet50:0.5"], "Networks of the zoo, with rates.")
PROGRAM.list("cores", ["cortex-a76"], "Emulated Arm cores; run `dcp-tf setup arm` once.")
PROGRAM.list("round_to", ["16"], "Widths are multiples of these numbers.")
PROGRAM.string("mode", "int8", "Of the files.")
PROGRAM.enum("scope", "papers", ("papers", "residual", "blocks"), "What is pruned.")


def main(flags) -> None:
    """Prints the kinds of operations of each network, core and rounding."""
    from dcp_tf import models, tflite
    from dcp_tf.graph import ChannelGraph, count_cost, rebuild
    from dcp_tf.tflite.latency.layer_files import convert_for_timing

    quantization = tflite.Quantization.parse(flags.mode)
    for entry in flags.models:
        name, _, rate = entry.partition(":")
        graph = ChannelGraph(models.build(name))
        kept = {step: graph.kept(_scoped(graph, name, rate, int(step), flags.scope)) for step in flags.round_to}
        variants = {"full": graph.trace.model} | {step: rebuild(graph, value) for step, value in kept.items()}
        files = {key: tflite.TFLiteFile(convert_for_timing(m, flags.mode), quantization) for key, m in variants.items()}
        for core in flags.cores:
            counted = tflite.count_instructions(files, core=core, profile=True)
            for step, value in kept.items():
                promised = count_cost(graph).macs / count_cost(graph, value).macs
                print(
                    f"{name} {rate}, {flags.scope}, {flags.mode}, round_to {step}, {core}: MACs "
                    f"{promised:.2f}x, instructions {counted.ratios[step]:.2f}x ({counted.ratios[step] / promised:.0%})"
                )
                if flags.scope != "blocks":
                    _print_kinds(counted.operations["full"], counted.operations[step], files["full"], files[step])


def _scoped(graph, name: str, rate: str, step: int, scope: str) -> dict[str, range]:
    """Group or block -> what stays."""
    from dcp_tf.graph import count_cost
    from dcp_tf.pruning.budget import kept_at_rate

    papers = widths(graph, name, rate, step)
    if scope == "papers":
        return papers
    gone = dict.fromkeys((block.name for block in graph.blocks[::3]), ()) if scope == "blocks" else {}
    groups = graph.prunable(True) if scope == "residual" else [graph.group(group) for group in papers]
    limit = count_cost(graph, graph.kept(papers)).macs
    for percent in range(100):
        kept = {g.name: range(kept_at_rate(g.size, percent / 100, step)) for g in groups} | gone
        if count_cost(graph, graph.kept(kept)).macs <= limit:
            return kept
    raise ValueError(f"{name} has more multiply-accumulates than {limit:,} at any width")


def _print_kinds(before, after, full, small) -> None:
    """The operations of both files by kind; they have the same ones in the same order."""
    macs_before, macs_after = _macs(full), _macs(small)
    total, left = sum(o.ms for o in before), sum(o.ms for o in after)
    rows: dict[str, list[int]] = {}
    for number, operation in enumerate(before):
        rows.setdefault(operation.kind, []).append(number)
    rows = dict(sorted(rows.items(), key=lambda row: -sum(before[i].ms for i in row[1])))
    rows["CONV_2D, the first"] = [0] if before[0].kind == "CONV_2D" else []
    rows["unchanged"] = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a.ms == b.ms]
    for kind, numbers in rows.items():
        a, b = (sum(operations[i].ms for i in numbers) for operations in (before, after))
        if b:
            macs = sum(macs_before[i] for i in numbers) / sum(macs_before)
            print(
                f"    {kind:20} {a / total:6.1%} -> {b / left:6.1%} of the instructions, {a / b:.2f}x fewer; "
                f"{macs:.1%} of the MACs"
            )
    ideal = sum(
        a.ms * macs_after[i] / macs_before[i] if macs_before[i] and a.kind == "CONV_2D" else b.ms
        for i, (a, b) in enumerate(zip(before, after, strict=True))
    )
    print(f"    bound                {total / ideal:.2f}x", flush=True)


def _macs(file) -> list[int]:
    """Multiply-accumulates of each operation."""
    from dcp_tf import tflite
    from dcp_tf.tflite.schema.subgraph import Cutter

    cutter = Cutter(file.content)
    parts = [cutter.alone(number) for number in range(len(cutter))]
    return [tflite.count_macs(tflite.TFLiteFile(part, file.quantization)) for part in parts]


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
