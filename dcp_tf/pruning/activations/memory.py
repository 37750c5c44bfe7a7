"""How much memory a pass over a model takes, and how many images at once fit into what is allowed.

`--cache_gib` is shared out: one half holds tensors from one layer to the next, a quarter what one pass makes on its way
(with all activations that its gradients need), a quarter the matrices of the quadratic models.
"""

import gc
import math

import tensorflow as tf

from dcp_tf.graph.trace import Trace

_CACHED, _ACTIVATIONS, _MATRICES = 1 / 2, 1 / 4, 1 / 4
_LEAST = 2**26  # bytes for each of the last two, however small the cache


def bytes_per_image(trace: Trace) -> int:
    """What all tensors of a model take for one image: what a pass holds that takes gradients."""
    tensors = {t for call in trace.calls for t in call.outputs} | set(trace.inputs)
    return sum(tensor_bytes(trace, t) for t in tensors)


def tensor_bytes(trace: Trace, tensor: int) -> int:
    """What a tensor takes for one image; sizes that are not known count as 1."""
    values = math.prod(size or 1 for size in trace.shapes[tensor][1:])
    return math.ceil(values * (trace.rows[tensor] or 1)) * tf.as_dtype(trace.dtype(tensor)).size


def images_at_once(trace: Trace, cache_gib: float, most: int) -> int:
    """How many images a pass with gradients takes at once, at least 1.

    Args:
        trace: of the model.
        cache_gib: what is allowed for everything.
        most: images.
    """
    room = max(_LEAST, _ACTIVATIONS * cache_gib * 2**30)
    return max(1, min(most, int(room / bytes_per_image(trace))))


def cache_bytes(cache_gib: float) -> int:
    """What may hold tensors from one layer to the next."""
    return int(_CACHED * cache_gib * 2**30)


def matrix_bytes(cache_gib: float) -> int:
    """What may hold matrices of quadratic models."""
    return int(max(_LEAST, _MATRICES * cache_gib * 2**30))


def free_compiled() -> None:
    """Frees what compiled functions hold that nobody uses any more: they are in reference cycles."""
    gc.collect()
