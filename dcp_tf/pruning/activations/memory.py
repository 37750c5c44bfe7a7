"""The memory of a pass over a model, and how many images fit at once.

The setting `cache_gib` is divided: one half holds tensors from one layer to the next, a quarter the activations of one
pass with gradients, a quarter the matrices of the quadratic models.
"""

import gc
import math

import tensorflow as tf

from dcp_tf.graph.trace import Trace

_CACHED, _ACTIVATIONS, _MATRICES = 1 / 2, 1 / 4, 1 / 4
_LEAST = 2**26  # bytes for each of the last two, however small the cache


def bytes_per_image(trace: Trace) -> int:
    """Bytes of all tensors of a model for one image: what a pass with gradients holds."""
    tensors = {t for call in trace.calls for t in call.outputs} | set(trace.inputs)
    return sum(tensor_bytes(trace, t) for t in tensors)


def tensor_bytes(trace: Trace, tensor: int) -> int:
    """Bytes of a tensor for one image; unknown sizes count as 1."""
    values = math.prod(size or 1 for size in trace.sizes(tensor))
    return math.ceil(values * (trace.rows[tensor] or 1)) * tf.as_dtype(trace.dtype(tensor)).size


def images_at_once(trace: Trace, cache_gib: float, most: int) -> int:
    """How many images fit into a pass with gradients, at least 1.

    Args:
        trace: of the model.
        cache_gib: the setting.
        most: the largest number of images.
    """
    available = max(_LEAST, _ACTIVATIONS * cache_gib * 2**30)
    return max(1, min(most, int(available / bytes_per_image(trace))))


def cache_bytes(cache_gib: float) -> int:
    """Bytes for tensors from one layer to the next."""
    return int(_CACHED * cache_gib * 2**30)


def matrix_bytes(cache_gib: float) -> int:
    """Bytes for the matrices of quadratic models."""
    return int(max(_LEAST, _MATRICES * cache_gib * 2**30))


def free_compiled() -> None:
    """Frees unused compiled functions, which hold reference cycles."""
    gc.collect()
