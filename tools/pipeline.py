"""The main job: prune, rebuild, fine-tune, export, measure, report."""

import pathlib
import time
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import RunError
from dcp_tf.tools import artefacts
from dcp_tf.tools.common_flags import Subject
from dcp_tf.tools.pruning_flags import read_deployment, read_method, read_training, settings_of


def run(flags: Any, subject: Subject, folder: pathlib.Path, started: float, phases: list[dict] | None = None) -> None:
    """Everything after the baseline is there, down to the printed table.

    Args:
        flags: of `prune` or `quickstart`.
        subject: the baseline and its data.
        folder: of the run; it exists.
        started: `time.time()` at the start.
        phases: what was done before.

    Raises:
        UsageError: the flags and the model do not go together; nothing was written.
        RunError: a phase failed, or a TFLite file does not equal its model; what was made before is there.
    """
    from dcp_tf.pruning import prune
    from dcp_tf.report import print_summary, write_report
    from dcp_tf.training import save_model

    method, deployment = read_method(flags), read_deployment(flags)
    result = prune(
        subject.model,
        subject.dataset.train,
        method,
        validation_data=subject.dataset.test if subject.dataset.test.labels is not None else None,
        outputs_kind=subject.outputs_kind,
        auxiliary=read_training(flags, flags.aux_epochs, flags.aux_lr),
        finetuning=read_training(flags, flags.finetune_epochs, flags.finetune_lr),
        distillation=flags.distillation,
        state_dir=folder / "state" / "pruning",
        resume=flags.resume,
        log_dir=str(folder / "events"),
        seed=flags.seed,
    )
    save_model(subject.model, folder / "baseline.keras")
    save_model(result.model, folder / "pruned.keras")
    result.plan.save(folder / "plan.json")
    models = {"baseline": subject.model, "pruned": result.model}
    measured = {n: artefacts.measure_model(m, subject.dataset, subject.outputs_kind) for n, m in models.items()}
    if "top1" in result.before_finetuning:
        measured["pruned"]["top1_before_finetuning"] = result.before_finetuning["top1"]
    deploying = time.perf_counter()
    files, failures = artefacts.deploy(models, subject.dataset, subject.outputs_kind, folder, deployment, flags.seed)
    phases = [*(phases or []), *result.history, {"name": "deployment", "seconds": time.perf_counter() - deploying}]
    summary = artefacts.write_summary(
        folder,
        started,
        model=subject.source,
        dataset=subject.dataset.name,
        method=method.name,
        normalization=subject.normalization,
        outputs=subject.outputs_kind,
        settings=settings_of(flags),
        seed=flags.seed,
        **measured,
        tflite=files,
        failures=failures,
        phases=phases,
    )
    write_report(folder)
    print_summary(summary)
    progress.say(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    if failures:
        raise RunError("; ".join(failures))
