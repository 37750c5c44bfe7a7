"""What the benchmarks share: their flags, runs that are kept as soon as they are done, and published figures."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.files import read_json, write_json
from dcp_tf.tools.app import comparison, run_summary
from dcp_tf.tools.cli import data_flags, pruning_flags
from dcp_tf.tools.cli.method_specs import Variant
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import read_training

# Torch-Pruning 1.6.1, one shot, on the weights and groups of two CIFAR-10 ResNets: by network and MACs removed (%) the
# top-1 (%) before fine-tuning, and after 1 and 2 epochs (lr .01, cosine) where that was measured.
TORCH_PRUNING = {
    ("resnet56", 30.5): {"l1": 82.2, "l2": 83.2, "fpgm": 82.0, "bn_scale": 79.6, "taylor": 62.4, "random": 44.9},
    ("resnet56", 49.6): {"l1": 43.9, "l2": 43.0, "fpgm": 37.9, "bn_scale": 23.8, "taylor": 18.2, "random": 12.5},
    ("resnet20", 30.3): {"l1": 64.6, "l2": 62.5, "fpgm": 51.2, "bn_scale": 30.8, "taylor": 37.4, "random": 19.7},
    ("resnet20", 49.2): {"l1": 25.3, "l2": 27.2, "fpgm": 21.2, "bn_scale": 14.0, "taylor": 22.3, "random": 14.1},
}
TORCH_PRUNING_FINETUNED = {
    ("resnet20", 30.3): {"l1": (89.5, 89.8), "l2": (89.3, 89.6)},
    ("resnet20", 49.2): {"l1": (86.3, 87.5), "l2": (86.3, 88.0)},
}
COSTS = ("69.5%", "50.4%")  # no more MACs than those


def define_model(program: Program) -> None:
    """`--model`, `--dataset` and their like."""
    data_flags.define_model(program)
    data_flags.define_dataset(program)
    data_flags.define_outputs(program)


def define_runs(program: Program, seeds: int, train_samples: int | None = 10000, finetune_epochs: int = 0) -> None:
    """Everything else that a benchmark needs which prunes with `Bench`.

    Unlike the programs it takes the plain rate, and trains auxiliary classifiers for one epoch.
    """
    program.defaults |= {"round_to": 1, "aux_epochs": 1, "finetune_epochs": finetune_epochs}
    program.integer("train_samples", train_samples, "Training images for everything, evenly of all classes.", lower=1)
    program.integer("seeds", seeds, "Runs of each variant.", lower=1)
    data_flags.define_seed(program, "The first seed.")
    program.section("Which channels go")
    pruning_flags.define_groups(program)
    pruning_flags.define_training(program)
    program.section("The record")
    program.path("output", None, "A JSON file that keeps every run.")
    program.boolean("resume", False, "Do not repeat the runs that --output holds.")


def define_costs(program: Program, where: str = "of the pruned models") -> None:
    """`--costs`."""
    program.list("costs", list(COSTS), f"Largest costs {where}: shares of the MACs such as 50%, or rates such as 0.5.")


def at_cost(method: Any, cost: str) -> Any:
    """The method at a share of the MACs ("50%") or at a rate ("0.5").

    Raises:
        UsageError: the text is neither.
    """
    from dcp_tf.pruning import Target

    if cost.endswith("%"):
        return dataclasses.replace(method, target=Target("macs", cost))
    try:
        return dataclasses.replace(method, rate=float(cost), target=None)
    except ValueError as error:
        raise UsageError(
            f"a cost is a share of the MACs such as 50%, or a rate such as 0.5, received {cost!r}"
        ) from error


class Bench:
    """Runs variants on one model; what is done is in `--output`.

    Args:
        flags: of `define_model` and `define_runs`.
        about: name of the benchmark, for the record.
        variants: all that will be asked for, checked here before anything runs.

    Raises:
        UsageError: something cannot be run.
    """

    def __init__(self, flags: Any, about: str, variants: Sequence[Variant]):
        self.flags = flags
        self.schedule = comparison.Schedule(
            read_training(flags, "auxiliary"),
            read_training(flags, "finetuning"),
            flags.distillation,
            flags.train_samples,
        )
        self.model_and_data = data_flags.load_model_and_data(flags)
        self.schedule = comparison.check(self.model_and_data, variants, self.schedule)
        self._output = None if flags.output is None else pathlib.Path(flags.output)
        self._state = tempfile.TemporaryDirectory()
        self.found = self._begin(about)

    def _begin(self, about: str) -> dict[str, Any]:
        conditions = comparison.conditions(self.model_and_data, self.schedule)
        if self.flags.resume and self._output is not None and self._output.exists():
            before = read_json(self._output)
            comparison.require_same(self._output, before["conditions"], conditions)
            return before
        self.model_and_data.announce()
        results = {
            "benchmark": about,
            "model": self.model_and_data.source,
            "dataset": self.model_and_data.dataset.name,
            "conditions": conditions,
            "settings": run_summary.settings_of(self.flags),
            "baseline": run_summary.measure_model(
                self.model_and_data.model, self.model_and_data.dataset, self.model_and_data.objective
            ),
            "runs": [],
        }
        self._save(results)
        return results

    def run(self, part: str, variants: Sequence[Variant], seeds: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Runs variants with their seeds.

        Args:
            part: of the benchmark; tells its runs from those of other parts.
            variants: what to run.
            seeds: how many, by label; `--seeds` for others.

        Returns:
            A comparison (see `dcp_tf.report.comparison`) of this part alone.
        """
        records = []
        for variant in variants:
            for seed in range(self.flags.seed, self.flags.seed + (seeds or {}).get(variant.label, self.flags.seeds)):
                records.append(self._run(part, variant, seed))
        return {key: self.found[key] for key in ("model", "dataset", "baseline")} | {"runs": records}

    def _run(self, part: str, variant: Variant, seed: int) -> dict[str, Any]:
        key = {"part": part, "method": variant.label, "seed": seed}
        settings = comparison.settings_of(variant)
        for record in self.found["runs"]:
            if all(record[k] == v for k, v in key.items()) and record["settings"] == settings:
                return record
        progress.say(f"{part}: {variant.label}, seed {seed}")
        record = (
            comparison.attempt(self.model_and_data, variant, seed, self.schedule, pathlib.Path(self._state.name)) | key
        )
        if "failure" not in record:  # else it is tried again with --resume
            self.found["runs"].append(record)
            self._save(self.found)
        return record

    def _save(self, results: Mapping[str, Any]) -> None:
        if self._output is not None:
            write_json(self._output, results)

    def macs_removed(self, record: Mapping[str, Any]) -> float:
        """Share of the baseline's MACs that a run's model does without, in percent."""
        return 100 * (1 - record["macs"] / self.found["baseline"]["macs"])


def published(model: str, removed: float, table: Mapping[tuple[str, float], Mapping[str, Any]]) -> str | None:
    """A line with the published figures of a network near a cost, None where there are none.

    Args:
        model: as `--model`.
        removed: MACs removed, in percent.
        table: `TORCH_PRUNING` or `TORCH_PRUNING_FINETUNED`.
    """
    for (network, macs), figures in table.items():
        if network in model and "pre" + network not in model and abs(macs - removed) < 2:
            shown = (
                f"{name} " + (" / ".join(map(str, value)) if isinstance(value, tuple) else str(value))
                for name, value in figures.items()
            )
            return f"Torch-Pruning 1.6.1 at -{macs} % MACs: {', '.join(shown)}"
    return None


def print_published(bench: Bench, comparison: Mapping[str, Any], table: Mapping, when: str) -> None:
    """Prints the published figures of the network beside a comparison, where there are some."""
    good = [record for record in comparison["runs"] if "failure" not in record]
    line = published(bench.model_and_data.source, bench.macs_removed(good[0]), table) if good else None
    if line:
        print(f"{line}: top-1 (%) {when}", flush=True)


def take_statistics(model: Any, images: Any) -> None:
    """Gives every BatchNormalization the mean and variance of what reaches it from these images.

    With those that it starts with, what random weights compute fades away or explodes in deep networks.
    """
    import keras

    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
