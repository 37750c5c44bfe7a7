"""`graph_function`: functions compiled by TensorFlow, without its warnings about those of other objects."""

import functools
from collections.abc import Callable
from typing import Any


def graph_function(function: Callable, **settings: Any) -> Callable:
    """`tf.function` without autograph.

    TensorFlow counts the traces of all functions that share their code, such as a method of several objects or a
    function inside of another, and warns of "retracing" where each was traced once. A partial function has no code.

    Args:
        function: of tensors.
        **settings: of `tf.function`.
    """
    import tensorflow as tf  # here: programs silence its start-up, and this is imported before

    return tf.function(functools.partial(function), autograph=False, **settings)
