r"""How many CPU minutes until the pruned model is as good as wanted, selection included?

    python benchmarks/time_to_accuracy.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --methods=dcp,l1,l1:update --output=time_resnet20.json

Each method is run with fine-tunings of several lengths, each with a schedule of its own. CPU time is that of the whole
process, on all cores and with the auxiliary classifiers, the selection, the recovery and the fine-tuning; what it takes
to measure the accuracy on the test images is left out. The table gives the least CPU minutes at which an accuracy was
reached. A stopped run resumes with --resume.
"""

import dataclasses
import pathlib
import sys
import time

import common

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("time_to_accuracy", __doc__)
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
PROGRAM.string("cost", "50.4%", "Largest cost of the pruned models: a share of the MACs.")
PROGRAM.list("methods", ["dcp", "l1", "l1:update"], "Variants as in tools/compare.")
PROGRAM.list("lengths", ["0", "1", "2", "4", "8"], "Epochs of fine-tuning of the runs of each method.")
PROGRAM.list("wanted", [".880", ".885", ".890"], "Top-1 accuracies to reach.")
common.define_runs(PROGRAM, 1, train_samples=12500)


def main(flags) -> None:
    """Prints a row for each run, and a table of CPU minutes."""
    from dcp_tf.files import read_json, write_json
    from dcp_tf.tools.cli.method_specs import read_variants

    variants = [
        dataclasses.replace(v, method=common.at_cost(v.method, flags.cost)) for v in read_variants(flags.methods, flags)
    ]
    bench = common.Bench(flags, "time_to_accuracy", variants)
    path = None if flags.output is None else pathlib.Path(flags.output)
    runs = read_json(path).get("timed", []) if flags.resume and path is not None and path.exists() else []
    for variant in variants:
        for epochs in map(int, flags.lengths):
            key = {"method": variant.label, "epochs": epochs}
            if not any(all(run[k] == v for k, v in key.items()) for run in runs):
                runs.append(key | _run(bench, variant, epochs))
                if path is not None:
                    write_json(path, bench.found | {"timed": runs})
            run = next(run for run in runs if all(run[k] == v for k, v in key.items()))
            print(
                f"{variant.label:12} {epochs:2} epochs  {run['cpu_seconds']:7.0f} CPU s  {run['top1']:.4f}", flush=True
            )
    _print_table(runs, [v.label for v in variants], [float(w) for w in flags.wanted])


def _run(bench, variant, epochs) -> dict[str, float]:
    """One run: its CPU seconds without those of measuring, and its accuracy."""
    from dcp_tf.pruning import prune

    model_and_data, schedule, seed = bench.model_and_data, bench.schedule, bench.flags.seed
    started = time.process_time()
    result = prune(
        model_and_data.model,
        schedule.images(model_and_data.dataset.train, seed),
        variant.method,
        objective=model_and_data.objective,
        auxiliary=schedule.auxiliary,
        finetuning=dataclasses.replace(schedule.finetuning, epochs=epochs),
        distillation=schedule.distillation,
        seed=seed,
    )
    seconds = time.process_time() - started
    top1 = model_and_data.objective.evaluate(result.model, model_and_data.dataset.test.batches(256))["top1"]
    return {"cpu_seconds": seconds, "top1": float(top1)}


def _print_table(runs, methods, targets) -> None:
    print("\nCPU minutes until " + "  ".join(f"{w:8.1%}" for w in targets))
    for method in methods:
        times = [[r["cpu_seconds"] for r in runs if r["method"] == method and r["top1"] >= w] for w in targets]
        print(f"{method:17} " + "  ".join(f"{min(t) / 60:8.1f}" if t else "       -" for t in times), flush=True)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
