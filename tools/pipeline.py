"""The main job: prune, rebuild, fine-tune, export, measure, report."""

import pathlib
import time
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import RunError
from dcp_tf.files import remove_leftovers
from dcp_tf.tools import artefacts, latency_target
from dcp_tf.tools.common_flags import Subject
from dcp_tf.tools.pruning_flags import Job, settings_of


def foresee(subject: Subject, job: Job) -> str:
    """Finds in moments all that can be wrong with the input, and says in one line what the job will do.

    Raises:
        UsageError: the flags, the model and the data do not go together.
    """
    from dcp_tf.pruning import check
    from dcp_tf.pruning.units import kernel_units

    model, method = subject.model, job.method
    graph, groups = check(model, subject.dataset.train, method, subject.objective, job.distillation)
    parts = [_count(len(groups), "group") + " of channels to prune"]
    if method.chooses_kernels:
        layers = _count(len(kernel_units(graph, method.excludes)), "layer")
        parts = [*parts * method.chooses_channels, f"{layers} of kernels to prune"]
    streams = 0 if method.prune_residual else len(graph.prunable(True)) - len(graph.prunable(False))
    if streams:
        parts.append(f"{_count(streams, 'residual stream')} stay{'s' * (streams == 1)}")
    if method.exclude:
        parts.append(f"{len(method.exclude)} excluded")
    pinned = sum(g.pinned_because is not None for g in graph.groups)
    if pinned:
        parts.append(f"{pinned} pinned")
    return f"{', '.join(parts)} (inspect_model lists them)"


def run(
    flags: Any, subject: Subject, job: Job, folder: pathlib.Path, started: float, phases: list[dict] | None = None
) -> None:
    """Everything after the baseline is there, down to the printed table.

    Args:
        flags: of `prune` or `quickstart`.
        subject: the baseline and its data.
        job: what to do; `foresee` found nothing wrong with it.
        folder: of the run; it exists.
        started: `time.time()` at the start.
        phases: what was done before.

    Raises:
        UsageError: the run cannot be resumed with these flags; nothing was written.
        RunError: a phase failed, a TFLite file does not equal its model, or the target latency was missed; what was
            made before is there.
    """
    from dcp_tf.pruning import prune
    from dcp_tf.report import print_summary, write_report
    from dcp_tf.training import save_model

    remove_leftovers(folder)
    result = prune(
        subject.model,
        subject.dataset.train,
        job.method,
        validation_data=subject.dataset.test if subject.dataset.test.labels is not None else None,
        objective=subject.objective,
        auxiliary=job.auxiliary,
        finetuning=job.finetuning,
        distillation=job.distillation,
        state_dir=folder / "state" / "pruning",
        resume=flags.resume,
        log_dir=str(folder / "events"),
        seed=flags.seed,
    )
    save_model(subject.model, folder / "baseline.keras")
    save_model(result.model, folder / "pruned.keras")
    result.plan.save(folder / "plan.json")
    models = {"baseline": subject.model, "pruned": result.model}
    measured = {n: artefacts.measure_model(m, subject.dataset, subject.objective) for n, m in models.items()}
    metric = subject.objective.primary
    if metric in result.before_finetuning:
        measured["pruned"][f"{metric}_before_finetuning"] = result.before_finetuning[metric]
    deploying = time.perf_counter()
    artefacts.remove_files(folder, models)
    files, failures = artefacts.deploy(models, subject.dataset, subject.objective, folder, job.deployment, flags.seed)
    checked = {}
    if job.latency and files:
        widths = {group.name: len(group.kept) for group in result.plan.groups}
        checked["target_latency"], line = latency_target.judge(job.latency, widths, files)
        progress.say(line)
        failures += [line] * (checked["target_latency"]["met"] is False)
    phases = [*(phases or []), *result.history, {"name": "deployment", "seconds": time.perf_counter() - deploying}]
    summary = artefacts.write_summary(
        folder,
        started,
        model=subject.source,
        dataset=subject.dataset.name,
        method=job.method.name,
        normalization=subject.normalization,
        outputs=subject.outputs_kind,
        loss=subject.objective.name,
        metric=metric,
        settings=settings_of(flags),
        seed=flags.seed,
        **measured,
        **checked,
        tflite=files,
        failures=failures,
        phases=phases,
    )
    write_report(folder)
    print_summary(summary)
    progress.say(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    if failures:
        raise RunError("; ".join(failures))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
