"""What a criterion is, and the table of all methods, which `register_importance` adds criteria to."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGroup
from dcp_tf.pruning.kernel_methods import DCPDKP, DKP, AdaptDKP
from dcp_tf.pruning.methods import DCP, AdaptDCP, Guided, Method
from dcp_tf.settings.importance import Refit
from dcp_tf.settings.scope import WidthSettings
from dcp_tf.settings.table import documented

METHODS: dict[str, type[Method]] = {method.name: method for method in (DCP, AdaptDCP, DKP, DCPDKP, AdaptDKP)}

Scores = Mapping[str, np.ndarray]
AnyMethod = TypeVar("AnyMethod", bound=type[Method])


def register_importance(criterion: AnyMethod) -> AnyMethod:
    """Adds a criterion to the methods that are known by name; a decorator for its class.

    A criterion is a subclass of `dcp_tf.Criterion` with a `name` and a method `score_channels`; where it cannot rank
    every group's channels, its `check` raises UsageError for the others. Fields with defaults are its settings.

    Example:
        >>> @dcp_tf.register_importance
        ... class LargestWeight(dcp_tf.Criterion):
        ...     name = "largest_weight"
        ...
        ...     def score_channels(self, context, groups):
        ...         scores = {group.name: np.zeros(group.size) for group in groups}
        ...         for group in groups:
        ...             for kernel, axis, channel in context.graph.producing_kernels(group):
        ...                 filters = np.abs(np.moveaxis(kernel, axis, 0)).reshape(len(channel), -1)
        ...                 np.maximum.at(scores[group.name], channel[channel >= 0], filters[channel >= 0].max(1))
        ...         return scores
        >>> result = dcp_tf.prune(model, train_data, LargestWeight(rate=0.5))

    The programs take it as `--method=largest_weight --custom_objects=FILE.py`.

    Raises:
        UsageError: it is no criterion, has no name, or the name belongs to another method.
    """
    name = getattr(criterion, "name", None) if isinstance(criterion, type) and issubclass(criterion, Method) else None
    if not isinstance(name, str):
        raise UsageError(f"a criterion is a subclass of dcp_tf.Criterion with a name, received {criterion!r:.80}")
    known = METHODS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (criterion.__module__, criterion.__qualname__):
        raise UsageError(f"the name {name!r} belongs to {known.__module__}.{known.__qualname__}; choose another name")
    if "__dataclass_params__" not in vars(criterion):
        criterion = documented(dataclasses.dataclass(frozen=True, kw_only=True)(criterion))
    METHODS[name] = criterion
    return criterion


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Criterion(Refit, WidthSettings, Guided):
    """A criterion that ranks the channels of each group in one shot.

    Without `update` the remaining weights stay as they are, and the settings of `Guided` have no meaning.
    """

    looks_at_images: ClassVar[bool] = False  # whether the settings of the selection images matter to the scores

    @property
    def guided(self) -> bool:
        """Whether the weights are fitted."""
        return self.update

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Scores:
        """The importance of each channel.

        Args:
            context: the trained model and its data; see `dcp_tf.pruning.Context`.
            groups: whose channels are ranked.

        Returns:
            Group name -> scores, shape (size,); the channels with the largest stay.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method score_channels(context, groups)")
