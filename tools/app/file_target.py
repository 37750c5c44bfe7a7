"""`--target_file` and `--target_ram`: upper limits for the size of a TFLite file, and for the RAM that it takes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.cli.program import Program

_FORM = "{} takes MODE:SIZE, a share such as int8:60% or a size such as int8:200KiB"
_KEYS = {"file": "bytes", "ram": "arena_bytes"}  # of a file's record
_SAMPLES = 2  # for the calibration of files whose size alone matters


@dataclasses.dataclass(frozen=True)
class FileTarget:
    """The value of `--target_file` or `--target_ram`.

    Attributes:
        measure: "file" or "ram".
        mode: of the file.
        asked: the size as the user stated it.
        text: the size as a fraction of what the baseline's file takes, such as "60%", or a number of bytes.
    """

    measure: str
    mode: str
    asked: str
    text: str


def define_file_target(program: Program) -> None:
    """`--target_file` and `--target_ram`."""
    program.string(
        "target_file",
        None,
        "Size of the pruned TFLite file of a mode at most, as MODE:SIZE: int8:60% (of the baseline's file), "
        "int8:200KiB, float16:1.5MB; sets the rate. The size at the chosen widths is measured before the selection, "
        "that of the exported file at the end; exit code 1 if it is larger.",
    )
    program.string(
        "target_ram",
        None,
        "RAM that the activations of the pruned TFLite file take at once at most: 100KB or 60% (of the baseline's) for "
        "int8, MODE:SIZE for another file; sets the rate. It is planned as by TFLite Micro, without the kernels' "
        "scratch memory; exit code 1 if the exported file takes more.",
    )


def read_file_target(flags: Any, method: Any, deployment: Deployment) -> FileTarget | None:
    """The target that the flags state, or None.

    Raises:
        UsageError: the value is invalid, there is another target, or the run makes no such file.
    """
    given = [measure for measure in _KEYS if flags[f"target_{measure}"].value is not None]
    if not given:
        return None
    measure = given[0]
    name, value = f"--target_{measure}", flags[f"target_{measure}"].value
    others = [*given[1:], *["latency"] * (flags.target_latency is not None)]
    others += [] if method.target is None else [method.target.measure]
    if others:
        raise UsageError(f"give one target: {name} and --target_{others[0]} exclude each other")
    if measure == "ram" and ":" not in value:
        value = f"int8:{value}"
    mode, _, size = value.partition(":")
    if mode not in deployment.quantizations or mode == "sparse":
        modes = [mode for mode in deployment.quantizations if mode != "sparse"]
        raise UsageError(
            f"{name}={flags[name[2:]].value} must name one of the files that the run makes, as in "
            f"{name}={(modes or ['int8'])[0]}:60% (--quantization adds others)"
        )
    from dcp_tf.tflite.conversion.file_sizes import size_text

    target = FileTarget(measure, mode, size, size_text(size, _FORM.format(name)))
    _targeted(method, target, None, None)
    return target


def bind_file_target(job: Any, model_and_data: Any) -> Any:
    """The job with a method that knows what the file takes at given widths.

    Args:
        job: a `pruning_flags.Job` with a file target.
        model_and_data: the baseline and its data.

    Raises:
        UsageError: the method takes no such target.
        RunError: the baseline cannot be converted.
    """
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite.conversion.file_ram import FileRam, ram_of
    from dcp_tf.tflite.conversion.file_sizes import FileSizes, size_of

    is_ram = job.file.measure == "ram"
    settings = dataclasses.replace(job.deployment, calibration_samples=_SAMPLES, strict=False)

    def size(model: Any, mode: str) -> int:
        file = tflite_files.convert(model, mode, model_and_data.dataset, settings, seed=0)
        if is_ram:
            return ram_of(file)
        return size_of(tflite_files.add_metadata(file, model, model_and_data.dataset, model_and_data.objective))

    model = tflite_files.fixed_size(model_and_data.model, model_and_data.dataset)
    graph = ChannelGraph(model, ignore_statistics=job.method.ignore_statistics)
    mode = job.file.mode
    sizes = FileRam(graph, mode, size, settings.io) if is_ram else FileSizes(graph, mode, size)
    takes = f"{sizes.full:,} bytes{' of RAM' * is_ram}"
    progress.say(f"the baseline's {mode} file takes {takes}; the target is {job.file.asked}")
    return dataclasses.replace(job, method=_targeted(job.method, job.file, sizes.predict, sizes.measure))


def judge(target: FileTarget, files: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """Whether the target was met.

    Args:
        target: the target.
        files: the `tflite` part of summary.json.

    Returns:
        The `target_file` or `target_ram` part of summary.json, whose `met` is None without such a file, and a line.
    """
    sizes = {r["model"]: r[_KEYS[target.measure]] for r in files.values() if r["quantization"] == target.mode}
    ram = target.measure == "ram"
    what, verb = f"of the {target.mode} file{' in RAM' * ram}", "takes" if ram else "has"
    record = {"asked": target.asked, "quantization": target.mode, "bytes": sizes.get("pruned"), "met": None}
    if "pruned" not in sizes or (target.text.endswith("%") and "baseline" not in sizes):
        return record, f"target {what}, {target.asked}: the files are not there"
    limit = _targeted_limit(target, sizes.get("baseline", 0))
    met = sizes["pruned"] <= limit
    line = f"target {what}, {target.asked} ({limit:,.0f} bytes): it {verb} {sizes['pruned']:,}"
    return record | {"limit_bytes": int(limit), "met": met}, f"{line}: {'met' if met else 'missed'}"


def _targeted(method: Any, target: FileTarget, cost: Any, measured: Any) -> Any:
    from dcp_tf.pruning import Target

    of_mode = f"{target.mode} file"
    return dataclasses.replace(
        method, target=Target(target.measure, target.text, cost or (lambda widths: 1.0), of_mode, measured)
    )


def _targeted_limit(target: FileTarget, baseline: float) -> float:
    from dcp_tf.pruning import Target

    return Target(target.measure, target.text, lambda widths: 1.0).limit(baseline)
