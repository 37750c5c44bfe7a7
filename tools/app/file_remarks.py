"""Remarks on TFLite files: operations in float or without a fast kernel, low SNR, no gain in size or speed."""

import math
from collections.abc import Mapping
from typing import Any

PROMISED = 0.9  # of the ratio of the multiply-accumulates
LOW_SNR_DB = 15.0  # an error of about 18% of the outputs


def remarks(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All remarks on the files of a run.

    Args:
        records: the `tflite` part of summary.json.
    """
    lines = []
    for name, record in records.items():
        if record["float_operations"]:
            listed = ", ".join(record["float_operations"])
            lines.append(f"{name}: left in float, without an integer kernel: {listed}")
        if slow := record.get("outside_xnnpack"):  # earlier runs do not know
            listed = ", ".join(f"{kind} ({count})" for kind, count in slow.items())
            lines.append(f"{name}: outside of XNNPACK, on the slow kernels of the interpreter: {listed}")
        if record["snr_db"] is not None and record["snr_db"] < LOW_SNR_DB:
            lines.append(
                f"{name}: its outputs are {record['snr_db']:.1f} dB above the error of its rounding (SNR; below "
                f"{LOW_SNR_DB:g} dB it shows): look at them, or export float16"
            )
    return [*lines, *larger_than_baseline(records), *slower_than_float(records), *slower_than_promised(records)]


def larger_than_baseline(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each file of a pruned model that is no smaller than the baseline's file of the same mode."""
    sizes = {r["quantization"]: r["bytes"] for r in records.values() if r["model"] == "baseline"}
    return [
        f"{name} is not smaller than the baseline's file, {record['bytes']:,} bytes against "
        f"{sizes[record['quantization']]:,}: what was pruned is less than what else the file holds"
        for name, record in records.items()
        if record["model"] == "pruned" and record["bytes"] >= sizes.get(record["quantization"], math.inf)
    ]


def slower_than_promised(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each integer file of a pruned model that surely gains less time than multiply-accumulates promise."""
    from dcp_tf.report import table_rows  # here: --help of programs imports this module, but no rich

    macs = {r["quantization"]: r.get("macs") for r in records.values() if r["model"] == "baseline"}
    lines = []
    for name, record in records.items():
        full = macs.get(record["quantization"])
        if record["model"] != "pruned" or record["quantization"] not in ("int8", "qat") or not full:
            continue
        if not record.get("conclusive") or not record.get("macs"):
            continue
        (speedup, (_, high)), promised = table_rows.speedup_of(record), full / record["macs"]
        if high < PROMISED * promised:
            lines.append(
                f"{name} gains {speedup:.2f}x here, its multiply-accumulates promise {promised:.2f}x: what pruning "
                "leaves as it is (stem, shortcuts, depthwise layers, sums) weighs more in int8; --prune_residual and "
                "--prune_blocks take some of it (--search_scope tries both), --target_latency with "
                "--latency_quantization=int8 asks for a time"
            )
    return lines


def slower_than_float(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each integer file that is measurably slower than the float32 file of the same model.

    Args:
        records: the `tflite` part of summary.json.
    """
    timed = {name: record for name, record in records.items() if "latency_ms" in record}
    floats = {record["model"]: record for record in timed.values() if record["quantization"] == "float32"}
    lines = []
    for name, record in timed.items():
        reference = floats.get(record["model"])
        if reference is None or record["latency_ms"]["p10"] <= reference["latency_ms"]["p90"]:
            continue
        milliseconds = (f"{r['latency_ms']['median']:.3g}" for r in (record, reference))
        lines.append(f"{name} is slower here than float32, {' ms against '.join(milliseconds)} ms")
        if "PRELU" in record["operations"] and record["quantization"] in ("int8", "qat"):
            lines[-1] += ": PRELU has no fast kernel in 8 bits; --replace_prelu makes the same of others that have"
    return lines
