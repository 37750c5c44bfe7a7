"""Which channels of a model must stay or go together, which layers produce them and which consume them."""

import collections
import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import dcp_tf.graph.rules  # noqa: F401  (fills the table of rules)
from dcp_tf.errors import UsageError
from dcp_tf.graph.grouping import ClassFacts, summarize_reasons
from dcp_tf.graph.labels import LabelSpace, close_rectangles, varying_axes
from dcp_tf.graph.rule import KeptChannels, Labels, Multiplication, OperationRecord, RuleCall, run_rule
from dcp_tf.graph.trace import Call, Trace
from dcp_tf.models.batch import with_open_batch
from dcp_tf.models.custom_objects import is_custom
from dcp_tf.text_table import ShownAsTables, Table, print_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INPUT_REASON = "it is an input of the model"
OUTPUT_REASON = "it is an output of the model"


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
    """

    name: str
    size: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    pinned_because: str | None
    residual: bool
    classes: np.ndarray = dataclasses.field(repr=False)
    recurrent: bool = False


class ChannelGraph(ShownAsTables):
    """The channel groups of a functional or Sequential Keras model.

    Attributes:
        trace: the flat list of calls.
        ignore_statistics: whether channels may go although a layer takes statistics over them.
        records: for each operation (by id) what its rule stated.
        labels: for each tensor number its label array.
        class_of_label: for each label the number of its class.
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
    ):
        """Traces `model` and groups its channels.

        Args:
            model: a functional or built Sequential model.
            input_shapes: shapes (batch axis included), where the model leaves sizes open.
            ignore_statistics: frees channels over which a LayerNormalization or the like takes statistics. The rebuilt
                model then differs from the masked one: its statistics are those of the kept channels.

        Raises:
            UsageError: the model is subclassed, so its graph is unknown.
        """
        self.trace = _trace(model, input_shapes)
        self.ignore_statistics = ignore_statistics
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
        self.class_of_label = close_rectangles(self._space, list(self.labels.values()))
        self._class_count = int(self.class_of_label.max(initial=-1)) + 1
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
        for tensor in trace.outputs:
            self._space.pin(self.labels[tensor], OUTPUT_REASON)
        for model, tensors in trace.nested:
            self._label_inputs(model, [self.labels[t] for t in tensors])

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

    # Grouping

    def _group(self) -> list[ChannelGroup]:
        facts = ClassFacts(self._class_count)
        for record in self.records.values():
            for labels in record.produces.values():
                facts.add(self._classes(labels), ("producer", record.path))
            for index, axis in record.consumes:
                facts.add(self._classes(record.weights[index][axis]), ("consumer", record.path))
        for labels, reason in self._space.pins:
            facts.add(self._classes(labels), ("reason", reason))
        for labels in self._residual:
            facts.add(self._classes(labels), ("residual", "sum"))
        for labels in self._recurrent:
            facts.add(self._classes(labels), ("residual", "recurrent"))
        for number, labels in enumerate(self._space.parts):
            facts.add(self._classes(labels), ("part", number))

        def by_kind(facts: tuple) -> tuple:
            kinds = ("producer", "consumer", "reason", "residual", "part")
            return tuple(tuple(value for kind_of_fact, value in facts if kind_of_fact == kind) for kind in kinds)

        first = np.unique(self.class_of_label, return_index=True)[1]
        groups = facts.groups(self.class_of_label[np.sort(first)], by_kind)
        return self._name_groups([(facts, classes) for facts, classes in groups if facts[0]])

    def _classes(self, labels: Labels) -> np.ndarray:
        return np.unique(self.class_of_label[labels])

    def _name_groups(self, members: Sequence[tuple[tuple, np.ndarray]]) -> list[ChannelGroup]:
        used: collections.Counter = collections.Counter()
        groups = []
        for (producers, consumers, reasons, residual, _), classes in members:
            used[producers[0]] += 1
            name = producers[0] if used[producers[0]] == 1 else f"{producers[0]}#{used[producers[0]]}"
            reason = summarize_reasons(reasons) or None
            if reason is None and not consumers:
                reason = "no layer with a kernel reads it"
            if reason is None and len(classes) == 1:
                reason = "it is a single channel, or several that only live together"
            recurrent = "recurrent" in residual
            group = ChannelGroup(
                name, len(classes), producers, consumers, reason, bool(residual), classes, recurrent=recurrent
            )
            groups.append(group)
        return groups

    # Questions

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints the groups: their channels, who reads them, and whether they can be pruned or why not."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        rows = [(g.name, g.size, ", ".join(g.consumers), _answer(g)) for g in self.groups]
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

    def prunable(self, residual: bool = False) -> list[ChannelGroup]:
        """The groups that may lose channels; residual streams only on request (the papers leave them)."""
        return [g for g in self.groups if g.pinned_because is None and (residual or not g.residual)]

    def kept(self, channels: Mapping[str, Sequence[int]]) -> KeptChannels:
        """Which labels stay when each named group keeps the listed channels and all others keep everything.

        Raises:
            UsageError: an unknown or pinned group, an index outside it, or a group that would keep nothing.
        """
        stays = np.ones(self._class_count, bool)
        for name, indices in channels.items():
            group = self.group(name)
            indices = np.unique(np.asarray(indices, np.int64))
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
        return KeptChannels(self.class_of_label, stays)

    def channel_of_label(self, group: ChannelGroup) -> np.ndarray:
        """For each label the number of its channel in the group, -1 where it belongs to another group."""
        channel_of_class = np.full(self._class_count, -1)
        channel_of_class[group.classes] = np.arange(group.size)
        return channel_of_class[self.class_of_label]

    def group_of_label(self) -> np.ndarray:
        """For each label the index of its group in `groups`, `len(groups)` if it belongs to none."""
        group_of_class = np.full(self._class_count, len(self.groups))
        for index, group in enumerate(self.groups):
            group_of_class[group.classes] = index
        return group_of_class[self.class_of_label]

    def consumers(self, group: ChannelGroup) -> list[tuple[OperationRecord, int, int, np.ndarray]]:
        """Every kernel axis that reads the group.

        Returns:
            Tuples (record, index of the weight, axis, channel); `channel` says for each position of the axis which
            channel of the group it reads, -1 where it reads another group.
        """
        channel_of_label = self.channel_of_label(group)
        consumers = []
        for record in self.records.values():
            for index, axis in record.consumes:
                channel = channel_of_label[record.weights[index][axis]]
                if (channel >= 0).any():
                    consumers.append((record, index, axis, channel))
        return consumers

    def producing_kernels(self, group: ChannelGroup) -> list[tuple[np.ndarray, int, np.ndarray]]:
        """The kernels whose filters produce the channels of a group.

        Returns:
            Tuples (values, axis, channel), as for `consumers`; empty if something else than a kernel makes them.
        """
        channel_of_label = self.channel_of_label(group)
        kernels = []
        for record in self.records.values():
            for index, by_axis in record.weights.items():
                weight = record.operation.weights[index]
                for axis, labels in by_axis.items():
                    channel = channel_of_label[labels]
                    made_here = record.path in group.producers and (index, axis) not in record.consumes
                    if made_here and len(weight.shape) > 1 and (channel >= 0).any():
                        kernels.append((keras.ops.convert_to_numpy(weight), axis, channel))
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
    return f"{'recurrent' if group.recurrent else 'residual'}: with prune_residual" if group.residual else "yes"


def _trace(model: keras.Model, input_shapes: Sequence[tuple] | None) -> Trace:
    with _about_batch_size(model):
        return Trace(model, input_shapes)


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
