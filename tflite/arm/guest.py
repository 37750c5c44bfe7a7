"""The process that runs inside the emulator: `python guest.py`, with numpy, ai-edge-litert and loaded_file.py alone.

It reads one JSON request a line from standard input and answers each with one line on standard output:

    {"load": NAME, "path": FILE, "seed": N}     {"delegated": whether XNNPACK runs it}, or {"error": ...}
    {"count": NAME}                             {}, after marks that the counting plugin records: two without work
                                                between them, then one after each of two inferences
    {"run": NAME, "inputs": FILE.npz, "outputs": FILE.npz}
                                                {}: arrays i0, i1, ... by tensor index hold N samples each, in the
                                                types of the file; the outputs are written alike
    {"unload": NAME}                            {}
"""

import contextlib
import gc
import json
import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from loaded_file import fill_inputs  # of the latency folder, which is on the path here

_MARK = 0x6463705F7466  # see count.c


def main() -> None:
    """Serves requests."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of the interpreter must not mix with the answers
    gc.disable()  # a collection in the middle of a count would not repeat
    loaded: dict[str, Interpreter] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        try:
            if "load" in request:
                answer = _load(loaded, request)
            elif "count" in request:
                _count(loaded[request["count"]])
            elif "run" in request:
                _run(loaded[request["run"]], request["inputs"], request["outputs"])
            else:
                del loaded[request["unload"]]
        except (ValueError, RuntimeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers)


def _load(loaded: dict[str, Interpreter], request: dict) -> dict:
    interpreter = Interpreter(model_path=request["path"], num_threads=1)
    interpreter.allocate_tensors()
    fill_inputs(interpreter, np.random.default_rng(request["seed"]))
    loaded[request["load"]] = interpreter
    return {"delegated": any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())}


def _count(interpreter: Interpreter) -> None:
    for _ in range(2):  # the first inferences pack weights and touch memory
        interpreter.invoke()
    _mark()
    _mark()
    for _ in range(2):
        interpreter.invoke()
        _mark()


def _mark() -> None:
    with contextlib.suppress(OSError):
        os.lseek(-1, _MARK, 0)


def _run(interpreter: Interpreter, inputs: str, outputs: str) -> None:
    with np.load(inputs) as file:
        arrays = {int(name[1:]): file[name] for name in file.files}
    indices = [detail["index"] for detail in interpreter.get_output_details()]
    results: dict[int, list] = {index: [] for index in indices}
    for row in range(len(next(iter(arrays.values())))):
        for index, array in arrays.items():
            interpreter.set_tensor(index, array[row : row + 1])
        interpreter.invoke()
        for index in indices:
            results[index].append(interpreter.get_tensor(index))
    np.savez(outputs, **{f"o{index}": np.concatenate(rows) for index, rows in results.items()})


if __name__ == "__main__":
    main()
