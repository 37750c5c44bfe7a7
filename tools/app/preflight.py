"""Checks before any training: do the model, the data and the flags fit, and which TFLite files can be made?"""

import dataclasses
from typing import Any

from dcp_tf.errors import RunError, UsageError, first_line
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.app.qat_file import refused
from dcp_tf.tools.app.reload_check import check_custom_layers_reload
from dcp_tf.tools.cli.data_flags import ModelAndData
from dcp_tf.tools.cli.pruning_flags import Job
from dcp_tf.tools.cli.training_flags import as_compiled

_SAMPLES = 2  # for the calibration of trial files


def check_job(model_and_data: ModelAndData, job: Job) -> tuple[Job, str]:
    """Checks the input before anything runs.

    Returns:
        The job with its context, and a line that says what it will do.

    Raises:
        UsageError: the flags, the model and the data do not fit together.
    """
    from dcp_tf.pruning import prepare

    check_custom_layers_reload(model_and_data.model, model_and_data.dataset)
    auxiliary = job.auxiliary
    if job.method.trains_whole:
        auxiliary = as_compiled(auxiliary, model_and_data, "auxiliary fine-tuning")
    context = prepare(
        model_and_data.model,
        model_and_data.dataset.train,
        job.method,
        validation_data=model_and_data.dataset.test if model_and_data.dataset.test.labels is not None else None,
        objective=model_and_data.objective,
        auxiliary=auxiliary,
        finetuning=as_compiled(job.finetuning, model_and_data, "fine-tuning"),
        distillation=job.distillation,
    )
    method, graph = job.method, context.graph
    parts = [_count(len(context.groups), "group") + " of channels to prune"]
    if method.chooses_kernels:
        layers = _count(len(context.kernel_layers), "layer")
        parts = [*parts * method.chooses_channels, f"{layers} of kernels to prune"]
    streams = 0 if method.offers_streams else len(graph.prunable(True)) - len(graph.prunable(False))
    if streams:
        parts.append(f"{_count(streams, 'residual stream')} stay{'s' * (streams == 1)}")
    if method.exclude:
        parts.append(f"{len(method.exclude)} excluded")
    pinned = sum(g.pinned_because is not None for g in graph.groups)
    if pinned:
        parts.append(f"{pinned} pinned")
    return dataclasses.replace(job, context=context), f"{', '.join(parts)} (inspect_model lists them)"


def drop_impossible_files(flags: Any, model_and_data: ModelAndData, job: Job) -> tuple[Job, list[str]]:
    """The job without the TFLite files that the model does not allow, and a line for each change.

    Raises:
        UsageError: a file that the user asked for cannot be made.
    """
    deployment, notes = possible_files(job.deployment, flags["quantization"].present, model_and_data)
    if job.latency and job.latency.mode not in deployment.quantizations:
        raise UsageError(f"{notes[0]}; --target_latency needs the {job.latency.mode} file")
    return dataclasses.replace(job, deployment=deployment), notes


def possible_files(settings: Deployment, is_asked: bool, model_and_data: Any) -> tuple[Deployment, list[str]]:
    """Leaves out files that cannot be made; a dynamic file replaces a default int8 file.

    Args:
        settings: which files.
        is_asked: whether the user chose them; else they are the defaults.
        model_and_data: the model (trained or not) with its data.

    Returns:
        The files that can be made, and a line for each change.

    Raises:
        UsageError: a file that the user asked for cannot be made, or none of the default files.
    """
    if not settings.quantizations:
        return settings, []
    reasons = _reasons(settings, model_and_data)
    if is_asked and reasons:
        mode, reason = next(iter(reasons.items()))
        raise UsageError(f"no {mode} file can be made of this model: {reason} (--quantization)")
    modes = [mode for mode in settings.quantizations if mode not in reasons]
    if not modes:
        reason = next(iter(reasons.values()))
        raise UsageError(
            f"no TFLite file can be made of this model: {reason}; --quantization= prunes it and makes none"
        )
    notes = []
    if "int8" in reasons:
        notes.append(f"{reasons['int8']}: dynamic files are made in place of int8 ones (--quantization chooses)")
        modes = list(dict.fromkeys([*modes, "dynamic"]))
    return dataclasses.replace(settings, quantizations=modes), notes


def _reasons(settings: Deployment, model_and_data: Any) -> dict[str, str]:
    """Mode -> why its file cannot be made."""
    model = tflite_files.fixed_size(model_and_data.model, model_and_data.dataset)
    modes, reasons = settings.quantizations, {}
    tried: dict[str, str | None] = {}

    def fails(mode: str) -> str | None:
        if mode not in tried:
            tried[mode] = _trial(model, mode, model_and_data.dataset, settings)
        return tried[mode]

    for mode in ("int8", "qat", "int16x8"):
        if mode in modes and (reason := fails("int16x8" if mode == "int16x8" else "int8")):
            reasons[mode] = reason
    if "qat" in modes and "qat" not in reasons and (reason := _bridge_trial(model)):
        reasons["qat"] = reason
    floats = [mode for mode in modes if mode not in ("int8", "qat", "int16x8")]
    # An int8 file that may mix integer and float kernels shows that float files can be made, too.
    needs_trial = settings.strict or tried.get("int8", "untried") is not None
    if floats and needs_trial and (reason := fails("float32")):
        reasons |= dict.fromkeys(floats, reason)
    return reasons


def _trial(model: Any, mode: str, dataset: Any, settings: Deployment) -> str | None:
    """Why a file cannot be made or run here; None if it can."""
    from dcp_tf import tflite

    try:
        few = dataclasses.replace(settings, calibration_samples=_SAMPLES, bias_correction=False)
        missing = tflite.unsupported_operations(tflite_files.convert(model, mode, dataset, few, seed=0))
    except (RunError, UsageError) as error:
        return str(error)
    except Exception:  # an unknown error on an untrained model; later it only costs this file
        return None
    return f"operations cannot be run in {mode}: {'; '.join(missing[:3])}" if missing else None


def _bridge_trial(model: Any) -> str | None:
    """Why a model cannot be trained for a qat file; None if it can."""
    from dcp_tf.tflite.qat.bridge import to_tf_keras
    from dcp_tf.tflite.qat.qat import add_quantizers

    if reason := refused(model):
        return reason
    try:
        to_tf_keras(model)
        add_quantizers(model)
    except UsageError as error:
        return str(error)
    except Exception as error:  # TFMOT raises arbitrary errors for unknown layers
        return f"its layers cannot be trained with rounded weights: {first_line(error)}"
    return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
