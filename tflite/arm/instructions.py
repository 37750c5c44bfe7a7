"""Executed instructions of TFLite files on an emulated Arm core: the same number on every machine, but not a time."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.text_table import text_table
from dcp_tf.tflite.arm.emulator import Emulator
from dcp_tf.tflite.latency.operation_times import OperationTime
from dcp_tf.tflite.schema.subgraph import Cutter
from dcp_tf.tflite.types import TFLiteFile, read_content

NOT_TIME = "executed instructions of one inference on one thread; they repeat exactly, but are not time"
_MILLION = 1e6


@dataclasses.dataclass(frozen=True)
class InstructionCounts:
    """How many instructions an inference of each file executes.

    Attributes:
        counts: per candidate, in the given order.
        delegated: per candidate, whether XNNPACK runs some of it.
        machine: the emulated core and the emulator.
        seed: of the inputs.
        operations: per candidate those of each operation by itself, in millions, if that was asked for.
    """

    counts: dict[str, int]
    delegated: dict[str, bool]
    machine: str
    seed: int
    operations: dict[str, list[OperationTime]] | None = None

    @property
    def ratios(self) -> dict[str, float]:
        """The instructions of the first candidate over those of each (2.0: half as many)."""
        first = next(iter(self.counts.values()))
        return {name: first / count for name, count in self.counts.items()}

    def to_json(self) -> dict[str, Any]:
        """The content of benchmark.json."""
        return {
            "device": self.machine,
            "unit": "instructions",
            "about": NOT_TIME,
            "threads": 1,
            "seed": self.seed,
            "baseline": next(iter(self.counts)),
            "candidates": {
                name: {
                    "instructions": count,
                    "ratio": self.ratios[name],
                    "delegate": "XNNPACK" if self.delegated[name] else None,
                    **({"operations": self._operations(name)} if self.operations else {}),
                }
                for name, count in self.counts.items()
            },
        }

    def _operations(self, name: str) -> list[dict[str, Any]]:
        return [{"kind": o.kind, "name": o.name, "instructions": round(o.ms * _MILLION)} for o in self.operations[name]]

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the instructions and the ratio to the first."""
        rows = [(name, count, f"{self.ratios[name]:.2f}x") for name, count in self.counts.items()]
        print_fn(text_table(f"Instructions on {self.machine}", ("model", "instructions", "fewer"), rows, [NOT_TIME]))

    def table(self):
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table

        table = Table(title=f"Instructions on {self.machine}", caption=NOT_TIME)
        table.add_column("model", overflow="fold")
        for column in ("instructions", "fewer"):
            table.add_column(column, justify="right")
        table.add_column("delegate")
        for name, count in self.counts.items():
            table.add_row(
                name, f"{count:,}", f"{self.ratios[name]:.2f}x", "XNNPACK" if self.delegated[name] else "none"
            )
        return table


def count_instructions(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike],
    *,
    core: str = ARM_CORE,
    seed: int = 0,
    profile: bool = False,
) -> InstructionCounts:
    """Counts the instructions that one inference of each file executes on an emulated Arm core.

    Args:
        candidates: name -> converted model or path of a .tflite file. The others are compared with the first.
        core: name of the core: with dot products (cortex-a76), without (cortex-a53), ...
        seed: of the inputs' noise.
        profile: count each operation by itself too; equal ones are counted once.

    Raises:
        UsageError: Arm emulation is not set up, there is no such core, or a file is missing or not a TFLite model.
        RunError: the emulator died.
    """
    if not candidates:
        raise UsageError("there is nothing to count; give at least one file")
    counts, delegated, operations = {}, {}, {}
    known: dict[str, int] = {}
    with Emulator(core, seed) as emulator:
        for name, source in progress.bar(candidates.items(), what="Arm", total=len(candidates), unit=" files"):
            delegated[name] = emulator.load(name, source)
            counts[name] = emulator.count(name)
            emulator.unload(name)
            if profile:
                operations[name] = _count_operations(emulator, read_content(source), known)
    return InstructionCounts(counts, delegated, emulator.machine, seed, operations or None)


def _count_operations(emulator: Emulator, content: bytes, known: dict[str, int]) -> list[OperationTime]:
    """The operations of a file, each counted in a file of its own; `known` holds the counts by kind and shapes."""
    cutter, counted = Cutter(content), []
    for number, (kind, output) in enumerate(cutter.names()):
        key = f"{kind} {cutter.settings(number)}"
        if key not in known:
            emulator.load(key, cutter.alone(number))
            known[key] = emulator.count(key)
            emulator.unload(key)
        counted.append(OperationTime(kind, output, known[key] / _MILLION))
    return counted


class InstructionTimer(contextlib.AbstractContextManager):
    """A `Timer` whose unit is a million instructions on an emulated Arm core: no noise moves it.

    Args:
        core: name of the core.
        seed: of the inputs.

    Raises:
        UsageError: Arm emulation is not set up, or there is no such core.
        RunError: (when measuring) the emulator died.
    """

    unit = "M instructions"

    def __init__(self, core: str = ARM_CORE, seed: int = 0):
        self._emulator = Emulator(core, seed)
        self.machine = f"{self._emulator.machine}, {self.unit}"

    def __exit__(self, *exception) -> None:
        self._emulator.__exit__()

    def measure(self, contents: Mapping[str, bytes]) -> dict[str, float]:
        """Millions of instructions of one inference of each file."""
        counts = {}
        for name, content in contents.items():
            self._emulator.load(name, content)
            counts[name] = self._emulator.count(name) / _MILLION
            self._emulator.unload(name)
        return counts
