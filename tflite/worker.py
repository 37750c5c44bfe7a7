"""The process in which one candidate of a benchmark lives: `python -m dcp_tf.tflite.worker MODEL THREADS SEED`.

It answers on standard output, one JSON line each: first {"delegate": ...} or {"error": ...} once the model is loaded;
then, for every line on standard input with a number n, {"ms": ...}, the mean time of n inferences in a row.
It ends when standard input ends, so it never outlives the process that started it.
"""

import json
import os
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(path: str, threads: int, seed: int) -> None:
    """Loads the model and serves measurements."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever the interpreter prints must not land between the answers
    try:
        interpreter = Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        print(json.dumps({"error": str(error)}), file=answers)
        return
    fill_inputs(interpreter, np.random.default_rng(seed))
    # The operations that a delegate took over are followed by one called DELEGATE for each part of the graph that it
    # runs. XNNPACK is the only delegate that is applied by default.
    delegated = any(operation["op_name"] == "DELEGATE" for operation in interpreter._get_ops_details())
    print(json.dumps({"delegate": "XNNPACK" if delegated else None}), file=answers)
    for line in sys.stdin:
        print(json.dumps({"ms": measure(interpreter, int(line))}), file=answers)


def fill_inputs(interpreter: Interpreter, random: np.random.Generator) -> None:
    """Gives the inputs noise: zeros would let some kernels be faster than on images."""
    for detail in interpreter.get_input_details():
        if np.issubdtype(detail["dtype"], np.floating):
            values = random.random(detail["shape"])
        elif detail["dtype"] in (np.int8, np.uint8):
            limits = np.iinfo(detail["dtype"])
            values = random.integers(limits.min, limits.max, detail["shape"])
        else:  # indices and flags: zero is always allowed
            values = np.zeros(detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))


def measure(interpreter: Interpreter, invocations: int) -> float:
    """Mean milliseconds of one inference out of `invocations` in a row."""
    start = time.perf_counter_ns()
    for _ in range(invocations):
        interpreter.invoke()
    return (time.perf_counter_ns() - start) / 1e6 / invocations


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
