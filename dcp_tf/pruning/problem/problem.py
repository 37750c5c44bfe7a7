"""Algorithm 2's problem for one group: scores and sub-problem over the layers that consume it."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.errors import RunError
from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.trace import Trace
from dcp_tf.graph_function import graph_function
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor, Batches, Joined, compiled
from dcp_tf.pruning.activations.linear import run_linear
from dcp_tf.pruning.problem.algorithm2 import LossTerms
from dcp_tf.pruning.problem.consumers import ConsumerKernel, biases_of
from dcp_tf.pruning.problem.scores import SCORES
from dcp_tf.pruning.problem.stages import StageLoss, Unit
from dcp_tf.settings.selection import Search
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.targets import loss_on, samples_in

_ATTEMPTS = 4  # to solve a sub-problem whose loss diverges, each at a tenth of the previous learning rate
_DIVERGED = 10  # times the loss without any channel


@dataclasses.dataclass(frozen=True)
class SubProblem:
    """How L is minimized over the selected channels (eq. 9) and what L is (eq. 6).

    Attributes:
        reconstruction: factor of L_M; 0 omits it.
        discrimination: factor of L_S; 0 omits it.
        learning_rate: of SGD with Nesterov momentum.
        momentum: of SGD.
        weight_decay: L2 coefficient inside the gradient of the kernels.
        passes: over the selection set, per step of the selection.
        score: by which atoms are added, one of `scores.SCORES`.
    """

    reconstruction: float = Search.reconstruction
    discrimination: float = Search.discrimination
    learning_rate: float = Search.selection_lr
    momentum: float = TrainConfig.momentum
    weight_decay: float = TrainConfig.weight_decay
    passes: int = 1
    score: str = "paper"


class ChannelProblem:
    """A `SelectionProblem` whose atoms are the channels of one group, or the kernels that consume it.

    The model is cut before the first layer that consumes the group. What does not depend on these layers is computed
    once per image; each step runs only from there to the stage's loss.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        name: str,
        consumers: Sequence[ConsumerKernel],
        size: int,
        stage_loss: StageLoss,
        cursors: tuple[ActivationCursor, ActivationCursor],
        labels: Sequence[Any],
        settings: SubProblem,
        cache: Cache,
        rng: np.random.Generator,
        fisher: Callable[[], Mapping[int, np.ndarray]] | None = None,
        unit: Unit | None = None,
    ):
        """Caches the inputs of the group's consumers.

        Args:
            graph: of the pruned model.
            name: of the group or layer, for messages.
            consumers: the kernels that are fitted, with the numbers of their atoms.
            size: how many atoms there are.
            stage_loss: of the stage's discrimination-aware loss.
            cursors: of the pruned model and of the baseline, both before the first consumer.
            labels: per batch, perhaps `Weighted`.
            settings: the loss and how it is minimized.
            cache: for the tensors that are kept.
            rng: shuffles the batches of each sub-problem.
            fisher: returns the Fisher matrices of L_S at the outputs of the consumers' calls, see `fisher_matrices`;
                None: measure them when needed.
            unit: what the atoms are, if they are channels; None: of one feature map, or kernels.
        """
        self.name, self.graph = name, graph
        self.size = size
        self.consumers = list(consumers)
        self.curvatures = np.zeros(size)
        self.settings = settings
        self.stage_loss = stage_loss
        self.labels = list(labels)
        self._rng = rng
        self.fisher, self.is_map = fisher, unit is not None and unit.is_map
        self.head, self.pairs = (None, False) if unit is None or unit.kernels else (unit.head, unit.pairs)
        trace = graph.trace
        self.reading = {i for c in self.consumers for i in graph.calls_of(graph.records[id(c.operation)])}
        # Pairs of a query and a key matter by what attention makes of them.
        self.measured = products_of(trace, self.reading) if self.pairs else self.reading
        outputs = [t for i in sorted(self.measured) for t in trace.calls[i].outputs]
        compared = stage_loss.tensors if settings.discrimination else ()
        goals = [*outputs, *compared]
        after = trace.dependents(self.reading)
        self.calls = [i for i in trace.needed(goals, trace.inputs) if i in after]
        inner = {t for i in self.calls for t in trace.calls[i].outputs}
        self.boundary = sorted({t for i in self.calls for t in trace.calls[i].inputs} - inner)
        self.trace = trace
        cursor, base_cursor = cursors
        self.inputs = _tensors(cursor, self.boundary, cache)
        # Outputs of other branches are constants of a joint loss: they are computed only if it is.
        constants = sorted(set(compared) - inner - set(self.boundary))
        self.known, self.loss_inputs = [*self.boundary, *constants], self.inputs
        if constants:
            self.loss_inputs = Joined(self.inputs, _tensors(cursor, constants, cache))
        self.base = None
        if settings.reconstruction:
            function = _baseline_outputs(base_cursor, sorted(self.measured))
            self.base = _cache(base_cursor, function, base_cursor.bytes_of(outputs), None, cache)
        self._start = [c.kernel.numpy() for c in self.consumers]
        self._selected = np.zeros(size, bool)
        self._terms: LossTerms | None = None
        self._ceiling = np.inf
        self._gradients: list[np.ndarray] = []
        self._compile()

    # The `SelectionProblem` of Algorithm 2

    def scores(self) -> np.ndarray:
        """The score of each atom at the current W, shape (size,)."""
        self._evaluate()
        return SCORES[self.settings.score](self.consumers, self._gradients, self._start, self.curvatures)

    def loss(self) -> LossTerms:
        """`lambda * L_M + L_S` (eq. 6) over the whole selection set."""
        return self._evaluate()

    def solve(self, selected: np.ndarray) -> None:
        """Passes of SGD over W_A; newly added channels start from the fine-tuned weights.

        If the loss diverges, the passes are undone and repeated at a tenth of the learning rate.

        Raises:
            RunError: the loss diverges at a thousandth of the learning rate too.
        """
        self._enter(selected)
        self._terms = None
        if not selected.any():
            self._ceiling = _DIVERGED * self._measure().joint
        elif not self._descend(_ATTEMPTS):
            raise RunError(self._diverged(), "selection_lr")

    def adopt(self, selected: np.ndarray, kernels: Sequence[np.ndarray]) -> None:
        """Sets the selected atoms and the kernels' values.

        Passes of SGD follow if the settings ask for them; they are undone if they do not lower the loss.
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
        self.loss_inputs.release()
        if self.base is not None:
            self.base.release()

    # How it is computed

    def _enter(self, selected: np.ndarray) -> None:
        new = selected & ~self._selected
        self._selected = selected.copy()
        for consumer, start, mask in zip(self.consumers, self._start, self._masks, strict=True):
            entering = (consumer.atom >= 0) & new[consumer.atom]
            allowed = consumer.allowed(selected).astype(np.float32)
            consumer.kernel.assign(np.where(entering, start, consumer.kernel.numpy()) * allowed)
            mask.assign(np.broadcast_to(allowed, mask.shape))

    def _descend(self, attempts: int) -> bool:
        """Passes of SGD; False, with the weights restored, if the loss ends above the ceiling at every rate."""
        variables = [*self._kernels, *self._biases]
        before = [v.numpy() for v in variables]
        for _ in range(attempts):
            self._reset()
            for _ in range(self.settings.passes):
                for i in self._rng.permutation(self.inputs.count):
                    self._step(self.loss_inputs[i], self.baseline(i), self.labels[i])
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
        """O^b of one batch; empty without the reconstruction loss."""
        return [] if self.base is None else self.base[index]

    def _evaluate(self) -> LossTerms:
        """The loss terms and gradients at the current W, measured once.

        Raises:
            RunError: the loss is NaN or infinite.
        """
        terms = self._measure()
        if not np.isfinite(terms.joint):
            raise RunError(self._diverged(), "selection_lr")
        return terms

    def _keep(self) -> None:
        """Caches the inputs of the layers, which every later step needs."""
        self.loss_inputs.keep()
        if self.base is not None:
            self.base.keep()

    def _measure(self) -> LossTerms:
        if self._terms is None:
            self._keep()
            total = sum(map(samples_in, self.labels))
            sums = None
            for i, labels in enumerate(self.labels):
                share = tf.constant(samples_in(labels) / total, tf.float32)
                parts = self._terms_and_gradients(self.loss_inputs[i], self.baseline(i), labels, share)
                sums = parts if sums is None else [a + b for a, b in zip(sums, parts, strict=True)]
            self._terms = LossTerms(*(float(x) for x in sums[:3]))
            self._gradients = [g.numpy() for g in sums[3:]]
        return self._terms

    def _forward(self, inputs, base, labels) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        values = dict(zip(self.known, inputs, strict=True))
        read_outputs = run_linear(self.trace, self.calls, self.measured, values)
        zero = tf.constant(0.0)
        reconstruction = (
            tf.add_n([0.5 * tf.reduce_mean(tf.square(a - b)) for a, b in zip(base, read_outputs, strict=True)])
            if self.settings.reconstruction
            else zero
        )
        discrimination = (
            loss_on(self.stage_loss.loss, labels, self.stage_loss.outputs_from(values))
            if self.settings.discrimination
            else zero
        )
        joint = self.settings.reconstruction * reconstruction + self.settings.discrimination * discrimination
        return joint, reconstruction, discrimination

    def _compile(self) -> None:
        settings = self.settings
        self._kernels = [c.kernel.value for c in self.consumers]
        self._biases = [b.value for b in biases_of(self.consumers)]
        self._rate = tf.Variable(settings.learning_rate, dtype=tf.float32)
        self._masks = [tf.Variable(tf.ones(k.shape)) for k in self._kernels]
        velocities = [tf.Variable(tf.zeros(v.shape)) for v in (*self._kernels, *self._biases)]

        def gradients(inputs, base, labels, variables):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                for variable in variables:
                    tape.watch(variable)
                terms = self._forward(inputs, base, labels)
            return terms, tape.gradient(terms[0], variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        def evaluate(inputs, base, labels, share):
            terms, slopes = gradients(inputs, base, labels, self._kernels)
            return [share * x for x in (*terms, *slopes)]

        def step(inputs, base, labels):
            variables = [*self._kernels, *self._biases]
            _, slopes = gradients(inputs, base, labels, variables)
            decay = [settings.weight_decay * k for k in self._kernels]
            slopes = [(g + d) * m for g, d, m in zip(slopes, decay, self._masks, strict=False)] + slopes[len(decay) :]
            for variable, gradient, velocity in zip(variables, slopes, velocities, strict=True):
                velocity.assign(settings.momentum * velocity + gradient)
                variable.assign_sub(self._rate * (gradient + settings.momentum * velocity))

        def reset():
            for velocity in velocities:
                velocity.assign(tf.zeros_like(velocity))

        examples = [self.loss_inputs[0], self.baseline(0), self.labels[0]]
        self._terms_and_gradients = compiled(evaluate, examples, tf.TensorSpec((), tf.float32))
        self._step = compiled(step, examples)
        self._reset = graph_function(reset, input_signature=[])


def products_of(trace: Trace, calls: Collection[int]) -> set[int]:
    """The first calls behind some others, on each path, that join several tensors: the products of attention."""
    joining = {i for i in trace.dependents(calls) - set(calls) if len(trace.calls[i].inputs) > 1}
    return {i for i in joining if not joining & set(trace.needed(trace.calls[i].inputs, trace.inputs))}


def _baseline_outputs(cursor: ActivationCursor, reading: Sequence[int]) -> Callable:
    """A compiled function from the baseline's tensors at the cut to O^b of the reading calls."""
    trace, live = cursor.trace, cursor.live
    goals = [t for i in reading for t in trace.calls[i].outputs]
    calls = trace.needed(goals, live)

    def compute(*values):
        return run_linear(trace, calls, set(reading), dict(zip(live, values, strict=True)))

    return compiled(compute, cursor[0])


def _tensors(cursor: ActivationCursor, tensors: Sequence[int], cache: Cache) -> Batches:
    """Some tensors of the model behind the cut."""
    return _cache(cursor, cursor.function(tensors), cursor.bytes_of(tensors), tensors, cache)


def _cache(
    cursor: ActivationCursor, function: Callable, size: int, tensors: Sequence[int] | None, cache: Cache
) -> Batches:
    """The results of `function` on the cursor's tensors; tensors at the cut itself take no more memory."""
    if tensors is not None and set(tensors) <= set(cursor.live):
        positions = [cursor.live.index(t) for t in tensors]
        return Batches(lambda i: [cursor[i][p] for p in positions], cursor.count, 0, cache)
    return Batches(lambda i: function(*cursor[i]), cursor.count, size, cache)
