"""Algorithm 2's problem for one group: scores and sub-problem over the layers that read it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.errors import RunError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor, Batches, compiled
from dcp_tf.pruning.activations.linear import run_linear
from dcp_tf.pruning.problem.algorithm2 import LossTerms
from dcp_tf.pruning.problem.consumers import ConsumerKernel, biases_of
from dcp_tf.pruning.problem.scores import SCORES
from dcp_tf.pruning.problem.stages import StageLoss
from dcp_tf.settings.selection import Search
from dcp_tf.settings.training import TrainConfig

_ATTEMPTS = 4  # of a sub-problem whose loss grows out of bounds, each at a tenth of the learning rate before
_OUT_OF_BOUNDS = 10  # times the loss without any channel


@dataclasses.dataclass(frozen=True)
class SubProblem:
    """How L is minimised over the selected channels (eq. 9) and what L is (eq. 6).

    Attributes:
        reconstruction: factor of L_M; 0 leaves it out.
        discrimination: factor of L_S; 0 leaves it out.
        learning_rate: of SGD with Nesterov momentum.
        momentum: of SGD.
        weight_decay: L2 coefficient inside the gradient of the kernels.
        passes: over the selection set, per step of the selection.
        score: by which atoms come in, one of `scores.SCORES`.
    """

    reconstruction: float = Search.reconstruction
    discrimination: float = Search.discrimination
    learning_rate: float = Search.selection_lr
    momentum: float = TrainConfig.momentum
    weight_decay: float = TrainConfig.weight_decay
    passes: int = 1
    score: str = "paper"


class ChannelProblem:
    """The channels of one group, or the kernels that read it, as the atoms of Algorithm 2: a `SelectionProblem`.

    The model is cut before the first layer that reads the group. Everything that does not depend on these layers is
    computed once per image; each step runs only from there to the stage's loss.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        name: str,
        consumers: Sequence[ConsumerKernel],
        size: int,
        stage_loss: StageLoss,
        cursors: tuple[ActivationCursor, ActivationCursor],
        labels: Sequence[tf.Tensor],
        settings: SubProblem,
        cache: Cache,
        rng: np.random.Generator,
        fisher: Callable[[], Mapping[int, np.ndarray]] | None = None,
    ):
        """Caches what the group's layers read.

        Args:
            graph: of the model that is being pruned.
            name: of the group or layer, for messages.
            consumers: the kernels that are fitted, with the numbers of their atoms.
            size: how many atoms there are.
            stage_loss: of the stage's discrimination-aware loss.
            cursors: of the model that is being pruned and of the baseline, both before the first consumer.
            labels: per batch.
            settings: the loss and how it is minimised.
            cache: for the tensors that are kept.
            rng: draws the order of the batches in each sub-problem.
            fisher: gives the Fisher matrices of L_S at the outputs of the reading calls, see `fisher_matrices`; None:
                they are measured where they are needed.
        """
        self.name = name
        self.size = size
        self.consumers = list(consumers)
        self.curvatures = np.zeros(size)
        self.settings = settings
        self.stage_loss = stage_loss
        self.labels = list(labels)
        self._rng = rng
        self.fisher = fisher
        trace = graph.trace
        self.reading = {i for c in self.consumers for i in graph.calls_of(graph.records[id(c.operation)])}
        outputs = [t for i in sorted(self.reading) for t in trace.calls[i].outputs]
        goals = outputs + ([stage_loss.tensor] if settings.discrimination else [])
        after = trace.dependents(self.reading)
        self.calls = [i for i in trace.needed(goals, trace.inputs) if i in after]
        made = {t for i in self.calls for t in trace.calls[i].outputs}
        self.boundary = sorted({t for i in self.calls for t in trace.calls[i].inputs} - made)
        self.trace = trace
        cursor, base_cursor = cursors
        self.inputs = _cache(
            cursor, cursor.function(self.boundary), cursor.bytes_of(self.boundary), self.boundary, cache
        )
        self.base = None
        if settings.reconstruction:
            function = _baseline_outputs(base_cursor, sorted(self.reading))
            self.base = _cache(base_cursor, function, base_cursor.bytes_of(outputs), None, cache)
        self._kernels = [c.kernel.value for c in self.consumers]
        self._biases = [b.value for b in biases_of(self.consumers)]
        self._start = [c.kernel.numpy() for c in self.consumers]
        self._selected = np.zeros(size, bool)
        self._terms: LossTerms | None = None
        self._ceiling = np.inf
        self._gradients: list[np.ndarray] = []
        self._compile()

    # What Algorithm 2 asks

    def scores(self) -> np.ndarray:
        """How much each atom is wanted at the present W, by the score of the settings, shape (size,)."""
        self._evaluate()
        return SCORES[self.settings.score](self.consumers, self._gradients, self._start, self.curvatures)

    def loss(self) -> LossTerms:
        """`lambda * L_M + L_S` (eq. 6) over the whole selection set."""
        return self._evaluate()

    def solve(self, selected: np.ndarray) -> None:
        """Passes of SGD over W_A; channels that just came in start from the fine-tuned weights.

        Where the learning rate is so high that the loss grows out of bounds, the passes are undone and repeated at a
        tenth of it.

        Raises:
            RunError: the loss grows out of bounds at a thousandth of it too.
        """
        self._enter(selected)
        self._terms = None
        if not selected.any():
            self._ceiling = _OUT_OF_BOUNDS * self._measure().joint
        elif not self._descend(_ATTEMPTS):
            raise RunError(self._diverged(), "selection_lr")

    def adopt(self, selected: np.ndarray, kernels: Sequence[np.ndarray]) -> None:
        """Takes `selected` and the kernels' values over from elsewhere.

        Where the settings ask for passes of SGD, they follow, and what they make better is kept.
        """
        self._enter(selected)
        for consumer, values in zip(self.consumers, kernels, strict=True):
            consumer.kernel.assign(values)
        self._terms = None
        if self.settings.passes:
            self._ceiling = self._evaluate().joint
            self._descend(attempts=2)

    def close(self) -> None:
        """Frees the cached tensors."""
        self.inputs.release()
        if self.base is not None:
            self.base.release()

    # How

    def _enter(self, selected: np.ndarray) -> None:
        new = selected & ~self._selected
        self._selected = selected.copy()
        for consumer, start, mask in zip(self.consumers, self._start, self._masks, strict=True):
            entering = (consumer.atom >= 0) & new[consumer.atom]
            allowed = consumer.allowed(selected).astype(np.float32)
            consumer.kernel.assign(np.where(entering, start, consumer.kernel.numpy()) * allowed)
            mask.assign(np.broadcast_to(allowed, mask.shape))

    def _descend(self, attempts: int) -> bool:
        """Passes of SGD; False, with the weights as they were, where the loss ends above the ceiling at every rate."""
        variables = [*self._kernels, *self._biases]
        before = [v.numpy() for v in variables]
        for _ in range(attempts):
            self._reset()
            for _ in range(self.settings.passes):
                for i in self._rng.permutation(self.inputs.count):
                    self._step(self.inputs[i], self.baseline(i), self.labels[i])
            self._terms = None
            if self._measure().joint <= self._ceiling:
                return True
            self._rate.assign(self._rate / 10)
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        self._terms = None
        return False

    def _diverged(self) -> str:
        return (
            f"the loss became NaN in the selection of {self.name}; lower selection_lr "
            f"(now {self.settings.learning_rate:g})"
        )

    def baseline(self, index: int) -> list[tf.Tensor]:
        """O^b of one batch; empty where the reconstruction loss is left out."""
        return [] if self.base is None else self.base[index]

    def _evaluate(self) -> LossTerms:
        """The loss terms and gradients at the present W, measured once.

        Raises:
            RunError: the loss is NaN or infinite.
        """
        terms = self._measure()
        if not np.isfinite(terms.joint):
            raise RunError(self._diverged(), "selection_lr")
        return terms

    def _keep(self) -> None:
        """Keeps what the layers read: from here on it is needed again and again."""
        self.inputs.keep()
        if self.base is not None:
            self.base.keep()

    def _measure(self) -> LossTerms:
        if self._terms is None:
            self._keep()
            total = sum(int(x.shape[0]) for x in self.labels)
            sums = None
            for i, labels in enumerate(self.labels):
                share = tf.constant(int(labels.shape[0]) / total, tf.float32)
                parts = self._terms_and_gradients(self.inputs[i], self.baseline(i), labels, share)
                sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
            self._terms = LossTerms(*(float(x) for x in sums[:3]))
            self._gradients = [g.numpy() for g in sums[3:]]
        return self._terms

    def _forward(self, inputs, base, labels) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        values = dict(zip(self.boundary, inputs, strict=True))
        read_outputs = run_linear(self.trace, self.calls, self.reading, values)
        zero = tf.constant(0.0)
        reconstruction = (
            tf.add_n([0.5 * tf.reduce_mean(tf.square(a - b)) for a, b in zip(base, read_outputs, strict=True)])
            if self.settings.reconstruction
            else zero
        )
        discrimination = (
            tf.cast(self.stage_loss.loss(labels, self.stage_loss.outputs(values[self.stage_loss.tensor])), tf.float32)
            if self.settings.discrimination
            else zero
        )
        joint = self.settings.reconstruction * reconstruction + self.settings.discrimination * discrimination
        return joint, reconstruction, discrimination

    def _compile(self) -> None:
        settings = self.settings
        self._rate = tf.Variable(settings.learning_rate, dtype=tf.float32)
        self._masks = [tf.Variable(tf.ones(k.shape)) for k in self._kernels]
        velocities = [tf.Variable(tf.zeros(v.shape)) for v in (*self._kernels, *self._biases)]

        def gradients(inputs, base, labels, variables):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                for variable in variables:
                    tape.watch(variable)
                terms = self._forward(inputs, base, labels)
            found = tape.gradient(terms[0], variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return terms, found

        def evaluate(inputs, base, labels, share):
            terms, found = gradients(inputs, base, labels, self._kernels)
            return [share * x for x in (*terms, *found)]

        def step(inputs, base, labels):
            _, found = gradients(inputs, base, labels, [*self._kernels, *self._biases])
            decay = [settings.weight_decay * k for k in self._kernels]
            found = [(g + d) * m for g, d, m in zip(found, decay, self._masks, strict=False)] + found[len(decay) :]
            for variable, gradient, velocity in zip((*self._kernels, *self._biases), found, velocities, strict=True):
                velocity.assign(settings.momentum * velocity + gradient)
                variable.assign_sub(self._rate * (gradient + settings.momentum * velocity))

        def reset():
            for velocity in velocities:
                velocity.assign(tf.zeros_like(velocity))

        examples = [self.inputs[0], self.baseline(0), self.labels[0]]
        self._terms_and_gradients = compiled(evaluate, examples, tf.TensorSpec((), tf.float32))
        self._step = compiled(step, examples)
        self._reset = tf.function(reset, input_signature=[], autograph=False)


def _baseline_outputs(cursor: ActivationCursor, reading: Sequence[int]) -> Callable:
    """A compiled function from the baseline's tensors at the cut to O^b of the reading calls."""
    trace, live = cursor.trace, cursor.live
    goals = [t for i in reading for t in trace.calls[i].outputs]
    calls = trace.needed(goals, live)

    def compute(*values):
        return run_linear(trace, calls, set(reading), dict(zip(live, values, strict=True)))

    return compiled(compute, cursor[0])


def _cache(
    cursor: ActivationCursor, function: Callable, size: int, tensors: Sequence[int] | None, cache: Cache
) -> Batches:
    """Holds what `function` makes of the cursor's tensors; tensors that already lie at the cut cost nothing more."""
    if tensors is not None and set(tensors) <= set(cursor.live):
        places = [cursor.live.index(t) for t in tensors]
        return Batches(lambda i: [cursor[i][p] for p in places], cursor.count, 0, cache)
    return Batches(lambda i: function(*cursor[i]), cursor.count, size, cache)
