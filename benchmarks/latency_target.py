"""Is a target latency met, and is the model better than at the common rate that is predicted to take as long?

    python tools/train.py --model=zoo:mobilenet_v2_small --dataset=digits --epochs=30 --output_dir=runs/baseline
    python benchmarks/latency_target.py --model=runs/baseline/baseline.keras --dataset=digits --output=target.json

Measures the layers once (--latency_table keeps that), prunes with widths of every group chosen for --target_latency and
with the one common rate that just fits, fine-tunes both in the same way, and measures both files beside the baseline's
interleaved. Both choices are measured, and corrected, before the selection, as prune does. The goal for MobileNetV2 at
60 %: measured 55 to 60 %, and at least the accuracy of the common rate.
"""

import dataclasses
import pathlib
import sys
import tempfile

import common
import numpy as np

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.files import write_json
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.cli import data_flags, pruning_flags
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import read_training

PROGRAM = Program("latency_target", __doc__, {"round_to": 4, "finetune_epochs": 5})
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
PROGRAM.string("target_latency", "60%", "As for prune.")
PROGRAM.path("latency_table", None, "A file that keeps the measured table.")
PROGRAM.enum("latency_quantization", "float32", ("float32", "int8"), "Mode of the files.")
PROGRAM.integer("threads", 1, "Threads of the kernels.", lower=1)
PROGRAM.integer("benchmark_runs", 100, "Measured runs of each file.", lower=1)
PROGRAM.integer("seeds", 1, "Runs of each allocation; the files of the first are timed.", lower=1)
data_flags.define_seed(PROGRAM, "The first seed.")
PROGRAM.path("output", None, "A JSON file for the figures.")
pruning_flags.define_pruning(PROGRAM)
pruning_flags.define_training(PROGRAM)


def main(flags) -> None:
    """Prints one line for each allocation."""
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite.latency.model_latency import ModelLatency

    model_and_data = data_flags.load_model_and_data(flags)
    if model_and_data.dataset.test.labels is None:
        raise UsageError("the accuracy of the pruned models is asked for: the data need labels")
    method = pruning_flags.read_method(flags)
    model = tflite_files.fixed_size(model_and_data.model, model_and_data.dataset)
    table = _table(flags, model, method)
    measured = ModelLatency(ChannelGraph(model, ignore_statistics=method.ignore_statistics), table)
    results, timed = {}, {"baseline": model}
    for allocation in ("global", "uniform"):
        results[allocation], timed[allocation] = _prune(flags, model_and_data, method, table, measured, allocation)
    latencies = _measure(flags, timed)
    for allocation, figures in results.items():
        latency = latencies[allocation]
        figures |= {
            "measured": 1 / latency.speedup,
            "measured_interval": [1 / latency.speedup_high, 1 / latency.speedup_low],
            "conclusive": latency.conclusive,
        }
        low, high = figures["measured_interval"]
        noisy = "" if latency.conclusive else ", too noisy to tell"
        print(
            f"{allocation}: {model_and_data.objective.primary} {np.mean(figures['accuracy']):.4f} "
            f"(+-{np.std(figures['accuracy']):.4f}, {flags.seeds} seeds); latency predicted "
            f"{figures['predicted']:.1%}, measured {figures['measured']:.1%} ({low:.1%} to {high:.1%}{noisy})",
            flush=True,
        )
    if flags.output:
        about = {
            "model": model_and_data.source,
            "dataset": model_and_data.dataset.name,
            "baseline_ms": table.baseline_ms,
        }
        write_json(flags.output, {**about, "target": flags.target_latency, **results})


def _table(flags, model, method):
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite import measure_latency_table

    return measure_latency_table(
        ChannelGraph(model, ignore_statistics=method.ignore_statistics),
        quantization=flags.latency_quantization,
        threads=flags.threads,
        round_to=method.round_to,
        residual=method.prune_residual,
        cache=flags.latency_table,
    )


def _prune(flags, model_and_data, method, table, measured, allocation):
    """The figures of an allocation over all seeds, and the model of the first one."""
    from dcp_tf.pruning import Target, prune
    from dcp_tf.tools.app import run_summary

    target = Target("latency", flags.target_latency, table.predict, "the table of this benchmark", measured)
    method = dataclasses.replace(method, target=target, allocation=allocation)
    accuracies, first = [], None
    for seed in range(flags.seed, flags.seed + flags.seeds):
        progress.say(f"{allocation}, seed {seed}")
        result = prune(
            model_and_data.model,
            model_and_data.dataset.train,
            method,
            objective=model_and_data.objective,
            auxiliary=read_training(flags, "auxiliary"),
            finetuning=read_training(flags, "finetuning"),
            distillation=flags.distillation,
            seed=seed,
        )
        measured = run_summary.measure_model(result.model, model_and_data.dataset, model_and_data.objective)
        accuracies.append(measured[model_and_data.objective.primary])
        first = first or (result, measured)
    result, measured = first
    widths = {group.name: len(group.kept) for group in result.plan.groups}
    figures = {
        "accuracy": accuracies,
        "widths": widths,
        "macs": measured["macs"],
        "predicted": table.predict(widths) / table.baseline_ms,
    }
    return figures, tflite_files.fixed_size(result.model, model_and_data.dataset)


def _measure(flags, models):
    """Name -> `Latency`, all files interleaved."""
    from dcp_tf import tflite
    from dcp_tf.tflite.latency.layer_files import convert_for_timing

    with tempfile.TemporaryDirectory() as folder:
        paths = {name: pathlib.Path(folder, f"{name}.tflite") for name in models}
        for name, model in models.items():
            paths[name].write_bytes(convert_for_timing(model, flags.latency_quantization))
        return tflite.benchmark(paths, threads=flags.threads, runs=flags.benchmark_runs, seed=flags.seed).latencies


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
