"""The table that `export` prints for each TFLite file."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from dcp_tf.report import formats


def file_table(name: str, record: Mapping[str, Any]) -> Table:
    """The record of a file as a table of two columns, at most 100 characters wide.

    Args:
        name: of the file.
        record: as `deployment.deploy` returns it.
    """
    table = Table(title=name, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, value in _rows(record):
        table.add_row(what, value)
    return table


def _rows(record: Mapping[str, Any]):
    yield "size", formats.size(record["bytes"])
    yield "error", _error(record)
    if record["top1_agreement"] is not None:
        yield "decides like Keras", f"{formats.percent(record['top1_agreement'])} of {record['samples']} images"
    for where, what in (("arm", "on Arm"), ("micro", "TFLite Micro")):
        if where in record:
            yield what, _elsewhere(record[where])
    if record["top1"] is not None:
        yield "top-1", f"{formats.percent(record['top1'])}, Keras {formats.percent(record['keras_top1'])}"
    same = record["macs"] == record["keras_macs"]
    yield "MACs", f"{record['macs']:,}" + ("" if same else f", counted in the Keras model {record['keras_macs']:,}")
    if "arena_bytes" in record:
        yield "activations", f"{formats.size(record['arena_bytes'])} at once, most at {record['fullest_operation']}"
    yield "operations", _counts(record["operations"])
    if record["operations_change"] is not None:
        yield "against the baseline", _change(record["operations_change"])
    yield "tensors", _counts(record["tensor_types"])
    if record["float_operations"]:
        yield "left in float", "\n".join(record["float_operations"])
    if record.get("outside_xnnpack"):
        yield "outside XNNPACK", _counts(record["outside_xnnpack"])
    if record["conversions"]:
        yield "conversions inside", "\n".join(record["conversions"])
    sparse = record.get("sparse_inference")
    if sparse is not None:
        zeros = "" if sparse["density"] is None else f", {1 - sparse['density']:.0%} zeros in 1x1 convolutions"
        accepted = f"yes{zeros}" if sparse["accepted"] else "\n".join(["no", *sparse["blockers"]])
        yield "sparse kernels on Arm", accepted


def _error(record: Mapping[str, Any]) -> str:
    snr = "equal" if record["snr_db"] is None else f"{record['snr_db']:.0f} dB"
    return f"largest {record['max_error']:.2g}, mean {record['mean_error']:.2g} of the outputs' spread; SNR {snr}"


def _elsewhere(record: Mapping[str, Any]) -> str:
    apart = "as here" if record["host_difference"] == 0 else f"at most {record['host_difference']:.2g} from those here"
    decides = "" if record["top1_agreement"] is None else f", decides like Keras on {record['top1_agreement']:.0%}"
    arena = ""
    if "activation_bytes" in record:
        sizes = [formats.size(record[name]) for name in ("activation_bytes", "persistent_bytes")]
        arena = f"; RAM: {sizes[0]} for activations and scratch, {sizes[1]} for the interpreter"
    return f"{record['machine']}, {record['samples']} images: outputs {apart}{decides}{arena}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _change(change: Mapping[str, int]) -> str:
    return ", ".join(f"{count:+d} {name}" for name, count in change.items()) or "the same operations"
