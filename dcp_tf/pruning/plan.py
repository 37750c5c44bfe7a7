"""The pruning plan: all that passes from selection to surgery."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from dcp_tf.errors import UsageError
from dcp_tf.files import read_json, write_json
from dcp_tf.graph import ChannelGraph, rebuild
from dcp_tf.graph.rule import Kept

VERSION = 1


@dataclasses.dataclass(frozen=True)
class GroupPlan:
    """What one channel group keeps.

    Attributes:
        name: of the group.
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


@dataclasses.dataclass(frozen=True)
class PruningPlan:
    """Which channels stay, for which model, and how that was found.

    Attributes:
        fingerprint: of the model's architecture; see `ChannelGraph.fingerprint`.
        groups: one entry for every group that was considered.
        method: name of the method.
        settings: its settings.
    """

    fingerprint: str
    groups: tuple[GroupPlan, ...]
    method: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def channels(self) -> dict[str, tuple[int, ...]]:
        """Group name -> channels that stay."""
        return {group.name: group.kept for group in self.groups}

    def kept(self, graph: ChannelGraph) -> Kept:
        """Which labels of `graph` stay.

        Raises:
            UsageError: the plan was made for another model, or names channels that the model does not have.
        """
        found = graph.fingerprint()
        if found != self.fingerprint:
            raise UsageError(
                f"the plan was made for a model with fingerprint {self.fingerprint}, this one has {found}: "
                "it is another model, or the plan was applied to it before"
            )
        return graph.kept(self.channels)

    def apply(self, model: keras.Model | ChannelGraph) -> keras.Model:
        """Surgery alone: the model rebuilt without the removed channels, its weights sliced.

        Raises:
            UsageError: the plan does not fit the model.
        """
        ignored = bool(self.settings.get("ignore_statistics"))
        graph = model if isinstance(model, ChannelGraph) else ChannelGraph(model, ignore_statistics=ignored)
        return rebuild(graph, self.kept(graph))

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
            groups = tuple(
                GroupPlan(
                    g["name"],
                    int(g["size"]),
                    tuple(int(k) for k in g["kept"]),
                    tuple(g.get("consumers", ())),
                    g.get("history", {}),
                )
                for g in value["groups"]
            )
            return cls(value["fingerprint"], groups, value.get("method", ""), value.get("settings", {}))
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
