"""The selection images on their way through a model: tensors at a cut, kept in memory where the budget allows."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from dcp_tf.graph.trace import Trace


class MemoryBudget:
    """Counts the bytes that caches hold against a limit."""

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        """Reserves `size` bytes; False, and nothing reserved, where the limit would be passed."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Gives `size` bytes back."""
        self.used -= size


class Batches:
    """The values of some tensors for every batch: held where the budget allows, else computed at each use."""

    def __init__(self, compute: Callable[[int], list[tf.Tensor]], count: int, size: int, budget: MemoryBudget):
        self.count = count
        self._compute = compute
        self._size = size
        self._budget = budget
        self._held = [compute(i) for i in range(count)] if budget.take(size) else None

    def __getitem__(self, index: int) -> list[tf.Tensor]:
        return self._compute(index) if self._held is None else self._held[index]

    @property
    def cached(self) -> bool:
        """Whether the values are held in memory."""
        return self._held is not None

    def release(self) -> None:
        """Frees the memory."""
        if self._held is not None:
            self._held = None
            self._budget.release(self._size)


class Walk:
    """A walk of the selection images through a model, from layer to layer.

    The inputs of a layer do not change while it is selected, and what lies behind the cut never changes again. So each
    call of the model runs about once per image, however many layers are selected (Liu et al. 2021: cached inputs).
    """

    def __init__(self, trace: Trace, images: Sequence[Sequence[tf.Tensor]], budget: MemoryBudget):
        """Stands before the first call.

        Args:
            trace: of the model.
            images: per batch the model's inputs.
            budget: for the tensors at the cut; the images themselves are not counted.
        """
        self.trace = trace
        self.images_total = sum(int(batch[0].shape[0]) for batch in images)
        self._budget = budget
        self._images = images
        self._cut = 0
        self._live = list(trace.inputs)
        self._values = [list(batch) for batch in images]
        self._size = 0

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._images)

    @property
    def cut(self) -> int:
        """Number of the call before which the images stand."""
        return self._cut

    def bytes_of(self, tensors: Sequence[int]) -> int:
        """The size of some tensors for all images."""
        sizes = (math.prod(self.trace.shapes[t][1:]) * tf.as_dtype(self.trace.dtype(t)).size for t in tensors)
        return self.images_total * sum(sizes)

    def advance(self, cut: int) -> None:
        """Moves the images up to the call number `cut`; stays where it is if the tensors there do not fit."""
        live = live_tensors(self.trace, cut)
        size = self.bytes_of(live)
        self._budget.release(self._size)
        if cut <= self._cut or not self._budget.take(size):
            self._budget.take(self._size)
            return
        step = self.function(live)
        # Batch by batch in place: the old and the new tensors are never all in memory together.
        for index, values in enumerate(self._values):
            self._values[index] = step(*values)
        self._cut, self._live, self._size = cut, live, size

    def close(self) -> None:
        """Frees the tensors at the cut; the walk cannot be used any more."""
        self._budget.release(self._size)
        self._values = []

    def function(self, tensors: Sequence[int]) -> Callable[..., list[tf.Tensor]]:
        """A compiled function from the tensors at the cut to `tensors`, in inference mode."""
        live = list(self._live)

        def compute(*values):
            found = self.trace.run(dict(zip(live, values, strict=True)), tensors, training=False)
            return [found[t] for t in tensors]

        return compiled(compute, self._values[0])

    def __getitem__(self, index: int) -> list[tf.Tensor]:
        """The tensors at the cut for one batch."""
        return self._values[index]

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the tensors at the cut."""
        return tuple(self._live)


def live_tensors(trace: Trace, cut: int) -> list[int]:
    """The tensors that exist before call number `cut` and are needed from there on."""
    made = set(trace.inputs).union(*(call.outputs for call in trace.calls[:cut]))
    needed = set(trace.outputs).union(*(call.inputs for call in trace.calls[cut:]))
    return sorted(made & needed)


def compiled_for(function: Callable, examples: Sequence, *more: tf.TensorSpec) -> Callable:
    """`function` as one graph for arguments nested like `examples`, of any batch size, and `more` after them."""
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), list(examples))
    return tf.function(function, input_signature=[*specs, *more], autograph=False)


def compiled(function: Callable, examples: Sequence[tf.Tensor]) -> Callable:
    """`function` as one graph for any batch size of tensors like `examples`."""
    signature = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in examples]
    return tf.function(function, input_signature=signature, autograph=False)
