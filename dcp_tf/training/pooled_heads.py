"""Trains auxiliary heads on pooled features: if the model itself is frozen, one pass over it is enough.

A head is `Dense(AvgPool(ReLU(BatchNorm(feature map))))`. Once the statistics of BatchNormalization are measured, the
input of its last layers depends only on the image: it is computed once, and the last layers train on vectors, in
seconds.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import DataSplit
from dcp_tf.errors import RunError
from dcp_tf.graph.trace import Trace
from dcp_tf.graph_function import graph_function
from dcp_tf.models.signature import pack
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.best_weights import BestWeights
from dcp_tf.training.heads import AugmentedModel
from dcp_tf.training.losses import Loss, loss_of
from dcp_tf.training.optimizer import Optimizer
from dcp_tf.training.targets import complete_labels, split_batch

_MOST_IMAGES = 20_000  # more do not help heads of so few weights
_STATISTICS = 512  # images that BatchNormalization's statistics are measured on
_STEPS = 1000  # at least, up to
_EPOCHS = 100
_HELD_OUT = (0.1, 1000)  # fraction of the images, and the most, that select the best epoch
_POOLING = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A head in two parts: `front` up to the pooled vectors, with `norm` in it, and `last` from there on."""

    norm: keras.layers.BatchNormalization
    front: keras.Model
    last: keras.Model


def are_pooled(heads: Sequence[keras.Model]) -> bool:
    """Whether all heads pool right after their BatchNormalization and ReLU."""
    return all(_parts(part) is not None for head in heads for part in _by_output(head))


def train_pooled_heads(
    augmented: AugmentedModel,
    trace: Trace,
    data: DataSplit,
    losses: Sequence[Loss],
    config: TrainConfig,
    teacher: Callable | None,
    batch_size: int,
    most_bytes: int,
) -> dict[str, Any]:
    """Trains the heads of a model in place; the model itself does not change.

    Args:
        augmented: the model with its heads, for which `are_pooled` holds.
        trace: of the model without them.
        data: to learn from; it is read once, without augmentation.
        losses: one per head; of a head with several outputs a joint loss, whose parts are trained apart.
        config: the batch size, learning rate, schedule, weight decay, seed, and the least number of epochs.
        teacher: from inputs to labels, for outputs without any.
        batch_size: images per pass of the model.
        most_bytes: for the pooled vectors.

    Returns:
        A record as `fit` returns one per epoch; losses and accuracy are those of held-out images.

    Raises:
        RunError: a loss became NaN.
    """
    started = time.perf_counter()
    served = [part for head, loss in zip(augmented.heads, losses, strict=True) for part in _served(head, loss)]
    parts = [_parts(part.head) for part in served]
    tensors = [
        position.tensor
        for position, head in zip(augmented.positions, augmented.heads, strict=True)
        for _ in _by_output(head)
    ]
    width = sum(part.last.inputs[0].shape[-1] for part in parts)
    count = max(1, min(data.size, _MOST_IMAGES, most_bytes // (4 * width)))
    order = np.random.default_rng([config.seed, 1]).permutation(data.balanced_subset(count, config.seed))
    features_of = _compiled(trace, tensors, [part.front for part in parts])
    _measure_statistics(_compiled(trace, tensors, None), data, order[:_STATISTICS], [p.norm for p in parts], batch_size)
    vectors: list[list[np.ndarray]] = [[] for _ in parts]
    targets = []
    for inputs, labels, weights in _batches(data, order, batch_size, "reading features"):
        labels = complete_labels(labels, None if teacher is None else teacher(inputs))
        targets.append((labels, weights))
        for of_head, values in zip(vectors, features_of(inputs), strict=True):
            of_head.append(values.numpy())
    labels, weights = tf.nest.map_structure(
        lambda *batches: None if batches[0] is None else np.concatenate(batches), *targets
    )
    trained = [
        _train(part.last, np.concatenate(of_head), *of_part.targets(labels, weights), of_part.loss, config)
        for of_part, part, of_head in zip(served, parts, vectors, strict=True)
    ]
    by_head, remaining = [], iter(trained)
    for loss in losses:
        names = getattr(loss, "names", ("",))
        by_head.append({name: next(remaining)[0] for name in names})
    totals = [_total(loss, values) for loss, values in zip(losses, by_head, strict=True)]
    record = {
        "epoch": 1,
        "loss": float(np.dot(augmented.loss_weights()[: len(losses)], totals)),
        "losses": totals,
        "learning_rate": config.learning_rate,
        "seconds": time.perf_counter() - started,
    }
    if hasattr(losses[0], "names"):
        names = dict.fromkeys(name for by_output in by_head for name in by_output)
        record |= {f"{name}_losses": [by_output.get(name) for by_output in by_head] for name in names}
    elif hasattr(losses[0], "accuracy"):
        record[getattr(losses[0], "accuracy_name", "top1")] = trained[-1][1]
    return record


@dataclasses.dataclass(frozen=True)
class _Served:
    """One output of a head: the part of the head that gives it, its name if there are several, and its loss."""

    head: keras.Model
    name: str
    loss: Loss

    def targets(self, labels: Any, weights: Any) -> tuple[Any, Any]:
        """Its own of the labels and sample weights."""
        if not self.name:
            return labels, weights
        return labels[self.name], None if weights is None else weights.get(self.name)


def _served(head: keras.Model, loss: Loss) -> list[_Served]:
    if not hasattr(loss, "names"):
        return [_Served(head, "", loss)]
    return [_Served(*part) for part in zip(_by_output(head), loss.names, loss.losses, strict=True)]


def _by_output(head: keras.Model) -> list[keras.Model]:
    """The parts of a head that give one output each; a head of one output is its only part."""
    return [layer for layer in head.layers if isinstance(layer, keras.Model)] or [head]


def _total(loss: Loss, by_output: Mapping[str, float]) -> float:
    values = list(by_output.values())
    return float(np.dot(loss.loss_weights, values)) if hasattr(loss, "names") else values[0]


def _parts(head: keras.Model) -> _Parts | None:
    """The two parts of a head; None if it is built in another way."""
    layers = [layer for layer in head.layers if not isinstance(layer, keras.layers.InputLayer)]
    kinds = [keras.layers.BatchNormalization, keras.layers.ReLU]
    kinds += [_POOLING] if len(head.inputs[0].shape) > 2 else []
    kinds += [keras.layers.Dense]
    if len(layers) < len(kinds) or not all(map(isinstance, layers, kinds)) or layers[len(kinds) - 1].bias is None:
        return None
    pooled = layers[len(kinds) - 1].input
    front, last = keras.Model(head.inputs[0], pooled), keras.Model(pooled, head.outputs[0])
    return _Parts(layers[0], front, last)


def _compiled(trace: Trace, tensors: Sequence[int], fronts: Sequence[keras.Model] | None) -> Callable:
    """From inputs to the outputs of the heads' fronts, or without these to the tensors that the heads read."""

    def compute(inputs):
        values = trace.run(trace.bind_inputs(inputs), tensors, training=False)
        if fronts is not None:
            return [tf.cast(f(values[t], training=False), tf.float32) for f, t in zip(fronts, tensors, strict=True)]
        return [tf.cast(values[t], tf.float32) for t in tensors]

    # Batches are float32, also of class or word numbers.
    specs = [tf.TensorSpec([None, *trace.shapes[t][1:]], tf.float32) for t in trace.inputs]
    return graph_function(compute, input_signature=[pack(specs)])


def _measure_statistics(
    compute: Callable,
    data: DataSplit,
    order: np.ndarray,
    norms: Sequence[keras.layers.BatchNormalization],
    batch_size: int,
) -> None:
    """Sets the statistics of each BatchNormalization to those of its inputs, over images and positions."""
    sums = [np.zeros((2, norm.moving_mean.shape[0])) for norm in norms]
    counts = np.zeros(len(norms))
    for inputs, *_ in _batches(data, order, batch_size, "measuring features"):
        for i, (values, norm) in enumerate(zip(compute(inputs), norms, strict=True)):
            axis = norm.axis % len(values.shape)
            others = [a for a in range(len(values.shape)) if a != axis]
            sums[i] += [tf.reduce_sum(values, others), tf.reduce_sum(tf.square(values), others)]
            counts[i] += math.prod(values.shape[a] for a in others)
    for (total, squares), count, norm in zip(sums, counts, norms, strict=True):
        mean = total / count
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(np.maximum(squares / count - mean**2, 0))


def _batches(data: DataSplit, order: np.ndarray, batch_size: int, what: str):
    """Batches of inputs, labels and sample weights, or None in place of these."""
    count = math.ceil(len(order) / batch_size)
    batches = data.batches(batch_size, indices=order)
    for batch in progress.bar(batches, what=f"auxiliary classifiers: {what}", total=count, unit="batch"):
        yield split_batch(batch)


def _train(
    last: keras.Model,
    vectors: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    loss: Loss,
    config: TrainConfig,
) -> tuple[float, float]:
    """Trains the last layers of a head, with Adam unless told otherwise, and keeps the weights of the best epoch.

    Returns:
        The loss and the accuracy (NaN if the loss has none) on the held-out images.
    """
    mean, scale = vectors.mean(0), vectors.std(0)
    scale = np.maximum(scale, 0.01 * scale.max() + 1e-12)  # features that hardly vary here may vary elsewhere
    vectors = (vectors - mean) / scale
    held_out = min(int(_HELD_OUT[0] * len(vectors)), _HELD_OUT[1])
    trained = len(vectors) - held_out
    per_epoch = math.ceil(trained / config.batch_size)
    epochs = max(config.epochs, min(_EPOCHS, math.ceil(_STEPS / per_epoch)))
    data = tuple(None if part is None else tf.constant(part) for part in (vectors, labels, weights))
    test_vectors, test_labels, test_weights = (
        part[trained:] if held_out and part is not None else part for part in data
    )
    step, rate = _descent_step(last, *data, loss, config), config.rate()

    def held_out_loss():
        return loss_of(loss, test_labels, last(test_vectors, training=False), weights=test_weights)

    measure = graph_function(held_out_loss)
    rng = np.random.default_rng([config.seed, 2])
    best = BestWeights(last.trainable_variables, float(measure()))
    if not math.isfinite(best.loss):
        raise RunError(
            f"the loss of the auxiliary classifier {last.name} is {best.loss} before training; check the images"
        )
    for epoch in range(epochs):
        order = rng.permutation(trained)
        for start in range(0, trained, config.batch_size):
            progressed = (epoch + (start + config.batch_size / 2) / trained) / epochs  # of the schedule
            learning_rate = rate(min(progressed, 1.0) * config.epochs)
            step(order[start : start + config.batch_size], learning_rate)
        value = float(measure())
        if not math.isfinite(value):
            raise RunError(
                f"the loss became NaN in auxiliary fine-tuning (epoch {epoch + 1} of {last.name}); lower "
                f"auxiliary.learning_rate (now {config.learning_rate:g})",
                setting="auxiliary.learning_rate",
            )
        best.offer(value)
    best.restore()
    outputs = last(test_vectors, training=False)
    accuracy = float(tf.reduce_mean(loss.accuracy(test_labels, outputs))) if hasattr(loss, "accuracy") else math.nan
    _absorb_scaling(last, mean, scale)
    return best.loss, accuracy


def _descent_step(
    last: keras.Model, vectors: tf.Tensor, labels: tf.Tensor, weights: Any, loss: Loss, config: TrainConfig
) -> Callable[[np.ndarray, float], None]:
    """A compiled step on some of the vectors, given their positions and the learning rate."""
    variables = last.trainable_variables
    kernels = [v for v in variables if len(v.shape) > 1]
    optimizer = Optimizer(config, variables, lambda v: len(v.shape) > 1, by_default=keras.optimizers.Adam)
    decay = config.weight_decay if config.is_plain_sgd else 0.0  # others decay weights themselves

    def descend(chosen):
        with tf.GradientTape() as tape:
            outputs = last(tf.gather(vectors, chosen), training=True)
            own = None if weights is None else tf.gather(weights, chosen)
            value = loss_of(loss, tf.gather(labels, chosen), outputs, weights=own)
            norms = [tf.nn.l2_loss(tf.convert_to_tensor(v)) for v in kernels]
            value += decay * tf.add_n([tf.constant(0.0), *norms])
        optimizer.keras.apply(tape.gradient(value, variables), variables)

    compiled = graph_function(descend, input_signature=[tf.TensorSpec([None], tf.int64)])

    def step(chosen, learning_rate):
        optimizer.set_rate(learning_rate)
        compiled(tf.constant(chosen))

    return step


def _absorb_scaling(last: keras.Model, mean: np.ndarray, scale: np.ndarray) -> None:
    """Moves the centering and scaling of the vectors into the first of the last layers."""
    dense = next(layer for layer in last.layers if isinstance(layer, keras.layers.Dense))
    kernel = dense.kernel.numpy() / scale[:, None]
    dense.kernel.assign(kernel)
    dense.bias.assign(dense.bias.numpy() - mean @ kernel)
