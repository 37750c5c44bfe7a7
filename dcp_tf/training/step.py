"""One training step, compiled once: forward, losses, gradients, SGD, masks and running means, all on the device."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training.losses import Distillation, Loss

# The weights that decay: those of convolutions and fully connected layers, as Keras names them. BatchNormalization's
# gamma and beta, biases and PReLU's alpha do not.
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")

# Places in the vector of running sums; one place per head follows.
_SAMPLES, _LOSS, _RIGHT, _HEADS = 0, 1, 2, 3


class TrainStep:
    """Stochastic gradient descent on one batch, with Nesterov momentum and L2 weight decay inside the gradient.

    The velocity is `v = momentum * v - rate * g`, as Keras and Sutskever et al. 2013 have it: the rate is inside v.

    Args:
        model: its trainable variables are trained.
        losses: one per output of the model, in the order of `keras.tree.flatten(outputs)`.
        loss_weights: one per loss.
        momentum: 0 to 1.
        nesterov: whether the momentum looks ahead.
        weight_decay: times the weight is added to the gradient, on kernels only.
        clip_norm: the largest global norm of the gradient (before the decay is added), or None.
        bn_sparsity: factor of the L1 norm of all trained BatchNormalization gammas in the loss; its subgradient
            `bn_sparsity * sign(gamma)` is added to their gradients as the decay is to those of kernels.
        masks: per variable, by its path or its `id()`, an array of 0 and 1 of its shape. Where it is 0, the weight is
            set to 0 at once and gets no gradient, so it stays exactly 0.
        teacher: from images to probabilities `(batch, classes)`. They are the labels where the data has none, and what
            a `Distillation` loss learns from.

    Raises:
        UsageError: losses, weights or masks do not fit the model, or there is no gamma for `bn_sparsity`.
    """

    def __init__(
        self,
        model: keras.Model,
        losses: Sequence[Loss],
        loss_weights: Sequence[float],
        *,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        clip_norm: float | None = None,
        bn_sparsity: float = 0.0,
        masks: Mapping[str | int, np.ndarray] | None = None,
        teacher: Callable | None = None,
    ):
        if len(loss_weights) != len(losses):
            raise UsageError(f"Expected one weight per loss, {len(losses)}. Received: {list(loss_weights)}")
        if not model.trainable_variables:
            raise UsageError(f"The model {model.name} has no trainable weights; unfreeze some layers")
        distils = any(isinstance(loss, Distillation) for loss in losses)
        if distils and teacher is None:
            raise UsageError("Distillation needs a teacher: fit(..., teacher=soft_targets(baseline, outputs_kind))")
        self._model, self._losses, self._loss_weights = model, list(losses), [float(w) for w in loss_weights]
        self._weight_decay, self._clip_norm, self._teacher, self._distils = weight_decay, clip_norm, teacher, distils
        self._bn_sparsity, self._gammas = bn_sparsity, _gammas(model) if bn_sparsity else set()
        self._masks = _resolve_masks(model, masks or {})
        self._optimizer = keras.optimizers.SGD(learning_rate=0.0, momentum=momentum, nesterov=nesterov)
        self._optimizer.build(model.trainable_variables)
        self._sums = tf.Variable(tf.zeros(_HEADS + len(losses), tf.float64), trainable=False)
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._first_bad = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._compiled = None
        self._all_finite = tf.function(self._finite_weights, autograph=False)
        self.tells_accuracy = hasattr(self._losses[-1], "accuracy")
        self.accuracy_name = getattr(self._losses[-1], "accuracy_name", "top1")

    @property
    def state(self) -> list[keras.Variable]:
        """The optimizer's variables: what a resumed run needs beside the model's own."""
        return self._optimizer.variables

    def start_epoch(self, element_spec) -> None:
        """Sets the running sums to zero and, the first time, compiles the step for batches of any length.

        Args:
            element_spec: of the data set: `(images, labels)`, or images alone (also as a tuple of one).

        Raises:
            UsageError: the data set's elements are neither, or there is neither a label nor a teacher, or a teacher
                that nothing would learn from.
        """
        self._sums.assign(tf.zeros_like(self._sums))
        self._steps.assign(0)
        self._first_bad.assign(0)
        if self._compiled is None:
            spec = keras.tree.map_structure(_any_batch, _as_batch(element_spec))
            self._check_labels(labelled=len(spec) == 2)
            self._compiled = tf.function(
                self._step, input_signature=(spec, tf.TensorSpec((), tf.float32)), autograph=False
            )

    def __call__(self, batch, learning_rate: float) -> None:
        """Trains on one batch; nothing is read back from the device."""
        self._compiled(_as_batch(batch), tf.constant(learning_rate, tf.float32))

    def first_bad_step(self) -> int | None:
        """The first step of this epoch (from 1) whose loss was not finite; None if all were."""
        return int(self._first_bad.numpy()) or None

    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite: the last step can spoil them after its own loss was fine."""
        return bool(self._all_finite().numpy())

    def means(self) -> tuple[float, list[float], float]:
        """Over the samples of this epoch: the weighted loss, the loss of each head, and the accuracy."""
        sums = self._sums.numpy()
        means = sums / max(sums[_SAMPLES], 1.0)
        return float(means[_LOSS]), [float(mean) for mean in means[_HEADS:]], float(means[_RIGHT])

    def _step(self, batch, learning_rate):
        images, labels = batch if len(batch) == 2 else (batch[0], None)
        taught = None if self._teacher is None else tf.stop_gradient(self._teacher(images))
        labels = taught if labels is None else labels
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(self._model(images, training=True))
            heads = self._head_losses(labels, taught, outputs)
            weighted = [weight * head for weight, head in zip(self._loss_weights, heads, strict=True)]
            loss = tf.add_n(weighted + [tf.cast(penalty, tf.float32) for penalty in self._model.losses])
        self._descend(tape, loss, learning_rate)
        self._count(labels, outputs, loss, heads)

    def _head_losses(self, labels, taught, outputs) -> list[tf.Tensor]:
        if len(outputs) != len(self._losses):
            raise UsageError(
                f"Expected one loss per output of the model, {len(outputs)}. Received: {len(self._losses)}"
            )
        heads = []
        for loss, output in zip(self._losses, outputs, strict=True):
            value = loss(labels, output, taught) if isinstance(loss, Distillation) else loss(labels, output)
            heads.append(tf.cast(value, tf.float32))
        return heads

    def _descend(self, tape, loss, learning_rate) -> None:
        variables = self._model.trainable_variables
        pairs = [(g, v) for g, v in zip(tape.gradient(loss, variables), variables, strict=True) if g is not None]
        if not pairs:
            raise UsageError(f"The loss depends on no trainable weight of the model {self._model.name}")
        gradients, variables = [tf.convert_to_tensor(g) for g, _ in pairs], [v for _, v in pairs]
        gradients = [self._masked(g, v) for g, v in zip(gradients, variables, strict=True)]
        if self._clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        if self._weight_decay:
            gradients = [
                g + self._weight_decay * tf.convert_to_tensor(v) if v.name in _KERNELS else g
                for g, v in zip(gradients, variables, strict=True)
            ]
        if self._bn_sparsity:
            gradients = [
                g + self._bn_sparsity * tf.sign(tf.convert_to_tensor(v)) if id(v) in self._gammas else g
                for g, v in zip(gradients, variables, strict=True)
            ]
        self._optimizer.learning_rate.assign(learning_rate)
        self._optimizer.apply(gradients, variables)

    def _masked(self, gradient, variable):
        mask = self._masks.get(id(variable))
        return gradient if mask is None else gradient * mask

    def _count(self, labels, outputs, loss, heads) -> None:
        samples = tf.shape(outputs[-1])[0]
        right = self._losses[-1].accuracy(labels, outputs[-1]) if self.tells_accuracy else tf.zeros((samples,))
        weighted = tf.cast(samples, tf.float64) * tf.cast(
            tf.stack([1.0, loss, tf.reduce_mean(right), *heads]), tf.float64
        )
        self._sums.assign_add(weighted)
        step = self._steps.assign_add(1)
        is_first = tf.logical_and(tf.equal(self._first_bad, 0), tf.logical_not(tf.math.is_finite(loss)))
        self._first_bad.assign(tf.where(is_first, step, self._first_bad))

    def _finite_weights(self):
        floats = [tf.convert_to_tensor(weight) for weight in self._model.weights]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in floats if w.dtype.is_floating])

    def _check_labels(self, *, labelled: bool) -> None:
        if not labelled and self._teacher is None:
            raise UsageError(
                "The training data has no labels. Give some, or a teacher whose predictions stand for them"
            )
        if labelled and self._teacher is not None and not self._distils:
            raise UsageError("A teacher was given, but the data has its own labels and no loss is a Distillation")


def _as_batch(element) -> tuple:
    """`(images, labels)` or `(images,)` from an element of a data set, or from its spec."""
    batch = tuple(element) if isinstance(element, list | tuple) else (element,)
    if len(batch) not in (1, 2):
        raise UsageError(f"Expected batches of images or of (images, labels). Received: tuples of {len(batch)}")
    return batch


def _any_batch(spec: tf.TensorSpec) -> tf.TensorSpec:
    if spec.shape.rank is None:
        raise UsageError("The batches' shapes are unknown; give from_generator a signature, or use tf.ensure_shape")
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _gammas(model: keras.Model) -> set[int]:
    """`id()` of the scales of all BatchNormalizations that are trained."""
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    found = {id(layer.gamma) for layer in norms if layer.gamma is not None and layer.trainable}
    if not found:
        raise UsageError(f"bn_sparsity needs BatchNormalization layers with a scale (gamma); {model.name} has none")
    return found


def _resolve_masks(model: keras.Model, masks: Mapping[str | int, np.ndarray]) -> dict[int, tf.Tensor]:
    """Masks by the variable's `id()`, on the device; sets what they remove to zero."""
    resolved = {}
    for key, mask in masks.items():
        found = [v for v in model.weights if key in (v.path, id(v))]
        if len(found) != 1:
            raise UsageError(
                f"Expected the path or id of one weight of {model.name}. Received: {key!r}, found {len(found)}"
            )
        mask = np.asarray(mask)
        if mask.shape != tuple(found[0].shape) or not np.isin(mask, (0, 1)).all():
            raise UsageError(
                f"Expected a mask of 0 and 1 of shape {tuple(found[0].shape)} for {key}. Received: shape {mask.shape}"
            )
        resolved[id(found[0])] = tf.constant(mask, found[0].dtype)
        found[0].assign(found[0] * resolved[id(found[0])])
    return resolved
