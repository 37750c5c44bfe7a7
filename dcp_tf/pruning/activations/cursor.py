"""The selection images on their way through a model: tensors at a cut, kept where the cache has room."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from dcp_tf.graph.trace import Trace
from dcp_tf.pruning.activations.cache import Cache, CachedBatches, Tensors
from dcp_tf.pruning.activations.memory import tensor_bytes


class Batches:
    """The values of some tensors for every batch, computed at each use until they are kept.

    Args:
        compute: the tensors of a batch.
        count: number of batches.
        size: bytes that the tensors of all batches take.
        cache: where they are kept.
    """

    def __init__(self, compute: Callable[[int], Tensors], count: int, size: int, cache: Cache):
        self.count = count
        self._compute, self._size, self._cache = compute, size, cache
        self._kept: CachedBatches | None = None
        self._is_asked = False

    def keep(self) -> None:
        """Computes and keeps all values where the cache has room: for those that need them more than once."""
        if not self._is_asked:
            self._kept, self._is_asked = self._cache.keep(self._compute, self.count, self._size), True

    def __getitem__(self, index: int) -> Tensors:
        return self._compute(index) if self._kept is None else self._kept[index]

    @property
    def cached(self) -> bool:
        """Whether the values are kept."""
        return self._kept is not None

    def release(self) -> None:
        """Frees the place; from here on the values are computed at each use."""
        if self._kept is not None:
            self._kept.release()
            self._kept = None


class ActivationCursor:
    """A walk of the selection images through a model, from layer to layer.

    The inputs of a layer do not change while it is selected, and what lies behind the cut never changes again. So each
    call of the model runs about once per image, however many layers are selected (Liu et al. 2021: cached inputs).
    """

    def __init__(self, trace: Trace, images: Sequence[Tensors], cache: Cache):
        """Stands before the first call.

        Args:
            trace: of the model.
            images: per batch the model's inputs; a list, or `SelectionImages`.
            cache: for the tensors at the cut; the images themselves are not counted.
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
        """Number of the call before which the images stand."""
        return self._cut

    def bytes_of(self, tensors: Sequence[int]) -> int:
        """The size of some tensors for all images."""
        return self.images_total * sum(tensor_bytes(self.trace, t) for t in tensors)

    def advance(self, cut: int) -> None:
        """Moves the images up to the call number `cut`, or to where they take less before it.

        Tensors that do not fit into memory are not written to files where few calls before them, such as in front of
        a block's expansion, the images are smaller: from there they are computed again. Where there is no room at all
        the images stay where they are.
        """
        if cut <= self._cut:
            return
        sizes = {c: self.bytes_of(live_tensors(self.trace, c)) for c in range(self._cut + 1, cut + 1)}
        mine = self._kept.size if self._kept is not None and self._kept.budget is self._cache.memory else 0
        if sizes[cut] > self._cache.memory.limit - self._cache.memory.used + mine:
            cut = max(sizes, key=lambda c: (-sizes[c], c))
        live = live_tensors(self.trace, cut)
        step = self.function(live)
        kept = self._cache.keep(lambda i: step(*self[i]), self.count, self.bytes_of(live), self._kept)
        if kept is not None:
            self._cut, self._live, self._kept = cut, live, kept

    def close(self) -> None:
        """Frees the tensors at the cut; the cursor stands before the first call again."""
        if self._kept is not None:
            self._kept.release()
        self._cut, self._live, self._kept = 0, list(self.trace.inputs), None

    def function(self, tensors: Sequence[int]) -> Callable[..., list[tf.Tensor]]:
        """A compiled function from the tensors at the cut to `tensors`, in inference mode."""
        live = list(self._live)

        def compute(*values):
            found = self.trace.run(dict(zip(live, values, strict=True)), tensors, training=False)
            return [found[t] for t in tensors]

        return compiled(compute, self[0])

    def __getitem__(self, index: int) -> Tensors:
        """The tensors at the cut for one batch."""
        return self._images[index] if self._kept is None else self._kept[index]

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers of the tensors at the cut."""
        return tuple(self._live)


def count_images(batches: Sequence[Tensors]) -> int:
    """How many images there are in all batches, which are not read where their number is known."""
    total = getattr(batches, "total", None)
    return sum(int(batch[0].shape[0]) for batch in batches) if total is None else total


def live_tensors(trace: Trace, cut: int) -> list[int]:
    """The tensors that exist before call number `cut` and are needed from there on."""
    made = set(trace.inputs).union(*(call.outputs for call in trace.calls[:cut]))
    needed = set(trace.outputs).union(*(call.inputs for call in trace.calls[cut:]))
    return sorted(made & needed)


def compiled(function: Callable, examples: Sequence, *more: tf.TensorSpec) -> Callable:
    """`function` as one graph for arguments nested like `examples`, of any batch size, and `more` after them."""
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), list(examples))
    return tf.function(function, input_signature=[*specs, *more], autograph=False)
