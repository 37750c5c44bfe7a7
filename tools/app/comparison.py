"""Runs several methods with several seeds on one model, and keeps every finished run."""

import dataclasses
import gc
import json
import os
import pathlib
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf import progress
from dcp_tf.changed_settings import describe_changes
from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import read_json, write_json
from dcp_tf.tools.app import run_summary
from dcp_tf.tools.cli import joint_outputs
from dcp_tf.tools.cli.data_flags import ModelAndData
from dcp_tf.tools.cli.method_specs import Variant
from dcp_tf.tools.cli.training_flags import as_compiled

FILE = "compare.json"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How all variants are trained.

    Attributes:
        auxiliary: the training with auxiliary losses.
        finetuning: the training of the pruned models.
        distillation: weight of the distillation loss; None as in `dcp_tf.prune`.
        train_samples: number of training images to use; None: all.
        class_weight: as the flag says, None for none; the data have it as sample weights.
        context: model, data and settings as `check` resolved them.
    """

    auxiliary: Any
    finetuning: Any
    distillation: float | None = None
    train_samples: int | None = None
    class_weight: str | None = None
    context: Any = None

    def images(self, train: Any, seed: int) -> Any:
        """The training images of one seed."""
        if self.train_samples is None or self.train_samples >= train.size:
            return train
        return train.take(train.balanced_subset(self.train_samples, seed))

    def to_json(self) -> dict[str, Any]:
        """All settings except the distillation, by name; seeds belong to the runs."""
        phases = {"auxiliary": dataclasses.asdict(self.auxiliary), "finetuning": dataclasses.asdict(self.finetuning)}
        settings = {f"{phase} {k}": v for phase, config in phases.items() for k, v in config.items() if k != "seed"}
        return settings | {"train_samples": self.train_samples, "class_weight": self.class_weight}


def check(model_and_data: ModelAndData, variants: Sequence[Variant], schedule: Schedule) -> Schedule:
    """Checks the input before anything runs, and returns the schedule with its context.

    Raises:
        UsageError: the model, the data and the variants do not fit together.
    """
    from dcp_tf.pruning import prepare

    if model_and_data.dataset.test.labels is None:
        names = joint_outputs.names_of_labels(model_and_data)
        raise UsageError(f"methods are compared by their accuracy: the test images need labels{names}")
    context = prepare(
        model_and_data.model,
        model_and_data.dataset.train,
        variants[0].method,
        validation_data=model_and_data.dataset.test,
        objective=model_and_data.objective,
        auxiliary=schedule.auxiliary,
        finetuning=as_compiled(schedule.finetuning, model_and_data, "fine-tuning"),
        distillation=schedule.distillation,
    )
    for variant in variants[1:]:
        context.rebind(variant.method)
    return dataclasses.replace(schedule, finetuning=context.finetuning, context=context)


def read_earlier(
    folder: str | os.PathLike, model_and_data: ModelAndData, variants: Sequence[Variant], schedule: Schedule
) -> dict[str, Any] | None:
    """The stopped comparison in a folder; None if there is none.

    Raises:
        UsageError: it ran under other conditions, or its file is damaged.
    """
    path = pathlib.Path(folder) / FILE
    if not path.exists():
        return None
    before = read_json(path)
    if not isinstance(before, dict) or not {"conditions", "runs", "baseline"} <= before.keys():
        raise UsageError(f"{path} is not a comparison; leave out --resume to start over")
    require_same(path, before["conditions"], conditions(model_and_data, schedule))
    for variant in variants:
        for record in before["runs"]:
            if record["method"] == variant.label:
                require_same(path, record["settings"], settings_of(variant))
    return before


def run(
    model_and_data: ModelAndData,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    schedule: Schedule,
    folder: pathlib.Path,
    baseline_check: Any,
    before: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs every variant with every seed; compare.json in the folder always holds the finished runs.

    Args:
        model_and_data: the model and its data, checked by `check`.
        variants: what to compare.
        seeds: the runs of each variant.
        schedule: of all variants, as `check` returned it.
        folder: for compare.json, and for the state that a stopped comparison resumes from (`state/`).
        baseline_check: what `baseline.report_baseline` returned.
        before: what `read_earlier` returned; only its failed runs run again.
        settings: the flags, for the record.

    Returns:
        The content of compare.json. A failed run has a `failure` in place of its figures.

    Raises:
        RunError: compare.json cannot be written.
    """
    state = folder / "state"
    if before is None:
        shutil.rmtree(state, ignore_errors=True)
        graph = schedule.context.graph
        measured = run_summary.measure_model(
            graph, model_and_data.dataset, model_and_data.objective, baseline_check.figures
        )
        before = {"baseline": measured, "runs": []}
    content = {
        **run_summary.provenance(model_and_data, baseline_check),
        "conditions": conditions(model_and_data, schedule),
        "settings": _plain(settings or {}),
        "metrics": list(model_and_data.objective.primaries),
        "baseline": before["baseline"],
        "runs": [record for record in before["runs"] if "failure" not in record],
    }
    done = {(record["method"], record["seed"]) for record in content["runs"]}
    # Seed by seed, so that a stopped comparison can compare methods.
    waiting = [(v, seed) for seed in seeds for v in variants if (v.label, seed) not in done]
    write_json(folder / FILE, content)
    started = time.perf_counter()
    for number, (variant, seed) in enumerate(waiting, start=1):
        progress.say(f"run {number} of {len(waiting)}: {variant.label}, seed {seed}")
        content["runs"].append(attempt(model_and_data, variant, seed, schedule, state))
        write_json(folder / FILE, content)
        left = (time.perf_counter() - started) / number * (len(waiting) - number)
        progress.say(_line(content["runs"][-1], left))
    return content


def measure(
    model_and_data: ModelAndData, variant: Variant, seed: int, schedule: Schedule, state: pathlib.Path | None = None
) -> dict[str, Any]:
    """Prunes and fine-tunes once.

    Args:
        model_and_data: the model and its data.
        variant: how to prune.
        seed: of all random choices.
        schedule: how to train, as `check` returned it.
        state: folder that a stopped run resumes from, and in which variants share the auxiliary fine-tuning.

    Returns:
        Cost (for methods that choose kernels also the MACs without zeros), kept and all channels of each group, the
        main figures before and after fine-tuning and after each epoch, and seconds. The seconds of a selection that
        was resumed are None. Seconds of training include the evaluation after each epoch.
    """
    from dcp_tf.graph import ChannelGraph, count_cost, nominal_macs
    from dcp_tf.pruning import prune_prepared

    own = None if state is None else state / f"{zlib.crc32(repr(variant).encode()):08x}_{seed}"
    stopped = own is not None and (own / "selection.npz").exists()
    context = schedule.context.rebind(
        variant.method,
        schedule.images(model_and_data.dataset.train, seed),
        state_dir=own,
        resume=True,
        shared_dir=None if state is None else state / "shared",
        seed=seed,
    )
    result = prune_prepared(context, looks_at_baseline=False)
    seconds = {phase["name"]: phase["seconds"] for phase in result.history}
    trained = {p["name"]: sum(e["seconds"] for e in p["history"]) for p in result.history if "history" in p}
    finetuning = trained.pop("fine-tuning", 0.0)
    stages = sum(seconds[name] for name in trained if name != "auxiliary")  # included in the selection
    graph = ChannelGraph(result.model, context.shapes)
    cost = count_cost(graph)
    tuned = next((p for p in result.history if p["name"] == "fine-tuning"), {"history": []})
    figures: dict[str, Any] = {}
    for metric in [m for m in model_and_data.objective.primaries if m in result.before_finetuning]:
        before, epochs = result.before_finetuning[metric], [entry[metric] for entry in tuned["history"]]
        kept = _of_kept_epoch(tuned, before, epochs)
        figures |= {f"{metric}_before_finetuning": before, metric: kept, f"{metric}_by_epoch": epochs}
    if own is not None:
        shutil.rmtree(own, ignore_errors=True)
    return {
        "method": variant.label,
        "seed": seed,
        "settings": settings_of(variant),
        "params": cost.params,
        "macs": cost.macs,
        "flops": cost.flops,
        **({"nominal_macs": nominal_macs(graph)} if result.plan.kernels else {}),
        "kept": {group.name: [len(group.kept), group.size] for group in result.plan.groups},
        **figures,
        "auxiliary_seconds": sum(trained.values()),
        "selection_seconds": None if stopped else seconds["selection"] - stages,
        "finetuning_seconds": finetuning,
    }


def _of_kept_epoch(tuned: Mapping[str, Any], before: float, epochs: Sequence[float]) -> float | None:
    """A figure of the weights that fine-tuning kept; None without fine-tuning."""
    held_out = tuned.get("held_out")
    if not epochs or held_out is None:
        return epochs[-1] if epochs else None
    return epochs[held_out["kept_epoch"] - 1] if held_out["kept_epoch"] else before


def attempt(
    model_and_data: ModelAndData, variant: Variant, seed: int, schedule: Schedule, state: pathlib.Path
) -> dict[str, Any]:
    """As `measure`, but an error becomes the `failure` of the record."""
    try:
        return measure(model_and_data, variant, seed, schedule, state)
    except RunError as error:
        return {"method": variant.label, "seed": seed, "settings": settings_of(variant), "failure": str(error)}
    finally:
        gc.collect()


def conditions(model_and_data: ModelAndData, schedule: Schedule) -> dict[str, Any]:
    """Everything that the figures depend on, apart from the variant and the seed."""
    from dcp_tf.models.weights_digest import weights_digest
    from dcp_tf.training import distillation_weight

    return _plain(
        {
            "weights": weights_digest(model_and_data.model),
            "dataset": model_and_data.dataset.name,
            "train_images": model_and_data.dataset.train.size,
            "test_images": model_and_data.dataset.test.size,
            "normalization": str(getattr(model_and_data.dataset.train, "normalization", None)),
            "augmentation": getattr(model_and_data.dataset.train, "augmentation", None),
            "objective": repr(model_and_data.objective),
            **schedule.to_json(),
            "distillation": distillation_weight(model_and_data.objective.loss, schedule.distillation),
        }
    )


def settings_of(variant: Variant) -> dict[str, Any]:
    """The settings of a variant as compare.json holds them."""
    return _plain(variant.method.settings())


def require_same(path: pathlib.Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UsageError unless the runs in a file were made under the current conditions."""
    changes, names = describe_changes(before, now)
    if changes:
        raise UsageError(f"cannot resume {path} under other conditions ({changes}); leave out --resume", setting=names)


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON."""
    return json.loads(json.dumps(value, default=str))


def _line(record: Mapping[str, Any], left: float) -> str:
    from dcp_tf.report import formats

    name = f"{record['method']}, seed {record['seed']}"
    if "failure" in record:
        return f"{name} failed: {record['failure']}"
    metric = next(key.removesuffix("_before_finetuning") for key in record if key.endswith("_before_finetuning"))
    parts = [f"{name}: {metric} {record[f'{metric}_before_finetuning']:.4f} before fine-tuning"]
    parts += [f"{record[metric]:.4f} after"] if record[metric] is not None else []
    return ", ".join(parts) + (f"; about {formats.duration(left)} to go" if left else "")
