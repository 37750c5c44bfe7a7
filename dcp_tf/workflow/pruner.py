"""`Pruner`: prunes a model in rounds, with the user's own training in between."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.data import as_split
from dcp_tf.errors import UsageError, checks_arguments, did_you_mean
from dcp_tf.graph import ChannelGraph, Cost, count_cost
from dcp_tf.graph.rotation import is_rotated, rotated
from dcp_tf.models.compiled_like import compiled_like
from dcp_tf.models.functional import check_functional
from dcp_tf.pruning.context import choose_groups, choose_widths
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import PruningPlan
from dcp_tf.pruning.prune_model import PruneResult, prune
from dcp_tf.pruning.steps import changed_groups
from dcp_tf.settings.importance import Choice
from dcp_tf.text_table import reduction, some, text_table
from dcp_tf.training.masks import MaskedKernels
from dcp_tf.workflow.budgets import MEASURED, method_from, one_budget
from dcp_tf.workflow.measured_targets import bind

_OPTIONS = [name for name in inspect.signature(prune).parameters if name not in ("model", "train_data", "method")]


class Pruner:
    """Prunes a model, hands it back compiled as it was, and prunes it further after a training of the user's own.

        pruner = dcp_tf.Pruner(model, macs="50%")
        pruner.summary()                                # no data needed
        small = pruner.prune(train_ds)                  # compiled as the model is
        small.fit(train_ds, epochs=5, callbacks=[...])
        small = pruner.step(train_ds, macs="60%")       # to 60% of what it costs now
        small.fit(train_ds, epochs=5)
        pruner.plan.save("plan.json")                   # applies to `model`

    Attributes:
        original: the model, which stays as it is; with `rotate_streams=True` the rotated model from `prune` on.
        result: of the last round, a `PruneResult`; None before the first.
        plan: of all rounds together, for the original; None before the first.
    """

    @checks_arguments
    def __init__(
        self,
        model: keras.Model,
        method: str | type[Method] | Method = Choice.method,
        *,
        rate: float | str | None = None,
        macs: int | str | None = None,
        params: int | str | None = None,
        bytes: int | str | None = None,
        latency: float | str | None = None,
        file: int | str | None = None,
        ram: int | str | None = None,
        seed: int = 0,
        verbose: int | str = 1,
        **settings: Any,
    ):
        """Checks the arguments; nothing runs yet.

        Args:
            model: trained, functional or Sequential; a compiled one gives compiled ones back.
            method: a name such as "dcp" or "l1", or an object such as `dcp_tf.DCP(...)`.
            rate: share of channels to remove from each group. Of this and the next six one is given; none is the
                method's own.
            macs: multiply-accumulates at most, a number or a share such as "50%".
            params: parameters at most.
            bytes: bytes of the float32 weights at most.
            latency: of the TFLite file on this machine at most, such as "60%" or "4.5ms", of int8 files "int8:60%".
            file: size of the TFLite file at most, such as "100KB" or "50%"; int8, unless it says "float32:400KB".
            ram: activations of the TFLite file at once at most, such as "100KB" or "50%"; int8, as `file`.
            seed: of everything that is drawn.
            verbose: 0 prints nothing.
            **settings: of the method, such as `round_to=8` or `exclude=("stem",)`.

        Raises:
            UsageError: an argument cannot be.
        """
        self.original = check_functional(model)
        self.result: PruneResult | None = None
        self.plan: PruningPlan | None = None
        self._seed, self._verbose, self._settings = seed, verbose, settings
        self._measured: tuple[keras.Model, tuple[str, Any], Any] | None = None
        self._budget = one_budget(_budgets(rate, macs, params, bytes, latency, file, ram))
        self._method = method_from(method, settings, self._budget)
        if self._budget and self._budget[0] in MEASURED:
            bind(self._method, self._budget, None)  # checks the text

    @property
    def model(self) -> keras.Model:
        """The model as it is now: the original, or what the last round left and the user trained."""
        return self.original if self.result is None else self.result.model

    @checks_arguments
    def prune(self, train_data: Any, **options: Any) -> keras.Model:
        """Prunes the original; a round that was there before is forgotten.

        Args:
            train_data: as for `dcp_tf.prune`.
            **options: those of `dcp_tf.prune`, such as `validation_data`, `objective`, `auxiliary`; without
                `finetuning` the model is not trained.

        Returns:
            The smaller model, compiled as the original is.

        Raises:
            UsageError: the model, the data or an option cannot be used.
            RunError: a loss became NaN, or nothing would be removed.
        """
        self.result = self.plan = None
        if self._method.rotate_streams and not is_rotated(self.original):
            data = as_split(train_data).bound_to(self.original)
            model, lines = rotated(self.original, data)
            self.original = compiled_like(model, self.original)
            for line in lines if options.get("verbose", self._verbose) else ():
                progress.say(line)
        return self._round(train_data, self._method, self._budget, options)

    @checks_arguments
    def step(
        self,
        train_data: Any,
        *,
        rate: float | str | None = None,
        macs: int | str | None = None,
        params: int | str | None = None,
        bytes: int | str | None = None,
        latency: float | str | None = None,
        file: int | str | None = None,
        ram: int | str | None = None,
        **options: Any,
    ) -> keras.Model:
        """Prunes the model as it is now, after the user's own training, one round further.

        Shares are of what the model costs now. Auxiliary heads are trained again and the selection images pass again,
        since all weights below have moved; a latency is measured again, since the layers are others (what
        `summary` measured of them counts).

        Args:
            train_data: as for `dcp_tf.prune`.
            rate: how much this round removes, as for `Pruner`; without any of the seven it is what was said there.
            macs: as there.
            params: as there.
            bytes: as there.
            latency: as there.
            file: as there.
            ram: as there.
            **options: as for `Pruner.prune`.

        Returns:
            The smaller model, compiled as the original is.

        Raises:
            UsageError: there was no round before, or as for `prune`.
            RunError: as for `prune`.
        """
        if self.plan is None:
            raise UsageError("call prune(train_data) first: step goes on from what it leaves")
        budget = one_budget(_budgets(rate, macs, params, bytes, latency, file, ram)) or self._budget
        method = method_from(self._method, {}, budget)
        if self.plan.kernels and not method.chooses_kernels:
            raise UsageError(
                f"the model has removed kernels, which {method.name} would fill again: step with dkp or dcp_dkp"
            )
        method = dataclasses.replace(method, exclude=(*method.exclude, *self._changed_groups()))
        return self._round(train_data, method, budget, options)

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the groups of channels, what each would keep or why it stays, and the costs before and after.

        It needs no data: a method that measures losses may divide the same cost among the groups in another way. A
        target of latency is measured now.
        """
        graph = self._graph(self.model)
        try:
            method = self._bound(self._method, self._budget, graph)
            groups = choose_groups(graph, method)
            widths, note = choose_widths(graph, groups, method), _kernel_note(method)
        except UsageError as error:
            widths, note = {}, f"cannot be pruned so: {error}"
        if self._method.rotate_streams and not is_rotated(self.original):
            note += "; " * bool(note) + "prune(train_data) rotates the streams first, which makes other groups"
        rows = [(g.name, g.size, widths.get(g.name, g.size), some(g.consumers), _why(g, widths)) for g in graph.groups]
        columns = ("group", "channels", "keeps", "read by", "")
        print_fn(text_table(f"{self.model.name}: {self._method.name}", columns, rows, [note] * bool(note)))
        kept = graph.at_widths(widths)
        expected = count_cost(graph, kept, open_sizes=True)
        costs = (count_cost(self.original, open_sizes=True), count_cost(graph, open_sizes=True), expected)
        print_fn(_cost_table(costs[:: 1 if self.result else 2], ["now"] * bool(self.result)))

    def masks_callback(self) -> MaskedKernels:
        """Holds the kernels that all rounds removed at exactly zero in the user's own `fit`.

        Raises:
            UsageError: there was no round before.
        """
        if self.plan is None:
            raise UsageError("call prune(train_data) first: nothing was removed yet")
        return MaskedKernels(self._masks(self.model, self.plan))

    def _round(
        self, train_data: Any, method: Method, budget: tuple[str, Any] | None, options: Mapping[str, Any]
    ) -> keras.Model:
        for name in options:
            if name not in _OPTIONS:
                raise UsageError(f"prune has no option {name!r}; {did_you_mean(name, _OPTIONS)}")
        settings = {"finetuning": None, "seed": self._seed, "verbose": self._verbose, **options}
        with progress.silence_if(settings["verbose"] == 0):
            method = self._bound(method, budget, None)
            result = prune(self.model, train_data, method, **settings)
            plan = result.plan if self.plan is None else self.plan.then(result.plan, self._graph(self.original))
        if self.plan is not None and plan.kernels:
            masks = self._masks(result.model, plan)
            for weight in result.model.weights:
                if id(weight) in masks:  # what an earlier round removed may have been chosen and fitted again
                    weight.assign(weight * masks[id(weight)])
            result = dataclasses.replace(result, masks=masks)
        self.result, self.plan = result, plan
        return result.model

    def _bound(self, method: Method, budget: tuple[str, Any] | None, graph: ChannelGraph | None) -> Method:
        """The method with a target that can be measured; what was measured of the same model counts again."""
        if budget is None or budget[0] not in MEASURED:
            return method
        measured = self._measured
        if measured is None or measured[0] is not self.model or measured[1] != budget:
            bound = bind(method, budget, self._graph(self.model) if graph is None else graph)
            self._measured = measured = self.model, budget, bound.target
        return dataclasses.replace(method, target=measured[2])

    def _graph(self, model: keras.Model) -> ChannelGraph:
        return ChannelGraph(model, ignore_statistics=self._method.ignore_statistics)

    def _masks(self, model: keras.Model, plan: PruningPlan) -> dict[int, np.ndarray]:
        return plan.kernel_masks(self._graph(self.original), self._graph(model)) if plan.kernels else {}

    def _changed_groups(self) -> list[str]:
        """Patterns of groups that only came about by pruning, and which no plan of the original can name."""
        changed = changed_groups(self._graph(self.original), self.plan, self._graph(self.model))
        if changed:
            progress.say(f"note: {', '.join(changed)} stay as they are: pruning made other groups of them")
        return [re.escape(name) for name in changed]


def _budgets(*values: Any) -> dict[str, Any]:
    return dict(zip(("rate", "macs", "params", "bytes", "latency", "file", "ram"), values, strict=True))


def _kernel_note(method: Method) -> str:
    """What happens to kernels."""
    if not method.chooses_kernels:
        return ""
    share = getattr(method, "kernel_rate", method.rate)
    return f"{share:.0%} of each layer's kernels become zero, which the costs below do not count"


def _why(group: Any, widths: Mapping[str, int]) -> str:
    """Why a group stays whole."""
    if group.pinned_because:
        return f"pinned: {group.pinned_because}"
    if group.name in widths:
        return ""
    if group.residual:
        return f"{'recurrent units' if group.recurrent else 'a residual stream'}: prune_residual=True prunes it"
    return "excluded"


def _cost_table(costs: tuple[Cost, ...], between: list[str]) -> str:
    """Costs of the original, of the model now where that is another, and of what is expected."""
    rows = []
    for title, measure in (("parameters", "params"), ("MACs", "macs"), ("FLOPs", "flops")):
        values = [getattr(cost, measure) for cost in costs]
        rows.append((title, *values, reduction(values[0], values[-1])))
    return text_table("costs", ("", "original", *between, "expected", "change"), rows)
