"""One compiled training step: forward, losses, gradients, update, masks and running means, all on the device."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.graph.kinds import KERNEL_NAMES, layers_of
from dcp_tf.graph_function import graph_function
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.distribution import replica_shares
from dcp_tf.training.joint_loss import outputs_for
from dcp_tf.training.layers import batch_norms, compute_dtype_scope, override_attribute
from dcp_tf.training.losses import Distillation, Loss, loss_of, smoothed
from dcp_tf.training.masks import resolve_masks
from dcp_tf.training.optimizer import Optimizer
from dcp_tf.training.step_state import LossScale, MovingAverage
from dcp_tf.training.targets import complete_labels

# Without a limit a few steps with large gradients diverge: after recurrent layers, in networks trained with Adam, and
# in pruned ones, whose loss with the statistics of a batch may be hundreds of times that with the stored ones.
_CLIP_NORM = 1.0

# Indices in the vector of running sums; one per head follows.
_SAMPLES, _LOSS, _CORRECT, _HEADS = 0, 1, 2, 3


class TrainStep:
    """Gradient descent on one batch: by default SGD with Nesterov momentum and L2 weight decay inside the gradient.

    The velocity is `v = momentum * v - rate * g`, as in Keras and Sutskever et al. 2013: it includes the rate. Other
    optimizers get the gradient of the loss, limited in norm, and decay weights themselves.

    Args:
        model: its trainable variables are trained. Under a strategy its variables are that strategy's.
        losses: one per output of the model, in the order of `keras.tree.flatten(outputs)`.
        loss_weights: one per loss.
        config: how to train. SGD's weight decay and the sparsity of gammas are added to the clipped gradient.
        masks: per variable, by its path or its `id()`, an array of 0 and 1 of its shape. Where it is 0, the weight is
            set to 0, gets no gradient, and is set to 0 again after each step.
        teacher: from images to probabilities `(batch, classes)`. They are the labels for data without any, and the
            targets of a `Distillation`.
        strategy: of `tf.distribute`, whose replicas share each batch; None: one device.

    Attributes:
        clip_norm: the largest norm of the gradient, from the configuration or else the losses; 0: no limit here, as
            where the optimizer limits the gradient itself.
        optimizer: what updates the weights.

    Raises:
        UsageError: losses, weights or masks do not fit the model, or there is no gamma for `bn_sparsity`.
    """

    def __init__(
        self,
        model: keras.Model,
        losses: Sequence[Loss],
        loss_weights: Sequence[float],
        config: TrainConfig,
        *,
        masks: Mapping[str | int, np.ndarray] | None = None,
        teacher: Callable | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ):
        if len(loss_weights) != len(losses):
            raise UsageError(f"Expected one weight per loss, {len(losses)}. Received: {list(loss_weights)}")
        if not model.trainable_variables:
            raise UsageError(f"The model {model.name} has no trainable weights; unfreeze some layers")
        self._distils = any(isinstance(loss, Distillation) for loss in losses)
        if self._distils and teacher is None:
            raise UsageError("Distillation needs a teacher: fit(..., teacher=soft_targets(baseline, outputs_kind))")
        self._model, self._loss_weights = model, [float(w) for w in loss_weights]
        self._losses = [smoothed(loss, config.label_smoothing) for loss in losses]
        self._config, self._teacher, self._strategy = config, teacher, strategy
        self._gammas = _gammas(model) if config.bn_sparsity else set()
        self._decaying = _decaying(model, config.decay) if config.weight_decay else set()
        self._masks = resolve_masks([(v, v) for v in model.weights], masks or {})
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            self.optimizer = Optimizer(config, model.trainable_variables, lambda v: id(v) in self._decaying)
            self._scale = LossScale() if config.mixed_precision == "float16" else None
            self.average = MovingAverage(model, config.ema) if config.ema else None
        self.clip_norm = _clip_norm(losses, config, self.optimizer.limits_gradient)
        self.figure_names = tuple(getattr(self._losses[-1], "figure_names", ()))  # of each output of a joint loss
        self._sums = tf.Variable(tf.zeros(_HEADS + len(losses) + len(self.figure_names), tf.float64), trainable=False)
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._first_bad = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._compiled = None
        self._all_finite = graph_function(self._finite_weights)
        self.has_accuracy = hasattr(self._losses[-1], "accuracy")
        self.accuracy_name = getattr(self._losses[-1], "accuracy_name", "top1")

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs besides the model's own variables."""
        others = [part.state for part in (self._scale, self.average) if part is not None]
        return [*self.optimizer.keras.variables, *(variable for state in others for variable in state)]

    def start_epoch(self, element_spec) -> None:
        """Sets the running sums to zero and, the first time, compiles the step for batches of any length.

        Args:
            element_spec: of the data set: `(images, labels)`, or images alone (also as a tuple of one).

        Raises:
            UsageError: the elements are of another form, there are neither labels nor a teacher, or the teacher has no
                use.
        """
        self._sums.assign(tf.zeros_like(self._sums))
        self._steps.assign(0)
        self._first_bad.assign(0)
        if self._compiled is None:
            spec = keras.tree.map_structure(_any_batch, _as_batch(element_spec))
            self._check_labels(spec[1] if len(spec) > 1 else None)
            if self._strategy is None:
                self._compiled = graph_function(self._step, input_signature=(spec,))
            else:  # replicas may need the shapes of their parts
                self._compiled = graph_function(self._distributed_step)

    def __call__(self, batch) -> None:
        """Trains on one batch at the optimizer's present learning rate; nothing is read back from the device.

        Under a strategy a batch with fewer images than replicas is skipped.
        """
        batch = _as_batch(batch)
        if self._strategy is None:
            self._compiled(batch)
        elif len(keras.tree.flatten(batch[0])[0]) >= self._strategy.num_replicas_in_sync:
            self._compiled(*replica_shares(self._strategy, batch))

    def first_bad_step(self) -> int | None:
        """The first step of this epoch (from 1) whose loss was not finite, or None."""
        return int(self._first_bad.numpy()) or None

    def weights_are_finite(self) -> bool:
        """Whether all weights are finite: the last step can break them although its own loss was finite."""
        return bool(self._all_finite().numpy())

    def means(self) -> tuple[float, list[float], float]:
        """Over the samples of this epoch: the weighted loss, the loss of each head, and the accuracy."""
        means = self._means()
        heads = means[_HEADS : _HEADS + len(self._losses)]
        return float(means[_LOSS]), [float(mean) for mean in heads], float(means[_CORRECT])

    def figures(self) -> dict[str, float]:
        """Over the samples of this epoch: loss and accuracy of each output, where there are several."""
        return dict(zip(self.figure_names, self._means()[_HEADS + len(self._losses) :].tolist(), strict=True))

    def _means(self) -> np.ndarray:
        sums = self._sums.numpy()
        return sums / max(sums[_SAMPLES], 1.0)

    def _step(self, batch):
        with self._batch_norm_momentum():
            gradients, sums = self._gradients(batch, tf.constant(1.0))
        self._descend(gradients)
        self._count(sums)

    def _distributed_step(self, batch, share):
        """Each replica computes the gradients of its part of the batch; the weights move by their sum."""
        with self._batch_norm_momentum():  # around all replicas, as they share their layers
            per_replica = self._strategy.run(self._gradients, args=(batch, share))
        gradients, sums = (
            [None if x is None else self._strategy.reduce("SUM", x, axis=None) for x in part]
            for part in (per_replica[0], [per_replica[1]])
        )
        self._descend(gradients)
        self._count(sums[0])

    def _gradients(self, batch, share):
        """The gradients of `share` times the mean loss, and the sums for `_count`."""
        images, labels, weights = (*batch, None, None)[:3]
        teacher_outputs = None
        if self._teacher is not None:
            teacher_outputs = keras.tree.map_structure(tf.stop_gradient, self._teacher(images))
        labels = complete_labels(labels, teacher_outputs)
        with tf.GradientTape() as tape:
            with compute_dtype_scope(self._model, self._config.mixed_precision):
                outputs = keras.tree.flatten(self._model(images, training=True))
            outputs = outputs_for(self._losses, outputs)
            pairs = zip(self._losses, outputs, strict=True)
            heads = [loss_of(loss, labels, output, teacher_outputs, weights) for loss, output in pairs]
            weighted = [weight * head for weight, head in zip(self._loss_weights, heads, strict=True)]
            loss = tf.add_n(weighted + [tf.cast(penalty, tf.float32) for penalty in self._model.losses])
            shared = share * loss
            shared = shared if self._scale is None else self._scale(shared)
        gradients = tape.gradient(shared, self._model.trainable_variables)
        gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        return gradients, self._sample_sums(labels, outputs, loss, heads)

    def _batch_norm_momentum(self) -> contextlib.AbstractContextManager:
        """Sets the momentum of BatchNormalization's running statistics for this step.

        The first steps use less than the configured momentum: a short training would otherwise end with the statistics
        of earlier weights.
        """
        if self._config.batch_norm_momentum is None:
            return contextlib.nullcontext()
        done = tf.cast(tf.convert_to_tensor(self.optimizer.keras.iterations), tf.float32)
        momentum = tf.minimum(self._config.batch_norm_momentum, (1.0 + done) / (10.0 + done))
        return override_attribute(batch_norms(self._model), "momentum", momentum)

    def _descend(self, gradients) -> None:
        pairs = [(g, v) for g, v in zip(gradients, self._model.trainable_variables, strict=True) if g is not None]
        if not pairs:
            raise UsageError(f"The loss depends on no trainable weight of the model {self._model.name}")
        gradients, variables = [g for g, _ in pairs], [v for _, v in pairs]
        finite = None
        if self._scale is not None:
            gradients, finite = self._scale.unscale(gradients)
        gradients = [self._masked(g, v) for g, v in zip(gradients, variables, strict=True)]
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        gradients = [self._penalized(g, v) for g, v in zip(gradients, variables, strict=True)]
        if finite is None:
            self._apply(gradients, variables)
        else:
            tf.cond(finite, lambda: self._apply(gradients, variables), lambda: tf.constant(0))

    def _apply(self, gradients, variables) -> tf.Tensor:
        self.optimizer.keras.apply(gradients, variables)
        for variable in variables:  # what mixes or averages gradients may move a weight without any
            if id(variable) in self._masks:
                variable.assign(self._masked(tf.convert_to_tensor(variable), variable))
        if self.average is not None:
            self.average.update()
        return tf.constant(1)

    def _masked(self, gradient, variable):
        mask = self._masks.get(id(variable))
        return gradient if mask is None else gradient * mask

    def _penalized(self, gradient, variable):
        """The gradient plus those of SGD's weight decay and of the L1 norm of gammas."""
        if self._config.is_plain_sgd and id(variable) in self._decaying:
            gradient = gradient + self._config.weight_decay * tf.convert_to_tensor(variable)
        if id(variable) in self._gammas:
            gradient = gradient + self._config.bn_sparsity * tf.sign(tf.convert_to_tensor(variable))
        return gradient

    def _sample_sums(self, labels, outputs, loss, heads) -> tf.Tensor:
        samples = tf.shape(keras.tree.flatten(outputs[-1])[0])[0]
        correct = self._losses[-1].accuracy(labels, outputs[-1]) if self.has_accuracy else tf.zeros((samples,))
        figures = self._losses[-1].figures(labels, outputs[-1]).values() if self.figure_names else ()
        means = tf.stack([1.0, loss, tf.reduce_mean(correct), *heads, *figures])
        return tf.cast(samples, tf.float64) * tf.cast(means, tf.float64)

    def _count(self, sums) -> None:
        self._sums.assign_add(sums)
        step = self._steps.assign_add(1)
        is_first = tf.logical_and(tf.equal(self._first_bad, 0), tf.logical_not(tf.math.is_finite(sums[_LOSS])))
        self._first_bad.assign(tf.where(is_first, step, self._first_bad))

    def _finite_weights(self):
        floats = [tf.convert_to_tensor(weight) for weight in self._model.weights]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in floats if w.dtype.is_floating])

    def _check_labels(self, spec: Any) -> None:
        names = [name for loss in self._losses for name in getattr(loss, "names", ())]
        missing = [name for name in names if name not in spec] if isinstance(spec, dict) else []
        if (spec is None or missing) and self._teacher is None:
            output = f" for the output {missing[0]!r}" if missing else ""
            raise UsageError(
                f"The training data has no labels{output}. Give some, or a teacher whose predictions replace them"
            )
        if spec is not None and not missing and self._teacher is not None and not self._distils:
            raise UsageError("A teacher was given, but the data has its own labels and no loss is a Distillation")


def _clip_norm(losses: Sequence[Loss], config: TrainConfig, limits_gradient: bool) -> float:
    """The largest norm of the gradient, 0 for no limit: the configured one, else the least of the losses'."""
    if config.clip_norm is not None or limits_gradient:
        return config.clip_norm or 0.0
    return min([_CLIP_NORM, *(loss.clip_norm for loss in losses if hasattr(loss, "clip_norm"))])


def _as_batch(element) -> tuple:
    """`(inputs, labels, weights)`, `(inputs, labels)` or `(inputs,)` from an element of a data set or its spec."""
    batch = tuple(element) if isinstance(element, list | tuple) else (element,)
    if len(batch) not in (1, 2, 3):
        raise UsageError(
            "Expected batches of images or of (images, labels), perhaps with sample weights. Received: tuples of "
            f"{len(batch)}"
        )
    return batch


def _any_batch(spec: tf.TensorSpec) -> tf.TensorSpec:
    if spec.shape.rank is None:
        raise UsageError("The batches' shapes are unknown; give from_generator a signature, or use tf.ensure_shape")
    return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)


def _gammas(model: keras.Model) -> set[int]:
    """`id()` of the scales of all trained BatchNormalizations."""
    gammas = {id(layer.gamma) for layer in batch_norms(model) if layer.gamma is not None and layer.trainable}
    if not gammas:
        raise UsageError(f"bn_sparsity needs BatchNormalization layers with a scale (gamma); {model.name} has none")
    return gammas


def _decaying(model: keras.Model, decay: str) -> set[int]:
    """`id()` of the trained weights that decay; see `TrainConfig.decay`."""
    if decay == "all":
        return {id(v) for v in model.trainable_variables}
    exempt = set()
    if decay == "no_depthwise":
        exempt = {id(v) for x in model._flatten_layers() if isinstance(x, layers_of("depthwise")) for v in x.weights}
        exempt |= {id(v) for v in model.trainable_variables if v.name == "depthwise_kernel"}
    return {id(v) for v in model.trainable_variables if v.name in KERNEL_NAMES and id(v) not in exempt}
