"""Recovery: fits all weights of the pruned model together to the baseline's block outputs, without labels.

The selection fits each kernel separately, to the outputs of its own layer. No single kernel can correct the joint error
of several layers, or an earlier error in a residual stream. A few passes of gradient descent over the selection set, on
the distance between the block outputs of both models, can.
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
from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.blocks import matching_tensors
from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import KeptChannels
from dcp_tf.graph_function import graph_function
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import Batches, Tensors, compiled, count_images
from dcp_tf.pruning.activations.linear import run_linear
from dcp_tf.pruning.activations.memory import free_compiled, images_at_once
from dcp_tf.pruning.activations.selection_images import SelectionImages
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.elimination.fisher import tree_sum
from dcp_tf.pruning.recovery.statistics import match_statistics
from dcp_tf.pruning.recovery.untouched import untouched_layers
from dcp_tf.settings.schedules import warmed_up_cosine
from dcp_tf.training.best_weights import BestWeights
from dcp_tf.training.heads import block_ends
from dcp_tf.training.layers import override_attribute, seed_random_layers

_BATCH_SIZE, _LEAST_BATCHES = 64, 16
_PASSES, _LEAST_STEPS = 6, 120
_RATES = (1e-3, 1e-4)  # of Adam; the second if the first does not help
_WARM_UP = 0.05  # of the steps
_HELD_OUT = 0.1  # of the images
_MEASURED_STEPS = 5  # to estimate the time of a step


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A tensor at which both models are compared.

    Attributes:
        tensor: its number in the baseline's trace.
        axis: of its channels.
        kept: positions along the axis that the pruned model has; None: all.
    """

    tensor: int
    axis: int = -1
    kept: np.ndarray | None = None


def recover_weights(
    context: Context,
    baseline: ChannelGraph,
    small: ChannelGraph,
    kept: KeptChannels,
    masks: Mapping[str | int, np.ndarray] | None = None,
) -> None:
    """After surgery, if the selection fitted the kernels: `recover`, then `match_statistics`.

    Args:
        context: of the run; its history gets the phase, if the weights were recovered.
        baseline: of the baseline.
        small: of the rebuilt model, whose weights are set.
        kept: what remains of the baseline.
        masks: as for `recover`.
    """
    method, seed, variables = context.method, context.seed, small.trace.model.variables
    data = context.selection_data or context.data
    phases = context.state.load_weights("recovery", variables)
    if phases is None:
        phases, cache = [], Cache.of_gib(method.cache_gib, method.cache_disk_gib)
        try:
            step = min(_BATCH_SIZE, max(1, min(method.selection_samples, data.size) // _LEAST_BATCHES))
            at_once = images_at_once(baseline.trace, method.cache_gib, step)
            images = SelectionImages(data, method.selection_samples, at_once, seed, None, cache)
            settings = {"masks": masks, "minutes": method.recover, "seed": seed, "per_step": max(1, step // at_once)}
            if method.recovers and len(images) > 1:
                phases.append(recover(baseline, small, kept, images, cache, **settings))
            match_statistics(small.trace, images, untouched_layers(baseline, small, kept, masks or {}))
            images.close()
        finally:
            cache.close()
        free_compiled()
        context.state.save_weights("recovery", variables, phases)
    context.history.extend(phases)


def recover(
    base: ChannelGraph,
    small: ChannelGraph,
    kept: KeptChannels,
    batches: Sequence[Tensors],
    cache: Cache,
    *,
    masks: Mapping[str | int, np.ndarray] | None = None,
    minutes: float | None = None,
    seed: int = 0,
    per_step: int = 1,
) -> dict[str, Any]:
    """Trains the pruned model in place toward the baseline's block outputs.

    The loss is the mean, over the tensors between blocks and the model's linear outputs, of the squared error over the
    variance of the baseline's values. BatchNormalization uses its stored statistics, dropout is on. A held-out tenth of
    the images, without dropout, decides which pass was best; if none is better than the start, the model does not
    change.

    Args:
        base: of the baseline.
        small: of the rebuilt model. Frozen layers are fitted too, as in the selection, but none that an output needs
            which pruning does not change.
        kept: what remains of `base`.
        batches: per batch the model's inputs; at least two.
        cache: for the baseline's values.
        masks: by the path or the `id()` of a weight an array of its shape, 0 where it must stay zero.
        minutes: the time limit; None: until all steps are done.
        seed: of the order of the batches.
        per_step: how many batches make a step, if its images do not fit into memory at once.

    Returns:
        The phase: name, seconds, steps, and the loss on held-out images before and after.
    """
    started = time.perf_counter()
    seed_random_layers(small.trace.model, seed)
    training = _Training(base, small, kept, batches, cache, masks or {}, per_step)
    with progress.bar(what="recovering", total=None, unit="step") as bar:
        steps = training.run(minutes, np.random.default_rng([seed, 1]), bar.update)
    training.close()
    before, after = training.before, training.best.loss
    progress.say(
        f"recovery: distance to the baseline's block outputs {before:.4g} -> {after:.4g} on held-out images, "
        f"{steps} steps, {time.perf_counter() - started:.0f} s"
    )
    seconds = time.perf_counter() - started
    return {"name": "recovery", "seconds": seconds, "steps": steps, "distance_before": before, "distance": after}


def comparisons(base: ChannelGraph, kept: KeptChannels) -> list[Comparison]:
    """The tensors between blocks, with the channels that the pruned model has of each; shallow to deep."""
    points = []
    for index in block_ends(base):
        tensor = base.trace.calls[index].outputs[0]
        labels = base.labels[tensor]
        remains, axes = kept.mask(labels), varying_axes(labels)
        if remains.all():
            points.append(Comparison(tensor))
        elif len(axes) == 1 and remains.any():
            points.append(Comparison(tensor, axes[0], np.flatnonzero(remains.ravel())))
    return points


class _Training:
    """Both models, and the gradient descent of the small one."""

    def __init__(
        self,
        base: ChannelGraph,
        small: ChannelGraph,
        kept: KeptChannels,
        batches: Sequence[Tensors],
        cache: Cache,
        masks: Mapping[str | int, np.ndarray],
        per_step: int,
    ):
        self._images, self._per_step = batches, per_step
        points = [p for p in comparisons(base, kept) if p.tensor not in base.trace.outputs]
        tensors = matching_tensors(base.trace, small.trace, kept.removed)
        # Where a block is gone, what is before it learns what the baseline has behind it.
        compared = {tensors[p.tensor]: p for p in points if p.tensor in tensors}
        points = list(compared.values())
        of_base, self._of_small = _Values(base, [p.tensor for p in points]), _Values(small, list(compared))
        function = compiled(lambda *images: of_base(images, points), batches[0])
        self._targets = Batches(lambda i: function(*batches[i]), len(batches), of_base.bytes(batches), cache)
        self._targets.keep()
        first = self._targets[0]
        self._scales = [1.0 / max(float(tf.math.reduce_variance(x)), 1e-12) for x in first]
        held_out = max(1, round(_HELD_OUT * len(batches)))
        self._held_out = range(len(batches) - held_out, len(batches))
        self._training = range(len(batches) - held_out)
        model = small.trace.model
        with override_attribute(list(model._flatten_layers(include_self=False)), "trainable", True):
            fixed = untouched_layers(base, small, kept, masks)
            same = {id(v) for layer in fixed for v in getattr(layer, "weights", ())}
            self._variables = [v for v in model.trainable_variables if id(v) not in same]
        self._masks = [masks.get(id(v), masks.get(v.path)) for v in self._variables]
        self._examples = [list(batches[0]), list(first)]
        self._measure = compiled(self._loss, self._examples)
        self.before = self._held_out_loss()
        self.best = BestWeights(self._variables, self.before)

    def run(self, minutes: float | None, rng: np.random.Generator, on_step: Callable[[], Any]) -> int:
        """Runs all steps and restores the best weights. Returns the number of steps."""
        steps = 0
        deadline = None if minutes is None else time.perf_counter() + 60 * minutes
        for rate in _RATES:
            steps += self._descend(rate, deadline, rng, on_step)
            if self.best.loss < self.before or (deadline is not None and time.perf_counter() > deadline):
                break
        return steps

    def close(self) -> None:
        """Frees the memory."""
        self._targets.release()

    def _descend(
        self, rate: float, deadline: float | None, rng: np.random.Generator, on_step: Callable[[], Any]
    ) -> int:
        """One cosine from `rate` to 0, shortened to meet the deadline."""
        total = max(_PASSES * math.ceil(len(self._training) / self._per_step), _LEAST_STEPS)
        optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
        optimizer.build(self._variables)
        step = self._compile(optimizer)
        number, times = 0, []
        while number < total:
            order = rng.permutation(self._training.stop)
            for start in range(0, len(order), self._per_step):
                step_started = time.perf_counter()
                optimizer.learning_rate = warmed_up_cosine(rate, number, total, _WARM_UP)
                step(order[start : start + self._per_step])
                number += 1
                on_step()
                times.append(time.perf_counter() - step_started)
                if deadline is not None and len(times) == _MEASURED_STEPS + 1:
                    left = deadline - time.perf_counter()  # (the first step also compiles)
                    total = min(total, number + max(0, int(left / np.median(times[1:]))))
                if number >= total:
                    break
            self.best.offer(self._held_out_loss())
        self.best.restore()
        return number

    def _held_out_loss(self) -> float:
        sizes = [int(self._images[i][0].shape[0]) for i in self._held_out]
        losses = [float(self._measure(list(self._images[i]), list(self._targets[i]))) for i in self._held_out]
        mean = float(np.average(losses, weights=sizes))
        return mean if math.isfinite(mean) else math.inf

    def _loss(self, images: Sequence[tf.Tensor], targets: Sequence[tf.Tensor], dropout: bool = False) -> tf.Tensor:
        values = self._of_small(images, dropout=dropout)
        errors = [
            scale * tf.reduce_mean(tf.square(value - target))
            for scale, value, target in zip(self._scales, values, targets, strict=True)
        ]
        return tf.add_n(errors) / len(errors)

    def _compile(self, optimizer: keras.optimizers.Optimizer) -> Callable:
        masks = [None if m is None else tf.constant(m, tf.float32) for m in self._masks]

        def gradients_of(images, targets):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                for variable in self._variables:
                    tape.watch(variable.value)
                loss = self._loss(images, targets, dropout=True)
            gradients = tape.gradient(
                loss, [v.value for v in self._variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            gradients = [g if m is None else g * m for g, m in zip(gradients, masks, strict=True)]
            size = tf.cast(tf.shape(images[0])[0], tf.float32)
            return [size * tf.convert_to_tensor(g) for g in gradients], size

        compute = compiled(gradients_of, self._examples)
        apply = graph_function(lambda gradients, size: optimizer.apply([g / size for g in gradients], self._variables))

        def step(numbers: Sequence[int]) -> None:
            apply(*tree_sum(compute(list(self._images[i]), list(self._targets[i])) for i in numbers))

        return step


class _Values:
    """One model's values at the compared tensors and, without a last activation, at its outputs."""

    def __init__(self, graph: ChannelGraph, tensors: Sequence[int]):
        trace = self._trace = graph.trace
        self._outputs = {_before_softmax(trace, t) for t in trace.outputs}
        self._tensors = list(tensors)
        self._calls = trace.needed([*self._tensors, *self._outputs], trace.inputs)
        self._last = sorted({trace.producer[t] for t in self._outputs if t in trace.producer})
        self._made = [t for i in self._last for t in trace.calls[i].outputs]

    def __call__(
        self, images: Sequence[tf.Tensor], points: Sequence[Comparison] = (), dropout: bool = False
    ) -> list[tf.Tensor]:
        """The values in float32, at the channels that `points` keep."""
        values = dict(zip(self._trace.inputs, images, strict=True))
        outputs = run_linear(self._trace, self._calls, set(self._last), values, dropout)
        outputs = [x for t, x in zip(self._made, outputs, strict=True) if t in self._outputs]
        inner = [tf.cast(values[t], tf.float32) for t in self._tensors]
        for number, point in enumerate(points):
            if point.kept is not None:
                inner[number] = tf.gather(inner[number], point.kept, axis=point.axis)
        return [*inner, *outputs]

    def bytes(self, batches: Sequence[Tensors]) -> int:
        """The most bytes that the values of all batches take."""
        images = count_images(batches)
        return 4 * images * sum(math.prod(self._trace.shapes[t][1:]) for t in [*self._tensors, *self._made])


def _before_softmax(trace: Any, output: int) -> int:
    """The logits: the input of a last Softmax layer, else the output itself."""
    call = trace.calls[trace.producer[output]] if output in trace.producer else None
    return call.inputs[0] if call is not None and isinstance(call.operation, keras.layers.Softmax) else output
