r"""How good is the selection? Top-1 right after surgery, before any fine-tuning, of every method at the same cost.

    python benchmarks/selection_quality.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --output=quality_resnet20.json

Choice and weight update are measured separately: every baseline runs alone and with the update that DCP makes
(NAME:update), DCP with both losses and with each of them, exact and fast. All prune the same groups within the same
MACs. Auxiliary fine-tuning is listed by itself; it is on --train_samples images. A stopped run resumes with --resume.
"""

import dataclasses
import sys

import common

from dcp_tf.tools.cli.program import Program

GUIDED = tuple(
    f"dcp{selection}{losses}"
    for selection in ("", ":selection=exact")
    for losses in ("", ":losses=reconstruction", ":losses=discrimination")
)

PROGRAM = Program("selection_quality", __doc__)
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
common.define_costs(PROGRAM)
PROGRAM.list("methods", [], "Variants as in tools/compare; default: all baselines, with and without update, and dcp.")
PROGRAM.integer("random_seeds", 3, "Runs of random choice; of the others --seeds.", lower=1)
common.define_runs(PROGRAM, seeds=1)


def main(flags) -> None:
    """Prints a table for each cost."""
    from dcp_tf.report import print_comparison
    from dcp_tf.tools.cli.method_specs import read_variants

    variants = read_variants(flags.methods or everything(), flags)
    at_costs = {
        cost: [dataclasses.replace(v, method=common.at_cost(v.method, cost)) for v in variants] for cost in flags.costs
    }
    bench = common.Bench(flags, "selection_quality", [v for some in at_costs.values() for v in some])
    seeds = dict.fromkeys(("random", "random:update"), flags.random_seeds)
    for cost, some in at_costs.items():
        comparison = bench.run(cost, some, seeds)
        print_comparison(comparison)
        common.print_published(bench, comparison, common.TORCH_PRUNING, "before fine-tuning")


def everything() -> list[str]:
    """All baselines, those that only rank channels without and with the update, and DCP."""
    from dcp_tf.pruning import METHODS, Criterion

    baselines = [name for name, method in METHODS.items() if "dcp" not in name and "dkp" not in name]
    baselines.remove("width_multiplier")  # before training it is a network of random weights
    updated = [f"{name}:update" for name in baselines if issubclass(METHODS[name], Criterion)]
    return [*baselines, *updated, *GUIDED]


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
