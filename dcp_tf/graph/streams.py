"""Which residual streams may be given another basis, and where: who writes them, who reads them, what lies between."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import layers
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, maximum_flow

from dcp_tf.graph.attention import InnerNode
from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.linear import is_averaging, is_linear, made_axes, makes_channels
from dcp_tf.graph.rule import OperationRecord, find_rule
from dcp_tf.graph.trace import Call
from dcp_tf.text_table import some

_NEVER = 10**6
_MOST_ADDED = 0.1  # of the multiplications of the layers that read and write a stream


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """A kernel that reads a tensor of a stream along one axis, all its channels once or several times in a row."""

    record: OperationRecord
    weight: int
    axis: int
    tensor: int


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """A normalization of a stream, and the kernels that read it, or else the name of what is in the way."""

    call: Call
    readers: tuple[Reader, ...] = ()
    in_the_way: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A residual stream under normalizations over its channels.

    Attributes:
        width: how many channels it has.
        norms: that read it.
        is_centered: whether these take the mean off, so that the stream may do without it.
        writers: what makes the stream and takes another basis, with the axes of its weights that do so.
        readers: kernels that read the stream itself in the other basis.
        entrances: numbers of tensors that come into the stream in their own basis -> the calls that read them in the
            other one.
        exits: the reverse.
    """

    width: int
    norms: tuple[Norm, ...]
    is_centered: bool
    writers: tuple[OperationRecord, ...]
    readers: tuple[Reader, ...]
    entrances: dict[int, list[Call]]
    exits: dict[int, list[Call]]

    @property
    def name(self) -> str:
        """That of its first normalization."""
        return self.norms[0].call.path


def find_streams(graph: ChannelGraph) -> tuple[list[Stream], list[str]]:
    """The streams that can be given another basis.

    Args:
        graph: of the model, with `ignore_statistics`.

    Returns:
        The streams, and for each other normalization over channels a clause that says why it keeps its basis.
    """
    finder = _Finder(graph)
    streams, refused = [], []
    for number in sorted({finder.stream_of(call) for call in finder.norms}):
        found = finder.stream(number)
        (refused if isinstance(found, str) else streams).append(found)
    return streams, refused


def _is_norm(call: Call, rank: int) -> bool:
    """Whether a call is a normalization of its last axis as Keras has it."""
    kinds = [layers.LayerNormalization, *([layers.RMSNormalization] if hasattr(layers, "RMSNormalization") else [])]
    operation = call.operation
    if not isinstance(operation, tuple(kinds)) or find_rule(operation) is None:
        return False
    axes = [operation.axis] if isinstance(operation.axis, int) else list(operation.axis)
    return [axis % rank for axis in axes] == [rank - 1] and not getattr(operation, "rms_scaling", False)


class _Finder:
    """The tensors of a graph, joined to streams by the operations that leave any basis as it is."""

    def __init__(self, graph: ChannelGraph):
        self.graph, self.trace = graph, graph.trace
        calls, self._count = self.trace.calls, len(self.trace.shapes)
        self._calls_of_operation, self._calls_of_node = {}, {}
        for call in calls:
            for key, calls_of in ((id(call.operation), self._calls_of_operation), (id(call.node), self._calls_of_node)):
                calls_of.setdefault(key, []).append(call)
        self.norms = [call for call in calls if _is_norm(call, len(self.trace.shapes[call.inputs[0]]))]
        self._inner = {id(call) for call in calls if is_linear(call, self.trace) and self._is_whole(call)}
        pairs = [
            (call.inputs[0], t) for call in calls if id(call) in self._inner for t in (*call.inputs, *call.outputs)
        ]
        rows, columns = np.array(pairs, int).reshape(-1, 2).T
        links = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(self._count, self._count))
        self._stream_of_tensor = connected_components(links, directed=False)[1]
        self.readers_of = {t: [c for c in calls if t in c.inputs] for t in range(self._count)}

    def stream_of(self, norm: Call) -> int:
        """The number of the stream that a normalization reads."""
        return int(self._stream_of_tensor[norm.inputs[0]])

    def _vector(self, tensor: int) -> np.ndarray | None:
        """The classes of the channels of a tensor along its last axis; None if they lie along another one too."""
        labels, width = self.graph.labels[tensor], self.trace.shapes[tensor][-1:]
        if labels.ndim < 2 or labels.size != labels.shape[-1] or labels.size == 1 or width != labels.shape[-1:]:
            return None
        return self.graph.class_of_label[labels.ravel()]

    def _is_whole(self, call: Call) -> bool:
        """Whether all tensors of a call hold the same channels, each as often as the others."""
        contents = []
        for tensor in (*call.inputs, *call.outputs):
            classes, counts = np.unique(self.graph.class_of_label[self.graph.labels[tensor]], return_counts=True)
            contents.append((classes.tobytes(), tuple(counts // counts.min())))
        return len(set(contents)) == 1

    def _is_alone(self, call: Call) -> bool:
        return len(self._calls_of_operation[id(call.operation)]) == 1

    def stream(self, number: int) -> Stream | str:
        """A stream with the fewest layers between the bases, or why it keeps its own."""
        tensors = set(np.flatnonzero(self._stream_of_tensor == number).tolist())
        norms = [call for call in self.norms if call.inputs[0] in tensors]
        start = f"{some([call.path for call in norms])}: "
        kinds = {type(call.operation) for call in norms}
        vectors = [self._vector(call.inputs[0]) for call in norms]
        if any(vector is None or not np.array_equal(vector, vectors[0]) for vector in vectors):
            return f"{start}the channels that it reads cannot be followed"
        if len(kinds) > 1 or not all(map(self._is_alone, norms)):
            return start + ("both kinds of normalizations read its stream" if len(kinds) > 1 else "it is shared")
        is_centered = kinds == {layers.LayerNormalization}
        members = _Members(self, tensors, norms, vectors[0], is_centered)
        rotated = members.rotated_calls()
        if rotated is None:
            return f"{start}{some(members.blocking)} cannot take another basis"
        entrances, exits = members.conversions(rotated)
        stream = Stream(
            len(vectors[0]),
            tuple(map(self._norm, norms)),
            is_centered,
            tuple(self.graph.records[id(c.operation)] for c in members.writers if id(c) in rotated),
            tuple(r for r in members.readers if members.is_rotated(r.tensor, rotated)),
            entrances,
            exits,
        )
        if not self._is_too_dear(stream, members):
            return stream
        ways = dict.fromkeys([*members.blocking, *(norm.in_the_way for norm in stream.norms if norm.in_the_way)])
        return f"{start}{some(list(ways))} cannot take another basis, and layers between would cost too much"

    def _norm(self, norm: Call) -> Norm:
        """A normalization with the kernels that read what it makes, directly or moved."""
        own, readers = {norm.outputs[0]}, []
        offset = getattr(norm.operation, "beta", None) is not None
        for call in self.trace.calls:
            if own.isdisjoint(call.inputs):
                continue
            if id(call) in self._inner and own.issuperset(call.inputs) and is_averaging(call, self.trace):
                own.update(call.outputs)
                continue
            vector = self._vector(norm.outputs[0])
            reader = None if vector is None else self.reader(call, vector)
            if reader is None or (offset and not _reads_all_alike(call.operation)):
                return Norm(norm, in_the_way=call.path)
            readers.append(reader)
        is_output = not own.isdisjoint(self.trace.outputs)
        return Norm(norm, in_the_way="an output of the model") if is_output else Norm(norm, tuple(readers))

    def reader(self, call: Call, vector: np.ndarray) -> Reader | None:
        """The kernel by which a call reads a stream with these channels; None if it has none."""
        record = self.graph.records[id(call.operation)]
        known = isinstance(call.operation, (layers.Dense, layers.EinsumDense, *layers_of("convolution", "transposed")))
        whole = known and getattr(call.operation, "groups", 1) == 1 and self._is_alone(call)
        if not whole or len(set(call.inputs)) != 1 or find_rule(call.operation) is None:
            return None
        own = self._vector(call.inputs[0])
        axes = [(i, axis) for i, axis in record.consumes if isinstance(axis, int)]
        if own is None or len(own) % len(vector) or len(axes) != 1 or (own.reshape(-1, len(vector)) != vector).any():
            return None
        return Reader(record, *axes[0], call.inputs[0])

    def writes(self, call: Call, vector: np.ndarray) -> bool:
        """Whether a call makes a stream with these channels by weights that take another basis."""
        operation, record = call.operation, self.graph.records[id(call.operation)]
        linear = getattr(operation, "activation", None) in (None, keras.activations.linear)
        mixes = getattr(operation, "groups", 1) == 1 and not isinstance(operation, layers_of("depthwise", "separable"))
        if (
            not (makes_channels(operation) and linear and mixes and self._is_alone(call))
            or find_rule(operation) is None
        ):
            return False
        classes = [self.graph.class_of_label[record.weights[i][axis]] for i, axis in made_axes(record)]
        own = self._vector(call.outputs[0])
        return own is not None and all(np.array_equal(vector, x) for x in (own, *classes))

    def is_convertible(self, tensor: int, consumers: Iterable[Call], vector: np.ndarray) -> bool:
        """Whether a layer may stand between a tensor and some of its readers."""
        own = self._vector(tensor)
        nodes = [len(self._calls_of_node[id(c.node)]) == 1 and not isinstance(c.node, InnerNode) for c in consumers]
        return own is not None and np.array_equal(own, vector) and all(nodes)

    def _is_too_dear(self, stream: Stream, members: "_Members") -> bool:
        """Whether a stream would take many more layers, beside its normalizations and beside what is around."""
        positions = lambda tensor: math.prod(size or 1 for size in self.trace.shapes[tensor][1:-1])  # noqa: E731
        tensors = [*stream.entrances, *stream.exits, *(n.call.outputs[0] for n in stream.norms if n.in_the_way)]
        if 2 * len(tensors) <= len(stream.norms):
            return False
        added = sum(positions(tensor) for tensor in tensors) * stream.width**2
        readers = [*stream.readers, *(reader for norm in stream.norms for reader in norm.readers)]
        kernels = {(id(r.record), r.weight): (r.record, r.weight, r.tensor) for r in readers}
        for call in members.writers:
            record = self.graph.records[id(call.operation)]
            if record in stream.writers and record.kernel >= 0:
                kernels.setdefault((id(record), record.kernel), (record, record.kernel, call.outputs[0]))
        touched = sum(math.prod(r.operation.weights[w].shape) * positions(t) for r, w, t in kernels.values())
        return added > _MOST_ADDED * touched


class _Members:
    """The calls of one stream, each in the stream's own basis or in another: the cheapest choice is a minimum cut."""

    def __init__(
        self, finder: _Finder, tensors: set[int], norms: Sequence[Call], vector: np.ndarray, is_centered: bool
    ):
        self._finder, self._tensors, self._norms, self._vector = finder, tensors, norms, vector
        self._is_centered = is_centered
        trace = finder.trace
        self.writers: list[Call] = []
        self.readers: list[Reader] = []
        self.blocking: list[str] = []
        self._fixed: list[Call] = []
        self._calls = [c for c in trace.calls if not tensors.isdisjoint((*c.inputs, *c.outputs))]
        for call in self._calls:
            if id(call) in finder._inner and tensors.issuperset((*call.inputs, *call.outputs)):
                continue
            own_basis = False
            if not tensors.isdisjoint(call.outputs):
                self.writers.append(call)
                own_basis = not finder.writes(call, vector)
            if not tensors.isdisjoint(call.inputs) and call not in norms:
                reader = None if is_centered else finder.reader(call, vector)
                own_basis = own_basis or reader is None
                self.readers += [reader] if reader is not None else []
            if own_basis:
                self._fixed.append(call)
                self.blocking.append(call.path)
        self._is_input = not tensors.isdisjoint(trace.inputs)
        self._is_output = not tensors.isdisjoint(trace.outputs)
        self.blocking += ["an input of the model"] * self._is_input + ["an output of the model"] * self._is_output

    def _consumers(self, tensor: int) -> list[Call]:
        """The calls that must have a tensor in the basis that they are in: not kernels, which take any."""
        kernels = {id(reader.record) for reader in self.readers if reader.tensor == tensor}
        calls = self._finder.readers_of[tensor]
        return [c for c in calls if id(self._finder.graph.records[id(c.operation)]) not in kernels or c in self._fixed]

    def rotated_calls(self) -> set[int] | None:
        """The calls (by id) in the other basis; None if there is no way."""
        trace, number = self._finder.trace, {id(call): i + 2 for i, call in enumerate(self._calls)}
        edges: list[tuple[int, int, int]] = []  # from, to, what it costs if they are in the other and in the own basis
        edges += [(0, number[id(call)], _NEVER) for call in self._norms]
        edges += [(number[id(call)], 1, _NEVER) for call in self._fixed]
        size = len(self._calls) + 2
        for tensor in self._tensors:
            maker = number[id(trace.calls[trace.producer[tensor]])] if tensor in trace.producer else 1
            if tensor in trace.outputs:
                edges.append((maker, 1, _NEVER))
            consumers = self._consumers(tensor)
            if not consumers:
                continue
            cost = 1 if self._finder.is_convertible(tensor, consumers, self._vector) else _NEVER
            entrance, end, size = size, size + 1, size + 2
            edges += [(entrance, maker, cost), (maker, end, _NEVER if self._is_centered else cost)]
            edges += [e for c in consumers for e in ((number[id(c)], entrance, _NEVER), (end, number[id(c)], _NEVER))]
        rows, columns, capacities = np.array(edges, np.int32).T
        capacity = csr_array((capacities, (rows, columns)), shape=(size, size), dtype=np.int32)
        flow = maximum_flow(capacity, 0, 1)
        if flow.flow_value >= _NEVER:
            return None
        left = csr_array(capacity - flow.flow)
        left.data = np.maximum(left.data, 0)
        left.eliminate_zeros()
        reached = set(breadth_first_order(left, 0, return_predecessors=False).tolist())
        return {id(call) for call in self._calls if number[id(call)] in reached}

    def is_rotated(self, tensor: int, rotated: set[int]) -> bool:
        """Whether what makes a tensor is in the other basis."""
        trace = self._finder.trace
        return tensor in trace.producer and id(trace.calls[trace.producer[tensor]]) in rotated

    def conversions(self, rotated: set[int]) -> tuple[dict[int, list[Call]], dict[int, list[Call]]]:
        """By tensor the calls that read it in the other basis, though it is in its own; and the reverse."""
        entrances, exits = {}, {}
        for tensor in sorted(self._tensors):
            is_rotated = self.is_rotated(tensor, rotated)
            others = [c for c in self._consumers(tensor) if (id(c) in rotated) != is_rotated]
            if others:
                (exits if is_rotated else entrances)[tensor] = others
        return entrances, exits


def _reads_all_alike(operation: keras.Operation) -> bool:
    """Whether a kernel sees a vector that all positions share at its full size everywhere: no zeros at borders."""
    if isinstance(operation, (layers.Dense, layers.EinsumDense)):
        return True
    size = operation.kernel_size
    return not isinstance(operation, layers_of("transposed")) and (max(size) == 1 or operation.padding == "valid")
