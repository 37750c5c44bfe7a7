"""Time of each operation of a file on this machine.

The interpreter's Python interface has no profiler. So the file cut after operation k and the file cut after operation
k - 1 are measured interleaved, and the median of the paired differences is the time of operation k. This counts the
cost of the operation inside its network, including kernels fused by the delegate; an operation that is fused into its
successor (a PAD, for instance) shows about 0 ms. Negative differences count as 0.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from dcp_tf import progress
from dcp_tf.tflite.latency.stopwatch import Stopwatch, measure_interleaved
from dcp_tf.tflite.schema.subgraph import Cutter


@dataclasses.dataclass(frozen=True)
class OperationTime:
    """The time of one operation.

    Attributes:
        kind: such as "CONV_2D".
        name: of its output tensor.
        ms: milliseconds of one inference; on an emulated core millions of instructions.
        low: lower quartile of the measured differences.
        high: upper quartile.
    """

    kind: str
    name: str
    ms: float
    low: float | None = None
    high: float | None = None


def time_operations(
    content: bytes,
    *,
    threads: int,
    cpus: tuple[int, ...] = (),
    runs: int = 15,
    seed: int = 0,
    what: str = "Profile",
    compiled: str | None = None,
) -> list[OperationTime]:
    """Measures every operation of a file.

    Args:
        content: of the file.
        threads: threads of the kernels.
        cpus: processors to run on; empty: all.
        runs: paired measurements of each operation.
        seed: of the inputs.
        what: name of the progress bar.
        compiled: the accelerator of CompiledModel; None: the Interpreter.

    Returns:
        One entry for each operation, in running order.

    Raises:
        UsageError: the file cannot be cut into parts.
        RunError: the measuring process died.
    """
    cutter = Cutter(content)
    operations, previous = [], 1
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dcp_tf-profile-")))
        stopwatch = stack.enter_context(Stopwatch(threads, seed, cpus, compiled))
        for number, (kind, name) in enumerate(progress.bar(cutter.names(), what=what, unit=" operations"), start=1):
            path = folder / f"{number}.tflite"
            path.write_bytes(cutter.first(number))
            stopwatch.load(str(number), path)
            path.unlink()
            current = stopwatch.settle(str(number), 2)
            if number == 1:
                times = measure_interleaved([stopwatch], ["1"], [current], runs)[0]
            else:
                names = [str(number - 1), str(number)]
                pair = measure_interleaved([stopwatch, stopwatch], names, [previous, current], runs)
                times = pair[1] - pair[0]
                stopwatch.unload(str(number - 1))
            previous = current
            low, ms, high = (max(0.0, float(value)) for value in np.percentile(times, (25, 50, 75)))
            operations.append(OperationTime(kind, name, ms, low, high))
    return operations


def operations_table(operations: Sequence[OperationTime], name: str, longest: int = 20, unit: str = "ms"):
    """A `rich.table.Table` of the operations that take longest, and of all by kind.

    Args:
        operations: of one file.
        name: of the file.
        longest: rows.
        unit: of the numbers.
    """
    from rich.table import Table

    total = sum(operation.ms for operation in operations)
    by_kind: dict[str, float] = {}
    for operation in operations:
        by_kind[operation.kind] = by_kind.get(operation.kind, 0.0) + operation.ms
    kinds = ", ".join(f"{kind} {ms:.3f} {unit}" for kind, ms in sorted(by_kind.items(), key=lambda item: -item[1]))
    table = Table(
        title=f"Operations of {name}",
        caption=f"the {min(longest, len(operations))} longest of {len(operations)}, {total:.3f} {unit} in all: {kinds}",
    )
    for column in ("operation", unit, "share", "output"):
        table.add_column(column, justify="right" if column in (unit, "share") else "left", overflow="ellipsis")
    for operation in sorted(operations, key=lambda operation: -operation.ms)[:longest]:
        share = f"{operation.ms / total:.1%}" if total > 0 else ""
        table.add_row(operation.kind, f"{operation.ms:.3f}", share, operation.name.split(";")[0])
    return table
