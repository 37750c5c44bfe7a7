"""The process that measures: `python -m dcp_tf.tflite.latency.worker THREADS SEED [CPU,CPU,...]`.

It reads one JSON request a line from standard input and answers each with one line on standard output:

    {"load": NAME, "path": FILE}             {"delegate": "XNNPACK" or null}, or {"error": ...}
    {"measure": NAME, "invocations": N}      {"ms": the mean time of N consecutive inferences}
    {"unload": NAME}                         {}
    {"memory": true}                         {"peak_mib": ..., "idle_mib": ...}, null if the system does not report it

It exits when standard input closes, so it never outlives its parent process.
"""

import json
import os
import pathlib
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(threads: int, seed: int, cpus: list[int]) -> None:
    """Serves requests."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of the interpreter must not mix with the answers
    if cpus:
        os.sched_setaffinity(0, cpus)  # threads that are started later inherit it
    loaded: dict[str, Interpreter] = {}
    idle = _memory("VmRSS")
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            answer = _load(loaded, request, threads, seed)
        elif "measure" in request:
            answer = {"ms": measure(loaded[request["measure"]], request["invocations"])}
        elif "unload" in request:
            answer = {}
            del loaded[request["unload"]]
        else:
            answer = {"peak_mib": _memory("VmHWM"), "idle_mib": idle}
        print(json.dumps(answer), file=answers)


def _load(loaded: dict[str, Interpreter], request: dict, threads: int, seed: int) -> dict:
    try:
        interpreter = Interpreter(model_path=request["path"], num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return {"error": str(error)}
    fill_inputs(interpreter, np.random.default_rng(seed))
    loaded[request["load"]] = interpreter
    # A delegate adds an operation called DELEGATE for each part of the graph that it runs. XNNPACK is the only default.
    delegated = any(operation["op_name"] == "DELEGATE" for operation in interpreter._get_ops_details())
    return {"delegate": "XNNPACK" if delegated else None}


def fill_inputs(interpreter: Interpreter, random: np.random.Generator) -> None:
    """Fills the inputs with noise, because some kernels are faster on zeros than on images."""
    for detail in interpreter.get_input_details():
        if np.issubdtype(detail["dtype"], np.floating):
            values = random.random(detail["shape"])
        elif detail["dtype"] in (np.int8, np.uint8):
            limits = np.iinfo(detail["dtype"])
            values = random.integers(limits.min, limits.max, detail["shape"])
        else:  # indices and flags: zero is always valid
            values = np.zeros(detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))


def measure(interpreter: Interpreter, invocations: int) -> float:
    """Mean milliseconds of one inference over `invocations` consecutive ones."""
    start = time.perf_counter_ns()
    for _ in range(invocations):
        interpreter.invoke()
    return (time.perf_counter_ns() - start) / 1e6 / invocations


def _memory(field: str) -> float | None:
    """MiB of this process from Linux' /proc (getrusage would include the parent's memory at the fork)."""
    try:
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{field}:")), None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(cpu) for cpu in sys.argv[3].split(",")] if len(sys.argv) > 3 else [])
