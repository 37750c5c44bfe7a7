r"""What does the selection contribute after fine-tuning? Top-1 after the same short schedule for all, over three seeds.

    python benchmarks/finetuned_quality.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --output=finetuned_resnet20.json

All methods prune the same groups within the same MACs and are fine-tuned with all training images (fewer with
--train_samples), once with and once without the weight update of the selection. The last lines say whether dcp is the
best, or within one standard deviation of the best, and whether it is above random and l1. A stopped run resumes with
--resume.
"""

import dataclasses
import sys

import common

from dcp_tf.tools.cli.program import Program

METHODS = (
    *("random", "random:update", "l1", "l1:update", "fpgm", "fpgm:update", "taylor", "taylor:update"),
    *("dcp:losses=reconstruction", "dcp", "dcp:selection=exact"),
)

PROGRAM = Program("finetuned_quality", __doc__)
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
common.define_costs(PROGRAM)
PROGRAM.list("methods", list(METHODS), "Variants as in tools/compare.")
common.define_runs(PROGRAM, 3, train_samples=None, finetune_epochs=2)


def main(flags) -> None:
    """Prints a table and a verdict for each cost."""
    from dcp_tf.report import print_comparison
    from dcp_tf.tools.cli.method_specs import read_variants

    variants = read_variants(flags.methods, flags)
    at_costs = {
        cost: [dataclasses.replace(v, method=common.at_cost(v.method, cost)) for v in variants] for cost in flags.costs
    }
    bench = common.Bench(flags, "finetuned_quality", [v for some in at_costs.values() for v in some])
    for cost, some in at_costs.items():
        comparison = bench.run(cost, some)
        print_comparison(comparison)
        common.print_published(bench, comparison, common.TORCH_PRUNING_FINETUNED, "after 1 / 2 epochs of fine-tuning")
        for line in verdict(comparison):
            print(line, flush=True)


def verdict(comparison) -> list[str]:
    """Whether dcp is the best or within the spread of the best, and above random and l1, in words with figures."""
    from dcp_tf.report import summarize

    figure = "top1" if any(r.get("top1") is not None for r in comparison["runs"]) else "top1_before_finetuning"
    spreads = {method.name: method.figures[figure] for method in summarize(comparison) if method.runs}
    lines = []
    for name in [other for other in spreads if other == "dcp" or other.startswith("dcp:selection")]:
        best = max(spreads, key=lambda other: spreads[other].mean)
        gap, own = 100 * (spreads[best].mean - spreads[name].mean), spreads[name]
        spread = 100 * max(own.deviation or 0.0, spreads[best].deviation or 0.0)
        side = "within" if gap <= spread else "outside"
        below = f"is {gap:.2f} points below the best, {best} ({side} one standard deviation, {spread:.2f})"
        text = "is the best" if best == name else below
        above = [f"{100 * (own.mean - spreads[n].mean):+.2f} over {n}" for n in ("random", "l1") if n in spreads]
        lines.append("; ".join([f"{name} {text}", *above]))
    return lines


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
