"""Kernel gradients of strided 1x1 convolutions, without the oneDNN kernel that writes outside of its memory.

With its default oneDNN kernels TensorFlow 2.21 crashes (a segmentation fault, "double free or corruption"), or silently
computes a wrong gradient, if a 1x1 convolution with a stride reads 2 to 15 channels of a map of about 56 pixels or more
(an even number): the shortcut of a small or a pruned residual network. A strided slice and a convolution without
strides compute the same sums.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# TensorFlow looks up gradients here for every tape, also inside of functions, loops and Keras 2 layers. There is no
# public way to replace one, and replacing layers' calls would miss custom layers.
from tensorflow.python.framework.ops import gradient_registry


def repair_strided_gradients() -> None:
    """Replaces the kernel gradient of strided 1x1 convolutions in this process.

    Their outputs, and the gradients of all other convolutions, are computed as before.
    """
    entry = gradient_registry._registry["Conv2D"]
    if not hasattr(entry["type"], "repaired"):
        entry["type"] = _repaired(entry["type"])


def _repaired(original: Callable) -> Callable:
    def gradient(op: Any, slopes: tf.Tensor) -> list[tf.Tensor]:
        if not _is_strided_point(op):
            return original(op, slopes)
        return [_backprop_input(op, slopes), _backprop_kernel(op, slopes)]

    gradient.repaired = True
    return gradient


def _is_strided_point(op: Any) -> bool:
    """Whether a convolution reads one position per output, and skips positions."""
    size = op.inputs[1].shape[:2]
    return size.is_fully_defined() and size.num_elements() == 1 and max(op.get_attr("strides")) > 1


def _backprop_input(op: Any, slopes: tf.Tensor) -> tf.Tensor:
    names = ("strides", "padding", "explicit_paddings", "dilations", "data_format", "use_cudnn_on_gpu")
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(op.inputs[0]), filter=op.inputs[1], out_backprop=slopes, **_attributes(op, names)
    )


def _backprop_kernel(op: Any, slopes: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=_positions_read(op),
        filter_sizes=tf.shape(op.inputs[1]),
        out_backprop=slopes,
        strides=[1, 1, 1, 1],
        padding="VALID",
        **_attributes(op, ("data_format", "use_cudnn_on_gpu")),
    )


def _positions_read(op: Any) -> tf.Tensor:
    """The input at the one position that each output reads, for any padding."""
    inputs = op.inputs[0]
    if tf.compat.as_str(op.get_attr("padding")) == "EXPLICIT":
        inputs = tf.pad(inputs, tf.reshape(op.get_attr("explicit_paddings"), (4, 2)))
    return tf.strided_slice(inputs, [0, 0, 0, 0], tf.shape(inputs), op.get_attr("strides"))


def _attributes(op: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: op.get_attr(name) for name in names}
