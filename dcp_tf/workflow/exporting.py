"""`export`: TFLite files of a model, each compared with it and timed, in one call."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.data import as_split
from dcp_tf.errors import RunError, UsageError, did_you_mean, first_line
from dcp_tf.field_types import whole_number
from dcp_tf.files import readable_name, writable_folder
from dcp_tf.models.functional import check_functional
from dcp_tf.models.outputs import kind_of_tensor
from dcp_tf.models.signature import pack
from dcp_tf.settings.deployment import Deployment
from dcp_tf.text_table import ShownAsTables, Table, print_tables
from dcp_tf.tflite import BenchmarkResult, benchmark, image_metadata, with_metadata
from dcp_tf.tflite.conversion.files_of_modes import convert_in_mode, file_name, model_of_mode
from dcp_tf.tflite.conversion.fixed_size import with_fixed_size
from dcp_tf.tflite.types import Quantization
from dcp_tf.tflite.verify.checked_file import check_file
from dcp_tf.tflite.verify.samples import samples_of_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class ExportResult(ShownAsTables):
    """The files that `export` wrote.

    Attributes:
        folder: where they lie.
        records: name of a file -> `quantization`, `bytes`, `max_error`, `mean_error`, `snr_db`, `top1_agreement`,
            `top1`, `operations` and more, as in summary.json.
        latency: mode -> the measurement of its files; empty with `runs=0`.
    """

    folder: pathlib.Path
    records: Mapping[str, Mapping[str, Any]]
    latency: Mapping[str, BenchmarkResult]

    @property
    def files(self) -> dict[str, pathlib.Path]:
        """Mode -> path of the file of the exported model."""
        return {r["quantization"]: self.folder / name for name, r in self.records.items() if r["model"] == "model"}

    def __repr__(self) -> str:
        return f"<ExportResult {', '.join(self.records)} in {self.folder}>"

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints size, nearness to the Keras model, and latency of each file."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        rows = []
        for name, record in self.records.items():
            measured = self.latency.get(record["quantization"])
            times = measured.latencies[name] if measured else None
            is_first = measured is None or name == next(iter(measured.latencies))
            agreement = record["top1_agreement"]
            rows.append(
                (
                    name,
                    record["bytes"],
                    "-" if agreement is None else f"{agreement:.2%}",
                    f"{record['max_error']:.2g}",
                    None if times is None else times.median_ms,
                    "-" if is_first else measured.ratios[name].text(),
                )
            )
        columns = ("file", "bytes", "agrees", "largest error", "median ms", "speedup")
        machines = dict.fromkeys(f"latency: on {result.machine}" for result in self.latency.values())
        return [Table(f"files in {self.folder}", columns, rows, list(machines))]

    def plot(self) -> "Figure":
        """Accuracy of each file (without class labels: how alike it and its Keras model are) against its latency.

        Returns:
            A matplotlib figure.

        Raises:
            UsageError: no latency was measured.
        """
        from dcp_tf.report.plots import files_figure

        if not self.latency:
            raise UsageError("no latency was measured: export with runs > 0", setting="runs")
        records = {}
        for name, record in self.records.items():
            times = self.latency[record["quantization"]].latencies[name]
            median = {"median": times.median_ms, "p10": times.p10_ms, "p90": times.p90_ms}
            records[name] = {**record, "latency_ms": median}
        return files_figure(records)


@progress.takes_verbose
def export(
    model: keras.Model,
    folder: str | os.PathLike,
    quantizations: Sequence[str] = ("float32", "int8"),
    *,
    calibration: Any = None,
    test: Any = None,
    baseline: keras.Model | None = None,
    name: str | None = None,
    io: str = Deployment.io,
    strict: bool = Deployment.strict,
    bias_correction: bool = Deployment.bias_correction,
    replace_prelu: bool = Deployment.replace_prelu,
    runs: int = Deployment.runs,
    threads: int = Deployment.threads,
    seed: int = 0,
    verbose: int | str = 1,
) -> ExportResult:
    """Writes TFLite files of a model, compares each with the model, and measures their latency.

        files = dcp_tf.export(small, "files", ["float32", "int8"], calibration=train_ds, test=test_ds, baseline=model)
        files.summary()
        files.files["int8"]  # its path

    Args:
        model: functional or Sequential; with open sizes it becomes one for the sizes of the data.
        folder: for NAME_MODE.tflite; it is made where it is not there.
        quantizations: modes, such as "float32", "float16", "dynamic", "int8", "int16x8".
        calibration: inputs, with or without labels, on which the ranges of integer files are measured.
        test: inputs, with or without labels, on which each file is compared with the model; without it `calibration`.
        baseline: a model whose files in the same modes are made and measured beside, such as the original.
        name: what the files are called; None: the model's name.
        io: "float" or "int8": inputs and outputs of int8 files.
        strict: refuse int8 files in which an operation stays in float.
        bias_correction: whether biases of int8, int16x8 and weight-only files make up for the shift that rounded
            weights cause.
        replace_prelu: make int8 files of `dcp_tf.replace_prelu(model)`, which are faster.
        runs: measured runs of each file; 0: no benchmark.
        threads: of the benchmark.
        seed: of the calibration images and the benchmark.
        verbose: 0 prints nothing.

    Returns:
        The files and what was measured.

    Raises:
        UsageError: an argument cannot be.
        RunError: a file could not be made or differs too much from its model; the other files are there.
    """
    modes = _checked_modes(quantizations)
    Deployment(  # checks them
        io=io, strict=strict, bias_correction=bias_correction, replace_prelu=replace_prelu, runs=runs, threads=threads
    )
    seed = whole_number(seed, "seed")
    if name is not None and (not isinstance(name, str) or pathlib.Path(name).name != name):
        raise UsageError(f"name must be the beginning of a file's name, received {name!r:.80}")
    given = [data for data in (test, calibration) if data is not None]
    if not given:
        raise UsageError("give test=... or calibration=...: each file is run and compared with its model")
    for source in (model,) if baseline is None else (model, baseline):
        check_functional(source)
    folder = writable_folder(folder)
    models = {"baseline": baseline, "model": model} if baseline is not None else {"model": model}
    names = {"model": readable_name(name or model.name), "baseline": "baseline"}
    if len(models) == 2 and names["model"] == "baseline":
        raise UsageError("the files of the baseline are called baseline: give another name")
    records: dict[str, dict] = {}
    failures: list[str] = []
    for label, source in models.items():
        split = as_split(given[0]).bound_to(source, "test")
        calibration_split = split if calibration is None else as_split(calibration).bound_to(source, "calibration")
        samples = _as_list(calibration_split.representative(Deployment.calibration_samples, seed))
        source = with_fixed_size(source, split.shapes)
        for mode in modes:
            path = folder / file_name(names[label], mode, io)
            progress.say(f"converting {path.name}")
            try:
                made_of, about = model_of_mode(source, mode, replace_prelu)
                file = convert_in_mode(made_of, mode, functools.partial(pack, samples), io, strict, bias_correction)
                file = with_metadata(file, image_metadata(source, mode, None))
                record = about | _compare(file, made_of, split, samples)
                file.save(path)
                records[path.name] = {"model": label, **record}
            except (RunError, UsageError) as error:
                failures.append(f"{path.name}: {first_line(error)}")
    latency = {}
    for mode in modes if runs else ():
        paths = {n: folder / n for n, record in records.items() if record["quantization"] == mode}
        if paths:
            progress.say(f"measuring latency of {' and '.join(paths)}")
            latency[mode] = benchmark(paths, threads=threads, runs=runs, seed=seed)
    if failures:
        written = f"; written: {', '.join(records)}" if records else ""
        raise RunError("; ".join(failures) + written)
    return ExportResult(folder, records, latency)


def _checked_modes(quantizations: Any) -> list[str]:
    if not isinstance(quantizations, str | list | tuple):
        raise UsageError(f"quantizations must be a list such as ['float32', 'int8'], received {quantizations!r:.80}")
    modes = [quantizations] if isinstance(quantizations, str) else list(quantizations)
    known = [mode.value for mode in Quantization if mode is not Quantization.QAT]
    for mode in modes:
        if mode not in known:
            raise UsageError(f"unknown quantization {mode!r}; {did_you_mean(mode, known)}")
    if not modes:
        raise UsageError("say which files to make: quantizations=['float32', 'int8']")
    return list(dict.fromkeys(modes))


def _as_list(inputs: Any) -> list[np.ndarray]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _compare(file: Any, model: keras.Model, split: Any, samples: list[np.ndarray]) -> dict[str, Any]:
    """The record of a file; accuracies are those of class numbers, where the labels are some."""
    output, labels = model.outputs[0], split.labels
    is_probability = kind_of_tensor(output) != "logits"
    is_index = (
        isinstance(labels, np.ndarray)
        and len(model.outputs) == 1
        and np.issubdtype(labels.dtype, np.integer)
        and labels.reshape(len(labels), -1).shape[1] == 1
        and len(output.shape) == 2
        and output.shape[-1] > 1
    )
    kind = "probabilities" if is_probability else "logits" if is_index else "embeddings"
    compared = samples_of_split(split, (lambda own: own.reshape(-1)) if is_index else lambda _: None)
    return check_file(file, model, compared, outputs=kind, calibration_images=functools.partial(pack, samples))
