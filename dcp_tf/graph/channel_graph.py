"""Which channels of a model must stay or go together, which layers produce them and which consume them."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import dcp_tf.graph.rules  # noqa: F401  (fills the table of rules)
from dcp_tf.errors import UsageError
from dcp_tf.graph.attention import projections
from dcp_tf.graph.blocks import ResidualBlock, residual_blocks, without_calls
from dcp_tf.graph.grouping import ClassFacts, summarize_reasons
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.labels import LabelSpace, best_of_each, close_rectangles, head_count, varying_axes
from dcp_tf.graph.linear import made_axes, zero_slices
from dcp_tf.graph.rule import (
    Axis,
    KeptChannels,
    Labels,
    Multiplication,
    OperationRecord,
    RuleCall,
    keeps_zeros,
    run_rule,
)
from dcp_tf.graph.trace import Call, Trace
from dcp_tf.models.batch import with_open_batch
from dcp_tf.models.custom_objects import is_custom
from dcp_tf.text_table import ShownAsTables, Table, print_tables, some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUT_REASON = "it is an input of the model"
OUTPUT_REASON = "it is an output of the model"
_LINEAR = (*layers_of("dense", "convolution"), keras.layers.EinsumDense)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels with the same producers and consumers. Each of them can be removed without touching the others.

    Attributes:
        name: of the first producer; unique in the graph.
        size: the number of channels (classes of labels) that can be chosen among.
        producers: paths of the operations that make the channels.
        consumers: paths of the layers whose kernels read them.
        pinned_because: why no channel can be removed, or None.
        residual: whether the channels are a sum of several feature maps (a residual stream, a block output), or of what
            the steps of a recurrent layer add.
        classes: the class number of each channel, shape (size,).
        recurrent: whether they are units of a recurrent layer: its state, to which each step adds.
        head: of channels inside of attention heads the number of the head that each lies in, shape (size,): of each
            head that stays, as many channels stay. None of all others, and of heads themselves.
        are_heads: whether they are attention heads: a head goes with all channels that lie in it.
        silenced: whether they are pairs of channels of a query and a key: zeros in the kernel that makes the key remove
            them, and no kernel reads them.
        within: name of the group of the heads that they lie in.
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    pinned_because: str | None
    residual: bool
    classes: np.ndarray = dataclasses.field(repr=False)
    recurrent: bool = False
    head: np.ndarray | None = dataclasses.field(default=None, repr=False)
    are_heads: bool = False
    silenced: bool = False
    within: str | None = None

    @property
    def heads(self) -> int:
        """How many heads the channels lie in; 1 where they lie in none."""
        return head_count(self.head)

    def first(self, width: int) -> np.ndarray:
        """The first channels of the group, as many of each head; `width` is a multiple of their number."""
        return self.best(np.arange(self.size), width)

    def best(self, order: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
        """The first `width` channels of an order from the best to the worst, as many of each head, sorted."""
        return np.sort(best_of_each(np.asarray(order), width, self.head))


class ChannelGraph(ShownAsTables):
    """The channel groups of a functional or Sequential Keras model.

    Attributes:
        trace: the flat list of calls.
        ignore_statistics: whether channels may go although a layer takes statistics over them.
        records: for each operation (by id) what its rule stated.
        labels: for each tensor number its label array.
        class_of_label: for each label the number of its class.
        head_of_label: for each label the class of the attention head that it lies in, -1 where it lies in none.
        nested_inputs: for each nested model (by id) the labels of its inputs.
        groups: all groups, in the order in which their producers run.

    Example:
        >>> graph = dcp_tf.ChannelGraph(model)
        >>> [(group.name, group.size, group.pinned_because) for group in graph.groups]
    """

    def __init__(
        self,
        model: keras.Model,
        input_shapes: Sequence[tuple] | None = None,
        ignore_statistics: bool = False,
        opens_attention: bool = True,
    ):
        """Traces `model` and groups its channels.

        Args:
            model: a functional or built Sequential model.
            input_shapes: shapes (batch axis included), where the model leaves sizes open.
            ignore_statistics: frees channels over which a LayerNormalization or the like takes statistics. The rebuilt
                model then differs from the masked one: its statistics are those of the kept channels.
            opens_attention: whether heads and the channels inside of attention layers are groups; without it, custom
                layers and Dense layers over positions are labelled as earlier versions did too.

        Raises:
            UsageError: the model is subclassed, so its graph is unknown.
        """
        self.trace = _trace(model, input_shapes, opens_attention)
        self.ignore_statistics, self._input_shapes = ignore_statistics, input_shapes
        self._as_earlier = not opens_attention
        self.records: dict[int, OperationRecord] = {}
        self.multiplications: list[tuple[OperationRecord, Call, list[Multiplication]]] = []
        self.nested_inputs: dict[int, list[Labels]] = {}
        self.arguments: dict[int, dict[int | str, tuple]] = {}
        self._space = LabelSpace()
        self._residual: list[Labels] = []
        self._recurrent: list[Labels] = []
        self.labels: dict[int, Labels] = {}
        with _about_batch_size(model):
            self._label_everything()
        weights = [labels for record in self.records.values() for w in record.weights.values() for labels in w.values()]
        arrays = [*self.labels.values(), *weights]
        self.class_of_label, self.head_of_label = close_rectangles(self._space, arrays)
        self._class_count = int(self.class_of_label.max(initial=-1)) + 1
        self._heads = self._head_of_class()
        self.groups = self._group()
        self._by_name = {group.name: group for group in self.groups}

    # Labelling

    def _label_everything(self) -> None:
        trace = self.trace
        for tensor in trace.inputs:
            shape = trace.shapes[tensor]
            labels = self._space.fresh(shape[-1] if len(shape) > 1 and shape[-1] is not None else 1)
            self._space.pin(labels, INPUT_REASON)
            self.labels[tensor] = labels.reshape([1] * (len(shape) - 1) + [-1]) if shape else labels
        for call in trace.calls:
            self._label_call(call)
        for layer, _ in trace.opened.values():
            self._tie_equal_widths(layer)
        for tensor in trace.outputs:
            self._space.pin(self.labels[tensor], OUTPUT_REASON)
        for model, tensors in trace.nested:
            self._label_inputs(model, [self.labels[t] for t in tensors])

    def _tie_equal_widths(self, layer: keras.Layer) -> None:
        """Ties what a GroupQueryAttention reads as query and value, and makes: Keras wants one width of all three."""
        if isinstance(layer, keras.layers.GroupQueryAttention):
            ends = {"query": 0, "value": 0, "output": 2}
            records = {name: self.records[id(dense)] for name, dense in projections(layer).items()}
            first, *others = (records[name].weights[records[name].kernel][axis] for name, axis in ends.items())
            for labels in others:
                self._space.tie(first, labels)
            self._residual.append(first)

    def _label_inputs(self, model: keras.Model, arrays: list[Labels]) -> None:
        """Ties the inputs of a nested model over its calls, since the model states their shapes."""
        first_arrays = self.nested_inputs.setdefault(id(model), arrays)
        for first, labels, tensor in zip(first_arrays, arrays, model.inputs, strict=True):
            if first is labels or all(tensor.shape[axis] is None for axis in varying_axes(labels)):
                continue
            if first.shape == labels.shape:
                self._space.tie(first, labels)
                continue
            for array in (first, labels):
                self._space.pin(array, f"{model.name} is shared between tensors of different layouts")

    def _label_call(self, call: Call) -> None:
        record = self.records.setdefault(id(call.operation), OperationRecord(call.operation, call.path))
        rule_call = RuleCall(
            call,
            record,
            self._space,
            [self.labels[t] for t in call.inputs],
            [self.trace.shapes[t] for t in call.inputs],
            [self.trace.shapes[t] for t in call.outputs],
            self.ignore_statistics,
            self._silence,
            self._zero,
            max((self.trace.batch_axes[t] for t in call.inputs), default=0),
            self._as_earlier,
        )
        self.labels.update(zip(call.outputs, run_rule(rule_call), strict=True))
        self._residual.extend(rule_call.residual)
        self._recurrent.extend(rule_call.recurrent)
        self.multiplications.append((record, call, self._of_one_image(call, rule_call.multiplications)))
        if rule_call.arguments:
            # One node belongs to several calls when its model is called several times: one constant serves them all.
            first_arguments = self.arguments.setdefault(id(call.node), rule_call.arguments)
            for key, (_, labels) in rule_call.arguments.items():
                rule_call.alike(first_arguments[key][1], labels)

    def _silence(self, tensor: int) -> bool:
        """States that zeros in the kernel that makes a tensor remove its channels, if a linear layer makes it."""
        channels = self.labels[tensor]
        if self._space.is_crossed(channels):
            return False
        while tensor in self.trace.producer:
            call = self.trace.calls[self.trace.producer[tensor]]
            if isinstance(call.operation, _LINEAR):
                record = self.records[id(call.operation)]
                if record.kernel < 0 or call.operation.activation is not keras.activations.linear:
                    return False
                for key in made_axes(record):
                    made = np.isin(record.weights[key[0]][key[1]], channels)
                    record.silences[key] = made | record.silences.get(key, False)
                return True
            if not keeps_zeros(call):
                return False
            tensor = call.inputs[0]
        return False

    def _zero(self, tensor: int) -> str | None:
        """States that a removed channel of a tensor is zero; returns the name of what makes it and has no zeros."""
        slices = zero_slices(self.trace, self.records, tensor)
        if isinstance(slices, str):
            return slices
        for record, *where in slices:
            record.zeroed.extend({tuple(where)}.difference(record.zeroed))
        return None

    # Grouping

    def _group(self) -> list[ChannelGroup]:
        facts = ClassFacts(self._class_count)

        def state(labels: Labels, *fact: str | int) -> None:
            facts.add(self._classes(labels), fact)
            heads = self.head_of_label[labels]
            facts.add(np.unique(heads[heads >= 0]), fact)

        records = self.records.values()
        for record in records:  # those first that name a group
            for labels in record.produces.values():
                facts.add(self._classes(labels), ("producer", record.path))
        for record in records:
            for labels in record.produces.values():
                state(labels, "producer", record.path)
            for index, axis in record.consumes:
                state(record.weights[index][axis], "consumer", record.path)
            for (index, axis), made in record.silences.items():
                facts.add(self._classes(record.weights[index][axis][made]), ("silenced", record.path))
        for labels, reason in self._space.pins:
            state(labels, "reason", reason)
        for labels in self._residual:
            state(labels, "residual", "sum")
        for labels in self._recurrent:
            state(labels, "residual", "recurrent")
        for number, labels in enumerate(self._space.parts):
            state(labels, "part", number)
        facts.add(np.flatnonzero(self._heads >= 0), ("inside", "head"))

        def by_kind(facts: tuple) -> tuple:
            kinds = ("producer", "consumer", "reason", "residual", "part", "silenced", "inside")
            return tuple(tuple(value for kind_of_fact, value in facts if kind_of_fact == kind) for kind in kinds)

        first = np.unique(self.class_of_label, return_index=True)[1]
        groups = facts.groups(self.class_of_label[np.sort(first)], by_kind)
        return self._name_groups([(facts, classes) for facts, classes in groups if facts[0]])

    def _classes(self, labels: Labels) -> np.ndarray:
        return np.unique(self.class_of_label[labels])

    def _name_groups(self, members: Sequence[tuple[tuple, np.ndarray]]) -> list[ChannelGroup]:
        used: collections.Counter = collections.Counter()
        groups, heads, attention_heads = [], self._heads, self._classes(self._space.attention_heads)
        for (producers, consumers, reasons, residual, _, silenced, inside), classes in members:
            used[producers[0]] += 1
            name = producers[0] if used[producers[0]] == 1 else f"{producers[0]}#{used[producers[0]]}"
            reason = summarize_reasons(reasons) or None
            if reason is None and not (consumers or silenced):
                reason = "no layer with a kernel reads it"
            head = np.unique(heads[classes], return_inverse=True)[1] if inside else np.zeros(len(classes), int)
            of_each = np.bincount(head)
            fixed = inside and (of_each[0] == 1 or len(set(of_each)) > 1)
            if reason is None and (len(classes) == 1 or fixed):
                reason = "it is a single channel, or several that only live together"
            group = ChannelGroup(
                name,
                len(classes),
                producers,
                consumers or silenced,
                reason,
                bool(residual),
                classes,
                recurrent="recurrent" in residual,
                head=head if inside else None,
                are_heads=bool(np.isin(classes, attention_heads).any()),
                silenced=not consumers and bool(silenced),
            )
            groups.append(group)
        name_of_class = {number: group.name for group in groups if group.are_heads for number in group.classes.tolist()}
        within = [None if g.head is None else name_of_class.get(int(heads[g.classes[0]])) for g in groups]
        return [dataclasses.replace(g, within=name) for g, name in zip(groups, within, strict=True)]

    def _head_of_class(self) -> np.ndarray:
        """For each class the class of the only head that it lies in; -1 where it lies in none or in several."""
        heads = np.full(self._class_count, -1)
        heads[self.class_of_label] = self.head_of_label
        several = self.head_of_label != heads[self.class_of_label]
        heads[self.class_of_label[several]] = -1
        return heads

    # Questions

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the groups: their channels, who reads them, and whether they can be pruned or why not."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        rows = [(g.name, g.size, some(g.consumers), _answer(g)) for g in self.groups]
        columns = ("group", "channels", "read by", "can be pruned")
        return [Table(f"{self.trace.model.name}: groups of channels", columns, rows)]

    def plot(self) -> "Figure":
        """The groups over the graph as a matplotlib figure: what shares a color is pruned together, gray stays."""
        from dcp_tf.graph.plot import draw_groups

        return draw_groups(self)

    def group(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            UsageError: there is none.
        """
        if name not in self._by_name:
            raise UsageError(f"the model has no channel group {name!r}; inspect_model lists them")
        return self._by_name[name]

    @functools.cached_property
    def blocks(self) -> tuple[ResidualBlock, ...]:
        """The residual blocks that could go as a whole."""
        return residual_blocks(self.trace)

    @functools.cached_property
    def _block_by_name(self) -> dict[str, ResidualBlock]:
        return {block.name: block for block in self.blocks}

    def groups_inside(self, blocks: Sequence[ResidualBlock]) -> set[str]:
        """Names of the groups that only layers of some blocks make: they go with these."""
        paths = {self.trace.calls[index].path for index in without_calls(blocks)}
        return {group.name for group in self.groups if paths.issuperset(group.producers)}

    def prunable(self, residual: bool = False) -> list[ChannelGroup]:
        """The groups that may lose channels; residual streams only on request (the papers leave them)."""
        return [g for g in self.groups if g.pinned_because is None and (residual or not g.residual)]

    def kept(self, channels: Mapping[str, Sequence[int]]) -> KeptChannels:
        """Which labels stay when each named group keeps the listed channels and all others keep everything.

        A residual block (see `blocks`) is named like a group of one channel: without it the whole block goes.

        Raises:
            UsageError: an unknown or pinned group, an index outside it, or a group that would keep nothing.
        """
        stays, removed = np.ones(self._class_count, bool), []
        for name, indices in channels.items():
            if name in self._block_by_name and name not in self._by_name:
                removed += [] if len(indices) else [self._block_by_name[name]]
                continue
            group = self.group(name)
            indices = np.unique(np.asarray(list(indices), np.int64))
            if len(indices) == 0:
                raise UsageError(f"{name!r} would keep no channel; at least one has to stay")
            if indices[0] < 0 or indices[-1] >= group.size:
                raise UsageError(f"{name!r} has channels 0..{group.size - 1}, received {indices[[0, -1]].tolist()}")
            if len(indices) == group.size:
                continue
            if group.pinned_because is not None:
                raise UsageError(f"channels of {name!r} cannot be removed: {group.pinned_because}")
            stays[group.classes] = False
            stays[group.classes[indices]] = True
        for name in channels.keys() & self._by_name.keys():
            self._check_heads(self.group(name), stays)
        return KeptChannels(self.class_of_label, stays, self.head_of_label, removed)

    def at_widths(self, widths: Mapping[str, int]) -> KeptChannels:
        """Which labels stay when each named group keeps so many channels, the first; for costs."""
        blocks = self._block_by_name.keys() - self._by_name.keys()
        return self.kept(
            {name: range(width) if name in blocks else self.group(name).first(width) for name, width in widths.items()}
        )

    def _check_heads(self, group: ChannelGroup, stays: np.ndarray) -> None:
        """Raises UsageError unless as many channels stay of each head that stays."""
        if group.head is None:
            return
        head_stays = stays[self._heads[group.classes]]
        counts = np.bincount(group.head[head_stays], stays[group.classes][head_stays], group.heads)
        counts = counts[np.unique(group.head[head_stays])].astype(int)
        if len(counts) and (counts.min() != counts.max() or counts[0] == 0):
            raise UsageError(
                f"of each head {group.name!r} must keep as many channels, at least one; received {counts.tolist()}"
            )

    def in_kept_heads(self, channels: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
        """The same channels by group, without those in heads that go: what the rebuilt model has."""
        gone = np.zeros(self._class_count, bool)
        for name, indices in channels.items():
            gone[np.delete(self.group(name).classes, np.asarray(indices, np.int64))] = True
        left = {}
        for name, indices in channels.items():
            group, indices = self.group(name), np.asarray(indices, np.int64)
            inside = group.head is not None
            stays = ~gone[self._heads[group.classes[indices]]] if inside else np.ones(len(indices), bool)
            left[name] = tuple(indices[stays].tolist())
        return left

    def channel_of_label(self, group: ChannelGroup) -> np.ndarray:
        """For each label the number of its channel in the group, -1 where it belongs to another group.

        Labels inside of attention heads are of the channel that the group has of them: their own, or their head.
        """
        channel_of_class = np.full(self._class_count + 1, -1)
        channel_of_class[group.classes] = np.arange(group.size)
        own = channel_of_class[self.class_of_label]
        return np.where(own >= 0, own, channel_of_class[self.head_of_label])

    def group_of_label(self, of_heads: bool = False) -> np.ndarray:
        """For each label the index of its group in `groups`, `len(groups)` if it is in none.

        Args:
            of_heads: asks for the group of the heads that labels lie in instead.
        """
        group_of_class = np.full(self._class_count + 1, len(self.groups))
        for index, group in enumerate(self.groups):
            group_of_class[group.classes] = index
        return group_of_class[self.head_of_label if of_heads else self.class_of_label]

    def consumers(self, group: ChannelGroup) -> list[tuple[OperationRecord, int, int, np.ndarray]]:
        """Every kernel axis that reads the group; of pairs of query and key, the axis that makes those of the key.

        Returns:
            Tuples (record, index of the weight, axis, channel); `channel` says for each position of the axis (or table
            of several axes) which channel of the group it reads, -1 where it reads another group.
        """
        channel_of_label = self.channel_of_label(group)
        consumers = []
        for record in self.records.values():
            silenced = {x: made for x, made in record.silences.items() if x[0] == record.kernel}
            for (index, axis), made in (silenced if group.silenced else dict.fromkeys(record.consumes, True)).items():
                channel = np.where(made, channel_of_label[record.weights[index][axis]], -1)
                if (channel >= 0).any():
                    consumers.append((record, index, axis, channel))
        return consumers

    def is_normalized(self, group: ChannelGroup) -> bool:
        """Whether a normalization by a sum of squares reads the group."""
        own = self.channel_of_label(group)
        axes = ((record, *where) for record in self.records.values() for where in record.zeroed)
        return any((own[record.weights[index][axis]] >= 0).any() for record, index, axis in axes)

    def producing_kernels(self, group: ChannelGroup) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """The kernels whose filters produce the channels of a group.

        Returns:
            Tuples (values, axis, channel), as for `consumers`, with tables over several axes as vectors over one;
            empty if something else than a kernel makes them.
        """
        channel_of_label = self.channel_of_label(group)
        kernels = []
        for record in self.records.values():
            for index, by_axis in record.weights.items():
                weight = record.operation.weights[index]
                for axis, labels in by_axis.items():
                    channel = channel_of_label[labels]
                    made_here = record.path in group.producers and (index, axis) not in record.consumes
                    is_kernel = len(weight.shape) > 1 if isinstance(axis, int) else index == record.kernel
                    if made_here and is_kernel and (channel >= 0).any():
                        kernels.append(_along_one_axis(keras.ops.convert_to_numpy(weight), axis, channel))
        return kernels

    def _of_one_image(self, call: Call, multiplications: list[Multiplication]) -> list[Multiplication]:
        """The multiplications for one image: those for one row of the batch, times the rows per image."""
        rows = self.trace.rows[call.outputs[0]]

        def times_rows(positions: int | None) -> int | None:
            return None if None in (rows, positions) else int(positions * rows)

        return [dataclasses.replace(m, positions=times_rows(m.positions)) for m in multiplications]

    def calls_of(self, record: OperationRecord) -> list[int]:
        """Indices (in the trace) of all calls of one operation."""
        return [i for i, call in enumerate(self.trace.calls) if call.operation is record.operation]

    def fingerprints(self) -> set[str]:
        """All digests under which plans of this model are known: its own, and those of earlier versions."""
        graphs = [self]
        if self.trace.opened or any(record.is_new for record in self.records.values()):
            closed = ChannelGraph(self.trace.model, self._input_shapes, self.ignore_statistics, opens_attention=False)
            graphs.append(closed)
        return {graph.fingerprint(names) for graph in graphs for names in (False, True)}

    def fingerprint(self, names_of_custom_layers: bool = False) -> str:
        """A digest of the architecture: layer kinds, names, weight shapes and channel groups, not weight values.

        Args:
            names_of_custom_layers: whether the names of custom layers count, as in earlier plans: such layers may
                choose another name each time they are created.
        """
        layers = [
            (type(r.operation).__name__, self._known_path(r, names_of_custom_layers), _shapes(r.operation))
            for r in self.records.values()
        ]
        groups = [(g.name, g.size, g.consumers) for g in self.groups]
        return hashlib.sha256(json.dumps([layers, groups]).encode()).hexdigest()[:32]

    def _known_path(self, record: OperationRecord, names_of_custom_layers: bool) -> str:
        is_custom_layer = isinstance(record.operation, keras.Layer) and is_custom(record.operation)
        return record.path if names_of_custom_layers or not is_custom_layer else ""


def _answer(group: ChannelGroup) -> str:
    """Whether the channels of a group can be removed, or why not."""
    if group.pinned_because:
        return f"no: {group.pinned_because}"
    if group.residual:
        return f"{'recurrent' if group.recurrent else 'residual'}: with prune_residual"
    return "yes" if group.head is None else f"yes: as many of each of {group.heads} heads"


def _along_one_axis(values: np.ndarray, axis: Axis, channel: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """A weight and the channels along an axis of it; several axes become one."""
    if isinstance(axis, int):
        return values, axis, channel
    values = np.moveaxis(values, axis, range(len(axis)))
    return values.reshape(-1, *values.shape[len(axis) :]), 0, channel.ravel()


def _trace(model: keras.Model, input_shapes: Sequence[tuple] | None, opens_attention: bool) -> Trace:
    with _about_batch_size(model):
        return Trace(model, input_shapes, opens_attention)


@contextlib.contextmanager
def _about_batch_size(model: keras.Model) -> Iterator[None]:
    """If labels or shapes do not fit because the model fixes a batch size, raises an error that says so."""
    try:
        yield
    except UsageError:
        raise
    except ValueError:
        if getattr(model, "inputs", None):
            with_open_batch(model)
        raise


def _shapes(operation: keras.Operation) -> list[list[int]]:
    return [list(weight.shape) for weight in getattr(operation, "weights", ())]
