"""`--target_file`: an upper limit for the size of a TFLite file."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.cli.program import Program

# Bytes per weight; the rest of a file hardly depends on the widths, and is measured.
_WEIGHT_BYTES = {"float32": 4.0, "float16": 2.0, "weight_only_int4": 0.5}
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
_SAMPLES = 2  # for the calibration of files whose size alone matters


@dataclasses.dataclass(frozen=True)
class FileTarget:
    """The value of `--target_file`.

    Attributes:
        mode: of the file.
        asked: the size as the user stated it.
        text: the size as a fraction of the baseline's file, such as "60%", or a number of bytes.
    """

    mode: str
    asked: str
    text: str


def define_file_target(program: Program) -> None:
    """`--target_file`."""
    program.string(
        "target_file",
        None,
        "Size of the pruned TFLite file of a mode at most, as MODE:SIZE: int8:60% (of the baseline's file), "
        "int8:200KiB, float16:1.5MB; sets the rate. The size at the chosen widths is measured before the selection, "
        "that of the exported file at the end; exit code 1 if it is larger.",
    )


def read_file_target(flags: Any, method: Any, deployment: Deployment) -> FileTarget | None:
    """The target that the flags state, or None.

    Raises:
        UsageError: the value is invalid, there is another target, or the run makes no such file.
    """
    if flags.target_file is None:
        return None
    if method.target is not None or flags.target_latency is not None:
        other = "latency" if method.target is None else method.target.measure
        raise UsageError(f"give one target: --target_file and --target_{other} exclude each other")
    mode, _, size = flags.target_file.partition(":")
    if mode not in deployment.quantizations or mode == "sparse":
        modes = [mode for mode in deployment.quantizations if mode != "sparse"]
        raise UsageError(
            f"--target_file={flags.target_file} must name one of the files that the run makes, as in "
            f"--target_file={(modes or ['int8'])[0]}:60% (--quantization adds others)"
        )
    target = FileTarget(mode, size, _in_bytes(size))
    _targeted(method, target, None, None)
    return target


def bind_file_target(job: Any, subject: Any) -> Any:
    """The job with a method that knows the size of the file at given widths.

    Args:
        job: a `pruning_flags.Job` with a file target.
        subject: the baseline and its data.

    Raises:
        UsageError: the method takes no such target.
        RunError: the baseline cannot be converted.
    """
    sizes = _FileSizes(job, subject)
    progress.say(f"the baseline's {job.file.mode} file takes {sizes.full:,} bytes; the target is {job.file.asked}")
    return dataclasses.replace(job, method=_targeted(job.method, job.file, sizes.predict, sizes.measure))


def judge(target: FileTarget, files: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """Whether the target was met.

    Args:
        target: the target.
        files: the `tflite` part of summary.json.

    Returns:
        The `target_file` part of summary.json, whose `met` is None without such a file, and a line.
    """
    sizes = {r["model"]: r["bytes"] for r in files.values() if r["quantization"] == target.mode}
    record = {"asked": target.asked, "quantization": target.mode, "bytes": sizes.get("pruned"), "met": None}
    if "pruned" not in sizes or (target.text.endswith("%") and "baseline" not in sizes):
        return record, f"target of the {target.mode} file, {target.asked}: the files are not there"
    limit = _targeted_limit(target, sizes.get("baseline", 0))
    met = sizes["pruned"] <= limit
    line = f"target of the {target.mode} file, {target.asked} ({limit:,.0f} bytes): it has {sizes['pruned']:,}"
    return record | {"limit_bytes": int(limit), "met": met}, f"{line}: {'met' if met else 'missed'}"


class _FileSizes:
    """Sizes of files of a model at several widths."""

    def __init__(self, job: Any, subject: Any):
        from dcp_tf.graph import ChannelGraph

        model = tflite_files.fixed_size(subject.model, subject.dataset)
        self._graph = ChannelGraph(model, ignore_statistics=job.method.ignore_statistics)
        self._subject = subject
        self._mode = job.file.mode
        self._settings = dataclasses.replace(job.deployment, calibration_samples=_SAMPLES, strict=False)
        self._params = self._params_at({})
        self.full = self._size(model)

    def predict(self, widths: Mapping[str, int]) -> float:
        """The predicted size of the file at given widths, from the number of weights."""
        fewer = self._params - self._params_at(widths)
        return self.full - _WEIGHT_BYTES.get(self._mode, 1.0) * fewer

    def measure(self, widths: Mapping[str, int]) -> float:
        """The measured size of a file at given widths; it does not depend on which channels stay."""
        from dcp_tf.graph import rebuild

        return float(self._size(rebuild(self._graph, self._kept(widths))))

    def _params_at(self, widths: Mapping[str, int]) -> int:
        from dcp_tf.graph import count_cost

        return count_cost(self._graph, self._kept(widths)).params

    def _kept(self, widths: Mapping[str, int]) -> Any:
        return self._graph.kept({name: range(width) for name, width in widths.items()})

    def _size(self, model: Any) -> int:
        mode = "int8" if self._mode == "qat" else self._mode  # of one size, and without training
        file = tflite_files.convert(model, mode, self._subject.dataset, self._settings, seed=0)
        return len(tflite_files.add_metadata(file, model, self._subject.dataset, self._subject.objective).content)


def _in_bytes(text: str) -> str:
    """A size as a fraction or a number of bytes.

    Raises:
        UsageError: the text is no size.
    """
    match = re.fullmatch(r"\s*([\d.,_]+)\s*(%|[KMkm]?[iI]?[bB]?)\s*", text)
    if match and match.group(2) == "%":
        return f"{match.group(1)}%"
    unit = None if match is None else _UNITS.get(match.group(2).upper())
    try:
        return str(int(float(match.group(1).replace(",", "")) * unit))
    except (AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"--target_file takes MODE:SIZE, a share such as int8:60% or a size such as int8:200KiB, received {text!r}"
        ) from error


def _targeted(method: Any, target: FileTarget, cost: Any, measured: Any) -> Any:
    from dcp_tf.pruning import Target

    of_mode = f"{target.mode} file"
    return dataclasses.replace(
        method, target=Target("file", target.text, cost or (lambda widths: 1.0), of_mode, measured)
    )


def _targeted_limit(target: FileTarget, baseline: float) -> float:
    from dcp_tf.pruning import Target

    return Target("file", target.text, lambda widths: 1.0).limit(baseline)
