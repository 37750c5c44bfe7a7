"""The main job: prune, rebuild, fine-tune, export, measure, report."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import RunError
from dcp_tf.files import remove_leftovers
from dcp_tf.tools.app import baseline, deployment, file_target, latency_target, run_summary, unlabelled
from dcp_tf.tools.app.failures import collect
from dcp_tf.tools.app.reload_check import disagreements, reload_records
from dcp_tf.tools.cli.data_flags import ModelAndData
from dcp_tf.tools.cli.pruning_flags import Job


def run(
    flags: Any,
    subject: ModelAndData,
    job: Job,
    folder: pathlib.Path,
    started: float,
    phases: list[dict] | None = None,
    baseline_check: Any = None,
) -> None:
    """Everything after the baseline is there, down to the printed table.

    Args:
        flags: of `prune` or `quickstart`.
        subject: the baseline and its data.
        job: what to do; `preflight.check_job` found nothing wrong with it.
        folder: of the run; it exists.
        started: `time.time()` at the start.
        phases: what was done before.
        baseline_check: what `baseline.report_baseline` returned; None for a baseline that was trained just now.

    Raises:
        UsageError: the run cannot be resumed with these flags; nothing was written.
        RunError: a phase failed, a TFLite file does not equal its model, or the target latency was missed; what was
            made before is there.
    """
    from dcp_tf.report import print_summary, write_report

    remove_leftovers(folder)
    baseline_check = baseline_check or baseline.report_baseline(flags, subject, is_trained=True)
    result = _prune(flags, subject, job, folder)
    models = _save(subject, result, folder)
    measured = _measure(subject, models, result, baseline_check)
    reference = unlabelled.reference(subject.model, subject.dataset, subject.objective)
    if reference is not None:
        measured["pruned"] |= reference.compare(result.model)
        for line in reference.remarks({"the pruned model": measured["pruned"]}):
            progress.say(line)
    deploying = time.perf_counter()
    failures: list[str] = []
    reloaded = reload_records(folder, models, subject.dataset, flags, failures)
    files, undeployed = _deploy(flags, subject, job, models, folder, reference)
    failures += undeployed + disagreements(measured, files, subject.objective.primary)
    checked, missed = {}, []
    with collect(failures, "the target latency", flags.debug):
        checked, missed = _judge_latency(job, result.plan, files)
    failures += missed
    with collect(failures, "the target of the file", flags.debug):
        checked |= _judge_file(job, files, failures)
    phases = [*(phases or []), *result.history, {"name": "deployment", "seconds": time.perf_counter() - deploying}]
    content = {"method": job.method.name, **measured, **checked, "reload_check": reloaded, "tflite": files}
    content |= {"failures": failures, "phases": phases}
    if reference is not None:
        content["metric"] = reference.metric
    resolved = _resolved(subject, job)
    summary = run_summary.write_summary(folder, started, subject, flags, resolved, baseline_check, **content)
    with collect(failures, "report.html", flags.debug):
        write_report(folder)
    with collect(failures, "the printed table", flags.debug):
        print_summary(summary)
    progress.say(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    if failures:
        raise RunError("; ".join(failures))


def _prune(flags: Any, subject: ModelAndData, job: Job, folder: pathlib.Path) -> Any:
    """The `dcp_tf.PruneResult`; what the run has done lies in the folder's `state`."""
    from dcp_tf.pruning import prune

    return prune(
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
        looks_at_baseline=False,  # which was done
        seed=flags.seed,
    )


def _resolved(subject: ModelAndData, job: Job) -> dict[str, Any]:
    """What the run took where flags were not given."""
    from dcp_tf.training import distillation_weight

    method = job.method
    of_method = ("auxiliary_losses", "auxiliary_trains", "score", "selection_passes")
    resolved = {name: getattr(method, name) for name in of_method if hasattr(method, name)}
    if method.guided:
        resolved |= {"selection_passes": method.passes}
    if method.uses_heads and not method.per_stage:
        resolved |= {"auxiliary_trains": method.auxiliary_trains or "heads"}
    share = distillation_weight(subject.objective.loss, job.distillation)
    return {**resolved, "distillation": share, "allocation": method.allocates}


def _save(subject: ModelAndData, result: Any, folder: pathlib.Path) -> dict[str, Any]:
    """Writes baseline, pruned model and plan, and returns the models by the names of their files."""
    from dcp_tf.training import save_model

    models = {"baseline": subject.model, "pruned": result.model}
    for name, model in models.items():
        save_model(model, folder / f"{name}.keras")
    result.plan.save(folder / "plan.json")
    return models


def _measure(subject: ModelAndData, models: Mapping[str, Any], result: Any, baseline_check: Any) -> dict[str, dict]:
    """Costs and figures of the Keras models, as summary.json holds them; the baseline's figures may be known."""
    dataset, objective = subject.dataset, subject.objective
    known = run_summary.known_figures(baseline_check)
    measured = {"baseline": run_summary.measure_model(models["baseline"], dataset, objective, known)}
    count_zeros = bool(result.plan.kernels) or "kernel_sparsity" in measured["baseline"]
    pruned = run_summary.measure_model(models["pruned"], dataset, objective, count_zero_kernels=count_zeros)
    if objective.primary in result.before_finetuning:
        pruned[f"{objective.primary}_before_finetuning"] = result.before_finetuning[objective.primary]
    return {**measured, "pruned": pruned}


def _deploy(
    flags: Any, subject: ModelAndData, job: Job, models: Mapping[str, Any], folder: pathlib.Path, reference: Any
) -> tuple[dict[str, dict], list[str]]:
    """The TFLite files in place of an earlier run's; see `deployment.deploy`."""
    deployment.remove_files(folder, models)
    dataset, objective = subject.dataset, subject.objective
    return deployment.deploy(models, dataset, objective, folder, job.deployment, flags.seed, reference)


def _judge_latency(job: Job, plan: Any, files: Mapping[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """What came of `--target_latency` for summary.json, and a line of failure where it was missed."""
    if not (job.latency and files):
        return {}, []
    widths = {group.name: len(group.kept) for group in plan.groups}
    judgement, line = latency_target.judge(job.latency, widths, files)
    progress.say(line)
    return {"target_latency": judgement}, [line] * (judgement["met"] is False)


def _judge_file(job: Job, files: Mapping[str, dict], failures: list[str]) -> dict[str, dict]:
    """What came of `--target_file` for summary.json; a line is added to `failures` where it was missed."""
    if job.file is None:
        return {}
    record, line, met = file_target.judge(job.file, files)
    progress.say(line)
    failures += [line] * (met is False)
    return {"target_file": record}
