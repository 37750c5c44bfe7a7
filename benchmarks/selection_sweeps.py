r"""How the settings of the selection act: four tables.

    python benchmarks/selection_sweeps.py --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --data_dir=DIR \
        --mean=.485,.456,.406 --std=.229,.224,.225 --output=sweeps_resnet20.json

factor: DCP with several factors lambda of the reconstruction (both losses together should be no worse than either).
epsilon: Adapt-DCP with several epsilons (smaller ones should keep more channels and err less).
cap: Adapt-DCP with epsilon 0 at several eta_min: no group may keep more than ceil((1 - eta_min) c) channels.
dkp: kernels against channels at equal MACs without zeros (DKP should be at least as accurate).

Top-1 is measured before fine-tuning, and after it with --finetune_epochs. --sweeps=cap,dkp runs these alone. A stopped
run resumes with --resume.
"""

import dataclasses
import itertools
import math
import statistics
import sys

import common

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.method_specs import Variant
from dcp_tf.tools.cli.program import Program

SWEEPS = ("factor", "epsilon", "cap", "dkp")

PROGRAM = Program("selection_sweeps", __doc__)
common.define_model(PROGRAM)
PROGRAM.section("What is measured")
PROGRAM.list("sweeps", list(SWEEPS), "Which sweeps.")
PROGRAM.list("factors", ["0", "0.1", "0.3", "1", "3", "10", "inf"], "lambda; 0: discrimination, inf: reconstruction.")
PROGRAM.list("epsilons", ["1e-2", "3e-3", "1e-3", "3e-4", "1e-4", "0"], "epsilon of Adapt-DCP.")
PROGRAM.list("least_rates", ["0.3", "0.5"], "eta_min of the sweep cap.")
common.define_costs(PROGRAM, "of the sweep dkp")
common.define_runs(PROGRAM, seeds=1)


def main(flags) -> None:
    """Prints a table for each sweep, and in a line what it shows."""
    from dcp_tf.report import print_comparison

    unknown = sorted(set(flags.sweeps) - set(SWEEPS))
    if unknown:
        raise UsageError(f"--sweeps: unknown sweep {unknown[0]!r}; choose among {', '.join(SWEEPS)}")
    parts = {name: VARIANTS[name](flags) for name in flags.sweeps}
    bench = common.Bench(flags, "selection_sweeps", [v for variants in parts.values() for v in variants])
    for name, variants in parts.items():
        comparison = bench.run(name, variants)
        print_comparison(comparison)
        for line in FINDINGS[name](comparison):
            print(line, flush=True)


def factors(flags) -> list[Variant]:
    """DCP with several lambdas at the rate or target of the flags."""
    dcp = method(flags, "dcp")
    variants = []
    for text, factor in zip(flags.factors, numbers(flags, "factors"), strict=True):
        losses = {"reconstruction": factor, "discrimination": 1.0}
        if math.isinf(factor):
            losses = {"reconstruction": 1.0, "discrimination": 0.0}
        variants.append(Variant(f"lambda={text}", dataclasses.replace(dcp, **losses)))
    return variants


def epsilons(flags) -> list[Variant]:
    """Adapt-DCP with several epsilons."""
    adaptive = method(flags, "adapt_dcp")
    return [
        Variant(f"epsilon={text}", dataclasses.replace(adaptive, epsilon=epsilon))
        for text, epsilon in zip(flags.epsilons, numbers(flags, "epsilons"), strict=True)
    ]


def caps(flags) -> list[Variant]:
    """Adapt-DCP that only the cap stops."""
    adaptive = method(flags, "adapt_dcp")
    return [
        Variant(f"eta_min={text}", dataclasses.replace(adaptive, epsilon=0.0, rate=rate, target=None))
        for text, rate in zip(flags.least_rates, numbers(flags, "least_rates"), strict=True)
    ]


def kernels(flags) -> list[Variant]:
    """DCP and DKP at the same costs."""
    return [
        Variant(f"{name} at {cost}", common.at_cost(method(flags, name), cost))
        for cost in flags.costs
        for name in ("dcp", "dkp")
    ]


def method(flags, name: str):
    """A method with the settings of the flags."""
    from dcp_tf.tools.cli.method_specs import read_variants

    return read_variants([name], flags)[0].method


def numbers(flags, name: str) -> list[float]:
    """The numbers of a flag.

    Raises:
        UsageError: one is none.
    """
    try:
        return [float(text) for text in flags[name].value]
    except ValueError as error:
        raise UsageError(f"--{name} takes numbers with commas between them, received {flags[name].value}") from error


def figures(comparison) -> dict[str, dict[str, float]]:
    """By variant: mean error (%) after fine-tuning, or before it where there is none, and channels kept."""
    from dcp_tf.report import summarize

    kept: dict[str, list[int]] = {}
    for record in (r for r in comparison["runs"] if "failure" not in r):
        kept.setdefault(record["method"], []).append(sum(k for k, _ in record["kept"].values()))
    return {
        m.name: {
            "error": 100 * (1 - m.figures["top1" if "top1" in m.figures else "top1_before_finetuning"].mean),
            "kept": statistics.fmean(kept[m.name]),
        }
        for m in summarize(comparison)
        if m.runs
    }


def findings_of_factors(comparison) -> list[str]:
    """Both losses against each alone."""
    errors = {name.removeprefix("lambda="): f["error"] for name, f in figures(comparison).items()}
    both = {name: error for name, error in errors.items() if 0 < float(name) < math.inf}
    if not both:
        return []
    best = min(both, key=both.get)
    alone = {{"0": "discrimination"}.get(n, "reconstruction"): e for n, e in errors.items() if n not in both}
    against = [f"{name} alone {error:.2f} %" for name, error in alone.items()]
    return ["; ".join([f"error with both losses {both[best]:.2f} % (lambda {best})", *against])]


def findings_of_epsilons(comparison) -> list[str]:
    """Channels kept and error from the largest to the smallest epsilon."""
    by_size = sorted(figures(comparison).items(), key=lambda item: -float(item[0].removeprefix("epsilon=")))
    kept = [f["kept"] for _, f in by_size]
    rises = all(a <= b for a, b in itertools.pairwise(kept))
    lines = [f"{name}: {f['kept']:g} channels kept, error {f['error']:.2f} %" for name, f in by_size]
    return [*lines, f"smaller epsilons keep {'no fewer' if rises else 'FEWER'} channels"]


def findings_of_caps(comparison) -> list[str]:
    """The group that comes nearest to its cap, or passes it."""
    lines = []
    for record in (r for r in comparison["runs"] if "failure" not in r):
        least = record["settings"]["rate"]
        over = max(kept - math.ceil(round((1 - least) * size, 9)) for kept, size in record["kept"].values())
        result = f"within the cap (nearest: {-over} below)" if over <= 0 else f"PASSES THE CAP by {over}"
        lines.append(f"{record['method']}, seed {record['seed']}: {result}")
    return lines


def findings_of_kernels(comparison) -> list[str]:
    """DKP against DCP at each cost."""
    errors = {name: f["error"] for name, f in figures(comparison).items()}
    costs = [name.removeprefix("dcp at ") for name in errors if name.startswith("dcp at ")]
    return [
        f"at {cost}: dkp errs {errors[f'dkp at {cost}'] - errors[f'dcp at {cost}']:+.2f} points against dcp"
        for cost in costs
        if f"dkp at {cost}" in errors
    ]


VARIANTS = {"factor": factors, "epsilon": epsilons, "cap": caps, "dkp": kernels}
FINDINGS = {
    "factor": findings_of_factors,
    "epsilon": findings_of_epsilons,
    "cap": findings_of_caps,
    "dkp": findings_of_kernels,
}


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
