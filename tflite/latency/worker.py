"""The process that measures: `python -m dcp_tf.tflite.latency.worker THREADS SEED [CPU,CPU,...]`.

It reads one JSON request a line from standard input and answers each with one line on standard output:

    {"load": NAME, "path": FILE,             {"delegate": "XNNPACK", "GPU" or null}, or {"error": ...}
        "compiled": ACCELERATOR or null}
    {"outputs": NAME, "path": FILE}          {}; one inference, its outputs are in the .npz file
    {"measure": NAME, "invocations": N}      {"ms": the mean time of N consecutive inferences}
    {"unload": NAME}                         {}
    {"memory": true}                         {"peak_mib": ..., "idle_mib": ...}, null if the system does not report it

It exits when standard input closes, so it never outlives its parent process.
"""

import importlib
import json
import os
import pathlib
import sys
import time

import numpy as np

from dcp_tf.tflite.latency.loaded_file import CompiledFile, InterpretedFile


def main(threads: int, seed: int, cpus: list[int]) -> None:
    """Serves requests."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of the interpreter must not mix with the answers
    if cpus:
        os.sched_setaffinity(0, cpus)  # threads that are started later inherit it
    loaded: dict[str, InterpretedFile | CompiledFile] = {}
    idle = _memory("VmRSS")
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            if request["compiled"] and not loaded:
                importlib.import_module("ai_edge_litert.compiled_model")
                idle = _memory("VmRSS")  # the runtime is not a part of the model
            answer = _load(loaded, request, threads, seed)
        elif "measure" in request:
            answer = {"ms": measure(loaded[request["measure"]], request["invocations"])}
        elif "outputs" in request:
            answer = {}
            loaded[request["outputs"]].invoke()
            np.savez(request["path"], *loaded[request["outputs"]].outputs())
        elif "unload" in request:
            answer = {}
            del loaded[request["unload"]]
        else:
            answer = {"peak_mib": _memory("VmHWM"), "idle_mib": idle}
        print(json.dumps(answer), file=answers)


def _load(loaded: dict, request: dict, threads: int, seed: int) -> dict:
    path, random, accelerator = request["path"], np.random.default_rng(seed), request["compiled"]
    try:
        file = (
            CompiledFile(path, threads, random, accelerator) if accelerator else InterpretedFile(path, threads, random)
        )
    except (ValueError, RuntimeError) as error:
        return {"error": str(error)}
    loaded[request["load"]] = file
    return {"delegate": file.delegate}


def measure(file: InterpretedFile | CompiledFile, invocations: int) -> float:
    """Mean milliseconds of one inference over `invocations` consecutive ones."""
    start = time.perf_counter_ns()
    for _ in range(invocations):
        file.invoke()
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
