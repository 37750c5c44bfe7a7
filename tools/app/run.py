"""The run of `prune` and `quickstart`: prune, rebuild, fine-tune, export, measure, report."""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import RunError
from dcp_tf.files import remove_leftovers
from dcp_tf.text_table import text_table
from dcp_tf.tools.app import answers, baseline, deployment, file_target, latency_target, run_summary, unlabelled
from dcp_tf.tools.app.failures import collect
from dcp_tf.tools.app.file_remarks import remarks
from dcp_tf.tools.app.reload_check import disagreements, reload_records
from dcp_tf.tools.cli.data_flags import ModelAndData
from dcp_tf.tools.cli.pruning_flags import Job
from dcp_tf.tools.cli.training_flags import optimizer_of


def run(
    flags: Any,
    model_and_data: ModelAndData,
    job: Job,
    folder: pathlib.Path,
    started: float,
    phases: list[dict] | None = None,
    baseline_check: Any = None,
) -> None:
    """Runs all steps after the baseline, up to the printed table.

    Args:
        flags: of `prune` or `quickstart`.
        model_and_data: the baseline and its data.
        job: what to do, as `preflight.check_job` returned it; its method and the training images may be others now.
        folder: of the run, which exists.
        started: `time.time()` at the start.
        phases: earlier phases, such as the training of the baseline.
        baseline_check: what `baseline.report_baseline` returned; None for a baseline that was trained just now.

    Raises:
        UsageError: the run cannot be resumed with these flags; nothing was written.
        RunError: a phase failed, a TFLite file does not equal its model, or a target was missed; the results
            of earlier steps are kept.
    """
    from dcp_tf.report import print_summary, write_report

    remove_leftovers(folder)
    baseline_check = baseline_check or baseline.report_baseline(flags, model_and_data, is_trained=True)
    result = _prune(flags, model_and_data, job, folder)
    models = {"baseline": model_and_data.model, "pruned": result.model}
    measured = _measure(model_and_data, job.context.graph, result, baseline_check)
    reference = unlabelled.reference(model_and_data.model, model_and_data.dataset, model_and_data.objective)
    if reference is not None:
        measured["pruned"] |= reference.compare(result.model)
        for line in reference.remarks({"the pruned model": measured["pruned"]}):
            progress.say(line)
    deploying = time.perf_counter()
    failures: list[str] = []
    reloaded = reload_records(folder, models, model_and_data.dataset, flags, failures)
    deployment.remove_files(folder, models)  # of an earlier run
    files, not_deployed = deployment.deploy(
        models, model_and_data.dataset, model_and_data.objective, folder, job.deployment, flags.seed, reference
    )
    failures += not_deployed + disagreements(measured, files, model_and_data.objective.primary)
    targets = _judge_targets(job, result.plan, files, folder, failures, flags.debug)
    phases = [*(phases or []), *result.history, {"name": "deployment", "seconds": time.perf_counter() - deploying}]
    content = {"method": job.method.name, **measured, **targets, "reload_check": reloaded, "tflite": files}
    content |= {"failures": failures, "phases": phases, "layers": _layers(job.context.graph, result.plan)}
    content["advice"] = [*(phase["advice"] for phase in phases if "advice" in phase), *remarks(files)]
    if job.steps > 1:
        content["steps"] = list(result.steps)
        for line in step_lines(result.steps, model_and_data.objective.primary):
            progress.say(line)
    if reference is not None:
        content |= reference.for_summary()
    resolved = _resolved(model_and_data, job)
    summary = run_summary.write_summary(folder, started, model_and_data, flags, resolved, baseline_check, **content)
    with collect(failures, answers.FILE, flags.debug):
        answers.write_answers(model_and_data, folder)
    with collect(failures, "report.html", flags.debug):
        write_report(folder)
    with collect(failures, "the printed table", flags.debug):
        print_summary(summary)
    progress.say(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    if failures:
        raise RunError("; ".join(failures))


def _prune(flags: Any, model_and_data: ModelAndData, job: Job, folder: pathlib.Path) -> Any:
    """Prunes what was checked, with what changed since, and saves both models and the plan; a `PruneResult`."""
    from dcp_tf.pruning import prune_prepared
    from dcp_tf.pruning.steps import prune_in_steps
    from dcp_tf.training import save_model

    context = job.context.rebind(
        job.method,
        model_and_data.dataset.train,
        state_dir=folder / "state" / "pruning",
        resume=flags.resume,
        log_dir=str(folder / "events"),
        seed=flags.seed,
    )
    if job.steps == 1:
        result = prune_prepared(context, looks_at_baseline=False)  # it was measured before
    else:
        result = prune_in_steps(
            context,
            job.steps,
            state_dir=folder / "state" / "pruning",
            resume=flags.resume,
            log_dir=str(folder / "events"),
        )
    save_model(model_and_data.nested(model_and_data.model), folder / "baseline.keras")
    save_model(model_and_data.nested(result.model), folder / "pruned.keras")
    result.plan.save(folder / "plan.json")
    return result


def step_lines(steps: Sequence[Mapping[str, Any]], primary: str) -> list[str]:
    """A table of the steps: what the model costs after each, and how good it is."""
    measured = all(primary in step for step in steps)
    rows = [
        (s["step"], s["params"], s["macs"], *[f"{s[primary]:.4f}" for _ in range(measured)], f"{s['seconds']:.0f}")
        for s in steps
    ]
    columns = ("step", "parameters", "MACs", *[primary] * measured, "seconds")
    return text_table("pruned in steps", columns, rows).split("\n")


def _resolved(model_and_data: ModelAndData, job: Job) -> dict[str, Any]:
    """The values that the run used for flags that were not given."""
    from dcp_tf.training import distillation_weight

    method = job.method
    of_method = ("auxiliary_losses", "auxiliary_trains", "score", "selection_passes")
    resolved = {name: getattr(method, name) for name in of_method if hasattr(method, name)}
    if method.guided:
        resolved |= {"selection_passes": method.passes}
    if method.uses_heads and not method.per_stage:
        resolved |= {"auxiliary_trains": method.auxiliary_trains or "heads"}
    share = distillation_weight(model_and_data.objective.loss, job.distillation)
    resolved |= optimizer_of(job.context.finetuning) if job.finetuning.epochs else {}
    return {**resolved, "distillation": share, "allocation": method.allocates}


def _measure(model_and_data: ModelAndData, graph: Any, result: Any, baseline_check: Any) -> dict[str, dict]:
    """Costs and figures of the baseline, which has this graph, and of the pruned model, as summary.json holds them."""
    dataset, objective = model_and_data.dataset, model_and_data.objective
    known = run_summary.known_figures(baseline_check)
    measured = {"baseline": run_summary.measure_model(graph, dataset, objective, known)}
    count_zeros = bool(result.plan.kernels) or "kernel_sparsity" in measured["baseline"]
    known = None
    if dataset.test.labels is not None:
        predict = answers.recorded(model_and_data, "pruned", result.model)
        known = run_summary.measure_figures(predict, dataset, objective)
    pruned = run_summary.measure_model(result.model, dataset, objective, known, count_zero_kernels=count_zeros)
    before = result.before_finetuning
    pruned |= {f"{name}_before_finetuning": before[name] for name in objective.primaries if name in before}
    return {**measured, "pruned": pruned}


def _layers(graph: Any, plan: Any) -> list[dict[str, Any]]:
    """The widths of the baseline, which has this graph, before and after."""
    from dcp_tf.graph.cost import layer_widths

    return layer_widths(graph, plan.kept(graph))


def _judge_targets(
    job: Job, plan: Any, files: Mapping[str, dict], folder: pathlib.Path, failures: list[str], debug: bool
) -> dict[str, dict]:
    """The `target_latency`, `target_file` or `target_ram` part of summary.json; a miss adds a line to `failures`."""
    judges: dict[str, Callable] = {}
    if job.latency and files:
        widths = {group.name: len(group.kept) for group in plan.groups}
        judges["target_latency"] = lambda: latency_target.judge(job.latency, widths, files, folder)
    if job.file:
        judges[f"target_{job.file.measure}"] = lambda: file_target.judge(job.file, files)
    records = {}
    for name, judge in judges.items():
        with collect(failures, f"the check of --{name}", debug):
            records[name], line = judge()
            progress.say(line)
            failures += [line] * (records[name]["met"] is False)
    return records
