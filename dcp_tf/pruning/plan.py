"""The pruning plan: all that passes from selection to surgery."""

import base64
import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.files import read_json, write_json
from dcp_tf.graph import ChannelGraph, copy_model, rebuild
from dcp_tf.graph.rule import KeptChannels, OperationRecord
from dcp_tf.text_table import ShownAsTables, Table, print_tables, settings_line, some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSION = 1


@dataclasses.dataclass(frozen=True)
class GroupPlan:
    """What one channel group keeps.

    Attributes:
        name: of the group; or of a residual block that goes as a whole, which is a group of one that keeps nothing.
        size: channels before pruning.
        kept: sorted channel numbers that stay.
        consumers: layers that read the group.
        history: per step of the selection: `kept`, `loss`, `reconstruction`, `discrimination`, `added`; empty for
            methods that do not select step by step.
    """

    name: str
    size: int
    kept: tuple[int, ...]
    consumers: tuple[str, ...] = ()
    history: Mapping[str, list] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<GroupPlan {self.name}: keeps {len(self.kept)} of {self.size} channels>"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "GroupPlan":
        """The inverse of `dataclasses.asdict`, after JSON."""
        name, kept = _text(value["name"]), tuple(value["kept"])
        if not all(map(_is_channel, kept)) or len(set(kept)) < len(kept):
            wrong = next((k for k in kept if not _is_channel(k) or kept.count(k) > 1), None)
            raise UsageError(f"the plan's group {name!r} must keep channel numbers, each once; received {wrong!r:.80}")
        return cls(name, _count(value["size"]), kept, tuple(value.get("consumers", ())), value.get("history", {}))

    def then(self, later: "GroupPlan") -> "GroupPlan":
        """What both keep, `later` being of the group as this one leaves it, in the numbers of this one's channels."""
        if later.size != len(self.kept):
            raise UsageError(
                f"the plans do not follow each other: the first leaves {len(self.kept)} channels of {self.name!r}, the "
                f"second takes it for {later.size}"
            )
        if self.consumers and later.consumers and self.consumers != later.consumers:
            raise UsageError(
                f"the plans cannot be composed: {self.name!r} was read by {', '.join(self.consumers)}, after the first "
                f"plan it is read by {', '.join(later.consumers)}; leave it out of the second (exclude)"
            )
        stays = sorted(self.kept)
        history = dict(later.history)
        if "added" in history:
            history["added"] = [[stays[channel] for channel in step] for step in history["added"]]
        return dataclasses.replace(self, kept=tuple(stays[k] for k in later.kept), history=history)


@dataclasses.dataclass(frozen=True)
class KernelPlan:
    """Which kernels one layer keeps (DKP); the others are zero.

    Attributes:
        layer: path of the layer.
        weight: index of the weight among the layer's.
        shape: of the last two axes of the weight, its input channels and filters in the order that the layer has them.
        kept: base64 of one bit per kernel, row by row of that shape, the highest bit first: 1 where it stays.
        history: as in `GroupPlan`, counting kernels, without `added`.
    """

    layer: str
    weight: int
    shape: tuple[int, int]
    kept: str
    history: Mapping[str, list] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<KernelPlan {self.layer}: keeps {self.kept_count} of {self.shape[0] * self.shape[1]} kernels>"

    @classmethod
    def of(cls, layer: str, weight: int, kept: np.ndarray, history: Mapping[str, list]) -> "KernelPlan":
        """The plan of a layer from a boolean matrix over the last two axes of its weight."""
        return cls(layer, weight, kept.shape, base64.b64encode(np.packbits(kept).tobytes()).decode(), history)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "KernelPlan":
        """The inverse of `dataclasses.asdict`, after JSON."""
        rows, columns = map(_count, value["shape"])
        layer, weight = _text(value["layer"]), _count(value["weight"])
        plan = cls(layer, weight, (rows, columns), value["kept"], value.get("history", {}))
        plan.matrix()
        return plan

    def matrix(self) -> np.ndarray:
        """Which kernels stay, boolean, over the last two axes of the weight.

        Raises:
            UsageError: `kept` is not what `of` writes.
        """
        try:
            size = self.shape[0] * self.shape[1]
            packed = np.frombuffer(base64.b64decode(self.kept, validate=True), np.uint8)
            if len(packed) != -(-size // 8):
                raise ValueError(f"{len(packed)} bytes for {size} kernels")
            return np.unpackbits(packed, count=size).astype(bool).reshape(self.shape)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the plan's kernels of {self.layer!r} cannot be read: {error}") from error

    @property
    def kept_count(self) -> int:
        """How many kernels stay."""
        return int(self.matrix().sum())


@dataclasses.dataclass(frozen=True)
class PruningPlan(ShownAsTables):
    """Which channels stay, for which model, and how that was found.

    Attributes:
        fingerprint: of the model's architecture; see `ChannelGraph.fingerprint`.
        groups: one entry for every group that was considered.
        kernels: one entry for every layer whose kernels were chosen one by one; empty unless the method does that.
        method: name of the method.
        settings: its settings.
    """

    fingerprint: str
    groups: tuple[GroupPlan, ...]
    method: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kernels: tuple[KernelPlan, ...] = ()

    def __repr__(self) -> str:
        kept, size = sum(len(g.kept) for g in self.groups), sum(g.size for g in self.groups)
        parts = [f"{len(self.groups)} groups keep {kept:,} of {size:,} channels"]
        if self.kernels:
            kernels = sum(k.shape[0] * k.shape[1] for k in self.kernels)
            kept = sum(k.kept_count for k in self.kernels)
            parts.append(f"{len(self.kernels)} layers keep {kept:,} of {kernels:,} kernels")
        return f"<PruningPlan {self.method}: {', '.join(parts)}>"

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints what each group keeps, what each layer keeps of its kernels, and the settings."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        settings = {name: value for name, value in self.settings.items() if name != "steps"}
        if target := settings.get("target"):  # it sets the rate
            settings = {**settings, "rate": None, "target": f"{target['measure']} {target['text']}"}
        read_by = lambda g: some(g.consumers) if g.kept else "(a whole block)"  # noqa: E731
        rows = [(g.name, len(g.kept), g.size, read_by(g)) for g in self.groups]
        notes = [f"settings: {settings_line(settings)}"] if settings else []
        fractions = [len(g.kept) / max(g.size, 1) for g in self.groups]
        columns = ("group", "keeps", "of", "read by")
        tables = [Table(f"plan of {self.method or 'channels'}", columns, rows, notes, fractions)]
        if self.kernels:
            rows = [(k.layer, k.kept_count, k.shape[0] * k.shape[1]) for k in self.kernels]
            tables.append(Table("kernels", ("layer", "keeps", "of"), rows, (), [k / max(n, 1) for _, k, n in rows]))
        return tables

    def plot(self) -> "Figure":
        """What each group keeps and, where channels were selected one by one, the loss while they were taken.

        Returns:
            A matplotlib figure.
        """
        from dcp_tf import drawing

        kept = [(g.name, len(g.kept), g.size) for g in self.groups]
        kept += [(f"{k.layer} (kernels)", k.kept_count, k.shape[0] * k.shape[1]) for k in self.kernels]
        histories = [*((g.size, g.history) for g in self.groups)]
        histories += [(k.shape[0] * k.shape[1], k.history) for k in self.kernels]
        return drawing.plan_figure(kept, [drawing.relative_loss(size, history) for size, history in histories])

    @property
    def channels(self) -> dict[str, tuple[int, ...]]:
        """Group name -> channels that stay."""
        return {group.name: group.kept for group in self.groups}

    def kept(self, graph: ChannelGraph) -> KeptChannels:
        """Which labels of `graph` stay.

        Raises:
            UsageError: the plan was made for another model, or names channels that the model does not have.
        """
        if self.fingerprint != graph.fingerprint() and self.fingerprint not in graph.fingerprints():
            hint = "; with rotate_streams a plan is for the rotated model, which the run saved as baseline.keras"
            raise UsageError(
                f"the plan was made for a model with fingerprint {self.fingerprint}, this one has "
                f"{graph.fingerprint()}: it is another model, or the plan was applied to it before"
                + hint
                * bool(self.settings.get("rotate_streams"))
            )
        sizes = {group.name: group.size for group in graph.groups}
        for group in self.groups:
            if sizes.get(group.name, group.size) != group.size:  # `kept` names groups that are not there
                raise UsageError(
                    f"the plan's group {group.name!r} has {group.size} channels, the model's has {sizes[group.name]}"
                )
        return graph.kept(self.channels)

    def apply(self, model: keras.Model | ChannelGraph) -> keras.Model:
        """Surgery alone: the model rebuilt without the removed channels, its weights sliced, removed kernels zero.

        Raises:
            UsageError: the plan does not fit the model.
        """
        ignored = bool(self.settings.get("ignore_statistics"))
        graph = model if isinstance(model, ChannelGraph) else ChannelGraph(model, ignore_statistics=ignored)
        kept = self.kept(graph)
        return rebuild(self.with_zero_kernels(graph), kept)

    def with_zero_kernels(self, graph: ChannelGraph) -> ChannelGraph:
        """The graph of a copy whose removed kernels are zero; the graph itself where only channels go."""
        if not self.kernels:
            return graph
        graph = ChannelGraph(copy_model(graph), ignore_statistics=graph.ignore_statistics)
        layers = {record.path: record.operation for record in graph.records.values()}
        for plan in self.kernels:
            weights = getattr(layers.get(plan.layer), "weights", ())
            if not 0 <= plan.weight < len(weights) or tuple(weights[plan.weight].shape[-2:]) != plan.shape:
                raise UsageError(f"the plan's kernels of {plan.layer!r} do not fit the model, which has no such layer")
            kernel = weights[plan.weight]
            kernel.assign(kernel * plan.matrix().astype(np.float32))
        return graph

    def then(self, later: "PruningPlan", model: keras.Model | ChannelGraph | None = None) -> "PruningPlan":
        """One plan in place of two: applied to the first model it leaves what both leave, one after the other.

            plan = first.plan.then(second.plan, model)  # second = dcp_tf.prune(first.model, ...)
            smaller = plan.apply(model)

        Args:
            later: a plan of the model that this one leaves.
            model: what this plan is for; needed where `later` removes kernels.

        Raises:
            UsageError: the second plan is not of the model that the first one leaves, or names a group that only came
                about by the first plan, as where a grouped convolution became a depthwise one.
        """
        groups = {group.name: group for group in self.groups}
        for group in later.groups:
            groups[group.name] = groups[group.name].then(group) if group.name in groups else group
        kernels = {(kernel.layer, kernel.weight): kernel for kernel in self.kernels}
        if later.kernels:
            if model is None:
                raise UsageError("the second plan removes kernels: give the first plan's model, then(later, model)")
            ignored = bool(self.settings.get("ignore_statistics"))
            graph = model if isinstance(model, ChannelGraph) else ChannelGraph(model, ignore_statistics=ignored)
            kept, records = self.kept(graph), {record.path: record for record in graph.records.values()}
            for kernel in later.kernels:
                key = kernel.layer, kernel.weight
                kernels[key] = _widened(kernel, records.get(kernel.layer), kept, kernels.get(key))
        steps = [plan.settings.get("steps", [{"method": plan.method, **plan.settings}]) for plan in (self, later)]
        settings = {**later.settings, "steps": [step for part in steps for step in part]}
        if self.settings.get("ignore_statistics"):
            settings["ignore_statistics"] = True
        return PruningPlan(self.fingerprint, tuple(groups.values()), later.method, settings, tuple(kernels.values()))

    def kernel_masks(self, graph: ChannelGraph, small: ChannelGraph) -> dict[int, np.ndarray]:
        """Masks that hold removed kernels at zero while the smaller model is trained.

        Args:
            graph: of the model before surgery.
            small: of the model after it.

        Returns:
            Per weight of `small` (by its `id()`) an array of 0 and 1 of its shape, for `training.fit`.
        """
        kept = self.kept(graph)
        before, after = ({record.path: record for record in g.records.values()} for g in (graph, small))
        masks = {}
        for plan in self.kernels:
            record, weight = before[plan.layer], after[plan.layer].operation.weights[plan.weight]
            first = len(weight.shape) - 2
            by_axis = record.weights[plan.weight]
            stays = kept.take(plan.matrix(), {a - first: by_axis[a] for a in (first, first + 1) if a in by_axis})
            masks[id(weight)] = np.broadcast_to(stays, weight.shape).astype(np.float32)
        return masks

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Any, source: str = "the plan") -> "PruningPlan":
        """The inverse of `to_json`.

        Raises:
            UsageError: it is no plan of this version.
        """
        try:
            if value["version"] != VERSION:
                raise UsageError(f"{source} has version {value['version']}, this dcp_tf reads version {VERSION}")
            groups = tuple(GroupPlan.from_json(group) for group in value["groups"])
            kernels = tuple(KernelPlan.from_json(kernel) for kernel in value.get("kernels", ()))
            if twice := [name for name, count in Counter(group.name for group in groups).items() if count > 1]:
                raise UsageError(f"{source} names the group {twice[0]!r} twice")
            if twice := [name for name, count in Counter((k.layer, k.weight) for k in kernels).items() if count > 1]:
                raise UsageError(f"{source} names the layer {twice[0][0]!r} twice")
            return cls(
                _text(value["fingerprint"]), groups, value.get("method", ""), dict(value.get("settings", {})), kernels
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{source} is no pruning plan: {type(error).__name__} {error}") from error

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the plan as JSON, atomically."""
        return write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "PruningPlan":
        """Reads a plan.

        Raises:
            UsageError: there is no such file, or it holds no plan.
        """
        return cls.from_json(read_json(path), str(path))


def _widened(
    later: KernelPlan, record: OperationRecord | None, kept: KeptChannels, earlier: KernelPlan | None
) -> KernelPlan:
    """A plan of a layer's kernels over all channels that the layer has before those go that are not kept.

    Args:
        later: over the channels that stay.
        record: of the layer with all channels.
        kept: the channels that stay.
        earlier: what was removed of all kernels before.
    """
    weights = [] if record is None else record.operation.weights
    if later.weight >= len(weights) or len(weights[later.weight].shape) < 2:
        raise UsageError(f"the second plan's kernels of {later.layer!r} do not fit the model, which has no such layer")
    shape = tuple(weights[later.weight].shape)
    first, by_axis = len(shape) - 2, record.weights.get(later.weight, {})
    stays = [
        np.flatnonzero(kept.mask(by_axis[axis])) if axis in by_axis else np.arange(shape[axis])
        for axis in (first, first + 1)
    ]
    if tuple(map(len, stays)) != later.shape:
        raise UsageError(
            f"the plans do not follow each other: {later.layer!r} has kernels of {tuple(map(len, stays))} after the "
            f"first, the second takes them for {later.shape}"
        )
    matrix = np.ones(shape[-2:], bool) if earlier is None else earlier.matrix()
    matrix[np.ix_(*stays)] &= later.matrix()
    return KernelPlan.of(later.layer, later.weight, matrix, later.history)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, received {value!r:.80}")
    return value


def _count(value: Any) -> int:
    if not _is_channel(value) or value < 0:
        raise TypeError(f"expected a whole number of 0 or more, received {value!r:.80}")
    return value


def _is_channel(value: Any) -> bool:
    """Whether JSON holds a whole number that NumPy can index with; true and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
