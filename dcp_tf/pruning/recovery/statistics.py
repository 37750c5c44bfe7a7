"""Matches the BatchNormalization statistics of a pruned model to its own activations."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.graph.trace import Trace
from dcp_tf.pruning.activations.cursor import Tensors, compiled


def match_statistics(trace: Trace, batches: Sequence[Tensors], fixed: Sequence[keras.Operation] = ()) -> int:
    """Stores in each BatchNormalization the statistics of its own inputs; the model's function stays the same.

    The outputs of fitted kernels have less variance than the stored statistics, since least squares shrinks what it
    cannot explain. Training would divide by the variance of the batch, and so undo the fit at its first step. With
    `s = sqrt(variance + epsilon)`, `gamma' = gamma s' / s` and `beta' = beta + gamma (mean' - mean) / s` the function
    is the same in inference mode, and in training mode up to the noise of the batches.

    Layers without gamma keep their variance, layers without beta their mean, and layers that are called several times
    both, as their function would change.

    Args:
        trace: of the pruned model, whose layers change.
        batches: per batch the model's inputs.
        fixed: layers that stay as they are.

    Returns:
        How many layers changed.
    """
    uses: dict[int, list] = {}
    fixed = {id(layer) for layer in fixed}
    for call in trace.calls:
        if isinstance(call.operation, keras.layers.BatchNormalization) and id(call.operation) not in fixed:
            uses.setdefault(id(call.operation), []).append(call)
    calls = [of_layer[0] for of_layer in uses.values() if len(of_layer) == 1 and _can_follow(of_layer[0].operation)]
    if not calls:
        return 0
    moments = _moments(trace, [(call.inputs[0], call.operation.axis) for call in calls], batches)
    for call, (mean, variance) in zip(calls, moments, strict=True):
        _store(call.operation, mean, variance)
    return len(calls)


def _can_follow(layer: keras.layers.BatchNormalization) -> bool:
    return layer.gamma is not None or layer.beta is not None


def _moments(
    trace: Trace, tensors: Sequence[tuple[int, int]], batches: Sequence[Tensors]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and variance per channel of some tensors over all batches, in inference mode."""

    def moments(*images):
        values = trace.run(dict(zip(trace.inputs, images, strict=True)), [t for t, _ in tensors], training=False)
        result = []
        for tensor, axis in tensors:
            value = tf.cast(values[tensor], tf.float32)
            others = [a for a in range(len(value.shape)) if a != axis % len(value.shape)]
            result.append(tf.nn.moments(value, others))
        return result

    function = compiled(moments, batches[0])
    sizes, of_batches = [], []
    for batch in batches:
        sizes.append(float(batch[0].shape[0]))
        of_batches.append([(m.numpy(), v.numpy()) for m, v in function(*batch)])
    result = []
    for of_tensor in zip(*of_batches, strict=True):
        means, variances = (np.stack(values).astype(np.float64) for values in zip(*of_tensor, strict=True))
        mean = np.average(means, axis=0, weights=sizes)
        result.append((mean, np.average(variances + (means - mean) ** 2, axis=0, weights=sizes)))
    return result


def _store(layer: keras.layers.BatchNormalization, mean: np.ndarray, variance: np.ndarray) -> None:
    old_mean, old_variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return
    if layer.gamma is None:
        variance = old_variance
    if layer.beta is None:
        mean = old_mean
    gamma = np.ones_like(mean) if layer.gamma is None else layer.gamma.numpy().astype(np.float64)
    scale, old_scale = np.sqrt(variance + layer.epsilon), np.sqrt(old_variance.astype(np.float64) + layer.epsilon)
    if layer.beta is not None:
        layer.beta.assign(layer.beta.numpy() + gamma * (mean - old_mean) / old_scale)
    if layer.gamma is not None:
        layer.gamma.assign(gamma * scale / old_scale)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
