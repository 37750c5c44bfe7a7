"""A file that is loaded and has inputs, in LiteRT's Interpreter or in its CompiledModel."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

# LiteRT's own text names lines of its source.
_REFUSED = {
    "cpu": "CompiledModel cannot run it",
    "gpu": "LiteRT found no GPU that it can use, or not all operations run there; an app would fall back to the CPU, "
    "which accelerator=cpu measures",
}


class InterpretedFile:
    """A file in the Interpreter.

    Args:
        path: of the file.
        threads: threads of the kernels.
        random: of the inputs.

    Raises:
        ValueError: the file cannot be run.
        RuntimeError: likewise.
    """

    def __init__(self, path: str, threads: int, random: np.random.Generator):
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        fill_inputs(self._interpreter, random)

    @property
    def delegate(self) -> str | None:
        """What runs the kernels; None for the built-in ones."""
        # A delegate adds an operation called DELEGATE for each part of the graph that it runs; XNNPACK is the default.
        delegated = any(operation["op_name"] == "DELEGATE" for operation in self._interpreter._get_ops_details())
        return "XNNPACK" if delegated else None

    def invoke(self) -> None:
        """Runs one inference."""
        self._interpreter.invoke()

    def outputs(self) -> list[np.ndarray]:
        """What the last inference gave, in the order of the tensors in the file."""
        indices = sorted(detail["index"] for detail in self._interpreter.get_output_details())
        return [self._interpreter.get_tensor(index) for index in indices]


class CompiledFile:
    """A file in CompiledModel, which gets the same inputs and has no way to fall back.

    Args:
        path: of the file.
        threads: threads of the kernels on the CPU.
        random: of the inputs.
        accelerator: "cpu" or "gpu".

    Raises:
        RuntimeError: the accelerator cannot run the file.
        ValueError: an input has a type that LiteRT's Python interface cannot write.
    """

    def __init__(self, path: str, threads: int, random: np.random.Generator, accelerator: str = "cpu"):
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, GpuOptions, HardwareAccelerator, Options

        options = Options(
            HardwareAccelerator[accelerator.upper()],
            CpuOptions(num_threads=threads),
            GpuOptions(benchmark_mode=True),  # otherwise a run returns before the GPU has finished
        )
        try:
            self._model = CompiledModel.from_file(path, options=options)
        except RuntimeError as error:
            raise RuntimeError(_REFUSED[accelerator]) from error
        key = self._model.get_signature_by_index(0)["key"]
        inputs, self._details = self._model.get_input_tensor_details(key), self._model.get_output_tensor_details(key)
        self._inputs, self._outputs = self._model.create_input_buffers(0), self._model.create_output_buffers(0)
        for detail, buffer in sorted(zip(inputs.values(), self._inputs, strict=True), key=lambda one: one[0]["index"]):
            buffer.write(noise(detail["shape"], np.dtype(detail["dtype"]), random))
        self.delegate = {"cpu": "XNNPACK", "gpu": "GPU"}[accelerator]

    def invoke(self) -> None:
        """Runs one inference."""
        self._model.run_by_index(0, self._inputs, self._outputs)

    def outputs(self) -> list[np.ndarray]:
        """What the last inference gave, in the order of the tensors in the file."""
        found = sorted(zip(self._details.values(), self._outputs, strict=True), key=lambda one: one[0]["index"])
        return [
            buffer.read(int(np.prod(detail["shape"])), np.dtype(detail["dtype"])).reshape(detail["shape"])
            for detail, buffer in found
        ]


def fill_inputs(interpreter: Interpreter, random: np.random.Generator) -> None:
    """Fills the inputs with `noise`, in the order of the tensors in the file."""
    for detail in sorted(interpreter.get_input_details(), key=lambda detail: detail["index"]):
        interpreter.set_tensor(detail["index"], noise(detail["shape"], detail["dtype"], random))


def noise(shape: np.ndarray, dtype: type, random: np.random.Generator) -> np.ndarray:
    """An input: noise, because some kernels are faster on zeros than on images."""
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    if dtype in (np.int8, np.uint8):
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape).astype(dtype)
    return np.zeros(shape, dtype)  # indices and flags: zero is always valid
