"""The activations of the selection images at a cut through the model, cached if they fit."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from dcp_tf.graph.trace import Trace
from dcp_tf.graph_function import graph_function
from dcp_tf.pruning.activations.cache import Cache, CachedBatches, Tensors
from dcp_tf.pruning.activations.memory import tensor_bytes


class Batches:
    """The values of some tensors for every batch, computed at each use until they are cached.

    Args:
        compute: the tensors of a batch.
        count: number of batches.
        size: bytes of the tensors of all batches.
        cache: for the values.
    """

    def __init__(self, compute: Callable[[int], Tensors], count: int, size: int, cache: Cache):
        self.count = count
        self._compute, self._size, self._cache = compute, size, cache
        self._kept: CachedBatches | None = None
        self._is_asked = False

    def keep(self) -> None:
        """Computes and caches all values if they fit."""
        if not self._is_asked:
            self._kept, self._is_asked = self._cache.keep(self._compute, self.count, self._size), True

    def __getitem__(self, index: int) -> Tensors:
        return self._compute(index) if self._kept is None else self._kept[index]

    def release(self) -> None:
        """Frees the values; from here on they are computed at each use."""
        if self._kept is not None:
            self._kept.release()
            self._kept = None


class Joined:
    """The values of two `Batches` side by side."""

    def __init__(self, *parts: Batches):
        self._parts = parts

    def keep(self) -> None:
        """As `Batches.keep`."""
        for part in self._parts:
            part.keep()

    def __getitem__(self, index: int) -> Tensors:
        return [tensor for part in self._parts for tensor in part[index]]

    def release(self) -> None:
        """As `Batches.release`."""
        for part in self._parts:
            part.release()


class ActivationCursor:
    """Moves the selection images through a model, from layer to layer.

    The inputs of a layer do not change while it is selected, and the layers before the cut never change again. So each
    call of the model runs about once per image, however many layers are selected (Liu et al. 2021: cached inputs).
    """

    def __init__(self, trace: Trace, images: Sequence[Tensors], cache: Cache):
        """Starts before the first call.

        Args:
            trace: of the model.
            images: per batch the model's inputs; a list, or `SelectionImages`.
            cache: for the tensors at the cut; it does not count the images themselves.
        """
        self.trace = trace
        self.images_total = count_images(images)
        self._cache = cache
        self._images = images
        self._cut = 0
        self._live = list(trace.inputs)
        self._kept: CachedBatches | None = None

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(self._images)

    @property
    def cut(self) -> int:
        """Index of the call before which the images are."""
        return self._cut

    def bytes_of(self, tensors: Sequence[int]) -> int:
        """The size of some tensors for all images."""
        return self.images_total * sum(tensor_bytes(self.trace, t) for t in tensors)

    def advance(self, cut: int) -> None:
        """Moves the images to the call `cut`, or to an earlier one where they are smaller.

        Tensors that do not fit into memory are not written to files if they are smaller a few calls earlier, such as
        before a block's expansion: they are computed again from there. If nothing fits, the images stay.
        """
        if cut <= self._cut:
            return
        sizes = {c: self.bytes_of(live_tensors(self.trace, c)) for c in range(self._cut + 1, cut + 1)}
        own = self._kept.size if self._kept is not None and self._kept.budget is self._cache.memory else 0
        if sizes[cut] > self._cache.memory.limit - self._cache.memory.used + own:
            cut = max(sizes, key=lambda c: (-sizes[c], c))
        live = live_tensors(self.trace, cut)
        step = self.function(live)
        kept = self._cache.keep(lambda i: step(*self[i]), self.count, self.bytes_of(live), self._kept)
        if kept is not None:
            self._cut, self._live, self._kept = cut, live, kept

    def close(self) -> None:
        """Frees the tensors at the cut and returns to the first call."""
        if self._kept is not None:
            self._kept.release()
        self._cut, self._live, self._kept = 0, list(self.trace.inputs), None

    def function(self, tensors: Sequence[int]) -> Callable[..., list[tf.Tensor]]:
        """A compiled function from the tensors at the cut to `tensors`, in inference mode."""
        live = list(self._live)

        def compute(*values):
            computed = self.trace.run(dict(zip(live, values, strict=True)), tensors, training=False)
            return [computed[t] for t in tensors]

        return compiled(compute, self[0])

    def __getitem__(self, index: int) -> Tensors:
        """The tensors at the cut for one batch."""
        return self._images[index] if self._kept is None else self._kept[index]

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the tensors at the cut."""
        return tuple(self._live)


def count_images(batches: Sequence[Tensors]) -> int:
    """The number of images in all batches; batches with a known `total` are not read."""
    total = getattr(batches, "total", None)
    return sum(int(batch[0].shape[0]) for batch in batches) if total is None else total


def live_tensors(trace: Trace, cut: int) -> list[int]:
    """The tensors that exist before the call `cut` and are needed from there on."""
    computed = set(trace.inputs).union(*(call.outputs for call in trace.calls[:cut]))
    needed = set(trace.outputs).union(*(call.inputs for call in trace.calls[cut:]))
    return sorted(computed & needed)


def compiled(function: Callable, examples: Sequence, *more: tf.TensorSpec) -> Callable:
    """`function` as one graph for arguments nested like `examples`, of any batch size, followed by `more`."""
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), list(examples))
    return graph_function(function, input_signature=[*specs, *more])
