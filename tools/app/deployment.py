"""Converts the models of a run to TFLite files, checks them against the models, and measures their latency."""

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.files import write_json
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.app.failures import collect
from dcp_tf.tools.app.file_remarks import remarks


def deploy(
    models: Mapping[str, Any],
    dataset: Any,
    objective: Any,
    folder: pathlib.Path,
    settings: Deployment,
    seed: int,
    reference: Any = None,
) -> tuple[dict[str, dict], list[str]]:
    """Converts, checks and measures the models of a run.

    Args:
        models: "baseline" and "pruned".
        dataset: training images for calibration, test images for the comparison.
        objective: of the models; None if they have several outputs.
        folder: for the files.
        settings: which files to make, and how to measure them.
        seed: of the calibration images and the benchmark.
        reference: the baseline's outputs for images without labels, see `unlabelled.Reference`; None otherwise.

    Returns:
        The `tflite` part of summary.json, and a line for each file that could not be made or differs from its model.
    """
    records: dict[str, dict] = {}
    failures: list[str] = []
    with collect(failures, "TFLite files", settings.debug):
        from dcp_tf.graph import count_cost
        from dcp_tf.tflite.conversion.files_of_modes import file_name

        models = {name: tflite_files.fixed_size(model, dataset) for name, model in models.items()}
        macs = {name: count_cost(model).macs for name, model in models.items() if settings.quantizations}
        for mode, name in itertools.product(settings.quantizations, models):
            if mode == "sparse" and name == "baseline" and len(models) > 1:
                continue  # it was not pruned, so it has no zeros
            path = folder / file_name(name, mode, settings.io)
            progress.say(f"converting {path.name}")
            with collect(failures, path.name, settings.debug):
                file, record = tflite_files.make(models[name], mode, dataset, objective, settings, seed)
                file.save(path)
                records[path.name] = {"model": name, **record, "keras_macs": macs[name], "operations_change": None}
                if reference is not None:
                    records[path.name] |= reference.compare_file(file)
        compare_operations(records, folder, next(iter(models)))
    if settings.runs and records:
        with collect(failures, "latency", settings.debug):
            _benchmark(records, folder, settings, seed, failures)
    for line in [*remarks(records), *(reference.remarks(records) if reference is not None else ())]:
        progress.say(line)
    return records, failures


def compare_operations(records: Mapping[str, dict], folder: pathlib.Path, reference: str) -> None:
    """Adds to each record how the operations of its file differ from those of the reference's file of the same mode.

    Args:
        records: the `tflite` part of summary.json.
        folder: of the files.
        reference: name of the model that the others are compared with.
    """
    references = {record["quantization"]: name for name, record in records.items() if record["model"] == reference}
    for name, record in records.items():
        if record["model"] != reference and record["quantization"] in references:
            record["operations_change"] = operations_change(folder / name, folder / references[record["quantization"]])


def operations_change(file: pathlib.Path, reference: pathlib.Path) -> dict[str, int]:
    """The changes in the number of each operation against a reference."""
    from dcp_tf import tflite

    return tflite.inspect(file).difference(tflite.inspect(reference))


def remove_files(folder: pathlib.Path, models: Mapping[str, Any]) -> None:
    """Deletes the TFLite files and the benchmark of an earlier run."""
    for name in models:
        for path in folder.glob(f"{name}_*.tflite"):
            path.unlink()
    (folder / "benchmark.json").unlink(missing_ok=True)


def _benchmark(
    records: dict[str, dict], folder: pathlib.Path, settings: Deployment, seed: int, failures: list[str]
) -> None:
    """Adds latency and speedup over the baseline's file of the same mode to each record; writes benchmark.json."""
    from dcp_tf import tflite

    progress.say("measuring latency")
    content: dict[str, Any] = {}
    for mode in settings.quantizations:
        names = [name for name, record in records.items() if record["quantization"] == mode]
        if not names:
            continue
        with collect(failures, f"latency of {' and '.join(names)}", settings.debug):
            files = {name: folder / name for name in names}
            result = tflite.benchmark(files, threads=settings.threads, runs=settings.runs, seed=seed)
            for name in names:
                records[name] |= _latency_record(result, name, records[names[0]]["model"] == "baseline")
            measured = result.to_json()
            content = content or {**measured, "candidates": {}, "baseline": {}}
            content["candidates"] |= measured["candidates"]
            content["baseline"][mode] = measured["baseline"]
    if content:
        write_json(folder / "benchmark.json", content)


def _latency_record(result: Any, name: str, has_baseline: bool) -> dict[str, Any]:
    """What summary.json holds of the latency of a file; a speedup only where the baseline's file was measured too."""
    latency = result.latencies[name]
    times = {"median": latency.median_ms, "p10": latency.p10_ms, "p90": latency.p90_ms}
    record: dict[str, Any] = {"latency_device": result.machine, "latency_ms": times}
    if has_baseline:
        record |= {"speedup": latency.speedup, "speedup_interval": [latency.speedup_low, latency.speedup_high]}
        record |= {"conclusive": latency.conclusive, "speedup_by": latency.speedup_by}
        if latency.speedup_quiet is not None:
            record["speedup_quiet"] = latency.speedup_quiet
            record["speedup_quiet_interval"] = [latency.speedup_quiet_low, latency.speedup_quiet_high]
    return record
