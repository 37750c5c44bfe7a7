"""What LiteRT's benchmark_model writes: it runs files in CompiledModel.

Beside its log it writes two protocol buffers: figures (`--result_file_path`, TFLite's benchmark_result.proto) and the
graph as it ran (`--model_runtime_info_output_file`), which alone tells on what. Without them the log has to do.
"""

import re
import struct
from collections import Counter

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from dcp_tf.errors import RunError
from dcp_tf.tflite.android.log import BenchmarkLog

RESULT, GRAPH = "result.pb", "graph.pb"
FILES = (f"--result_file_path={RESULT}", f"--model_runtime_info_output_file={GRAPH}")
FELL_BACK = "LiteRT ran all of it on the CPU and reported no error, as it would in an app"
# Numbers of fields. Python modules of these messages register the same names in TensorFlow and in ai_edge_litert, which
# fails where both are loaded.
_LATENCY, _MEMORY, _OTHER = 2, 3, 4  # benchmark_result.proto
_TIMES = ("average", "least", "most", "deviation", "median", "p5", "p95", "init", "first", "warmup")  # from 1 on
_SUBGRAPHS, _NODES, _SUBGRAPH_TYPE, _DELEGATE, _DELEGATE_NAME, _DELEGATED = 2, 3, 5, 8, 1, 2  # model_runtime_info.proto
_TFLITE_SUBGRAPH = 1
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")


def figures(result: bytes, applied: str | None) -> BenchmarkLog:
    """The figures that the tool wrote.

    Args:
        result: content of benchmark_result.proto.
        applied: see `BenchmarkLog`.

    Raises:
        RunError: they are damaged, or no inference was measured.
    """
    try:
        parts = _fields(result)
        latency, memory, other = (_fields(parts.get(number, [b""])[0]) for number in (_LATENCY, _MEMORY, _OTHER))
        times = {name: _float(latency[number][0]) for number, name in enumerate(_TIMES, start=1)}
    except (DecodeError, KeyError, TypeError, struct.error) as error:
        raise RunError("benchmark_model wrote no readable result: run again, or take another build of it") from error
    if not times["average"] or not times["median"]:
        raise RunError("benchmark_model measured an inference of 0 ms, too short for its clock: measure a larger model")
    return BenchmarkLog(
        count=other.get(2, [1])[0],
        **times,
        memory_init=memory[1][0] / 1024 if 1 in memory else None,
        memory_overall=memory[2][0] / 1024 if 2 in memory else None,
        memory_peak=_float(memory[3][0]) if 3 in memory else None,
        applied=applied,
        operations=(),
    )


def share(graph: bytes | None, text: str, accelerator: str) -> str | None:
    """The part of the graph that the accelerator ran.

    Args:
        graph: the graph as it ran; None if the tool wrote none.
        text: its log.
        accelerator: "cpu", "gpu" or "npu".

    Returns:
        "completely", "partially (3 of 20 operations)", "not applied", or None where neither tells.
    """
    counts = _counts_of_graph(graph) if graph else _counts_of_log(text)
    if counts is None:
        return None
    by_delegate, operations = counts
    # Every delegate but XNNPACK is an accelerator: only the one that was asked for is there.
    on_cpu = accelerator == "cpu"
    ran = sum(count for name, count in by_delegate.items() if ("xnnpack" in name.lower()) == on_cpu)
    if not ran:
        return "not applied"
    return "completely" if ran >= operations else f"partially ({ran} of {operations} operations)"


def _counts_of_graph(graph: bytes) -> tuple[Counter, int] | None:
    """Operations by delegate, and all of them, of the first subgraph."""
    try:
        subgraphs = [_fields(subgraph) for subgraph in _fields(graph).get(_SUBGRAPHS, [])]
        main = next((part for part in subgraphs if part.get(_SUBGRAPH_TYPE) == [_TFLITE_SUBGRAPH]), {})
        nodes = [_fields(node) for node in main.get(_NODES, [])]
        details = [_fields(node[_DELEGATE][0]) for node in nodes if _DELEGATE in node]
    except (DecodeError, TypeError):
        return None
    counts: Counter = Counter()
    for detail in details:
        # The last byte of each number of a packed field is below 128.
        counts[detail[_DELEGATE_NAME][0].decode()] += sum(byte < 128 for byte in detail.get(_DELEGATED, [b""])[0])
    return (counts, len(nodes) - len(details)) if nodes else None


def _counts_of_log(text: str) -> tuple[Counter, int] | None:
    rows = _REPLACED.findall(text)
    counts: Counter = Counter()
    for replaced, _, name in rows:
        counts[name] += int(replaced)
    return (counts, int(rows[0][1])) if rows else None


def _fields(message: bytes) -> dict[int, list]:
    """The values of the fields of a message by number."""
    fields: dict[int, list] = {}
    for field in UnknownFieldSet(Empty.FromString(message)):
        fields.setdefault(field.field_number, []).append(field.data)
    return fields


def _float(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits))[0]
