"""Training on several devices, or on several machines, by `tf.distribute`.

`fit` trains a copy of the model whose variables belong to the strategy and brings the weights back after each epoch, so
that everything else (the selection, surgery, files) works on an ordinary model. In `multi_worker` every worker runs the
same program on the same data; each looks at its share of every batch, and all come to the same weights.
"""

import contextlib
import contextvars
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from dcp_tf.errors import RunError, UsageError
from dcp_tf.models.layer_copies import new_layer
from dcp_tf.models.layer_state import transfer_state
from dcp_tf.settings.data import STRATEGIES

_CURRENT: contextvars.ContextVar[tf.distribute.Strategy | None] = contextvars.ContextVar("strategy", default=None)
_EXAMPLE = """{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}"""


def make_strategy(name: str) -> tf.distribute.Strategy | None:
    """The strategy of a name; None for "one".

    Args:
        name: "one": one device; "mirrored": all GPUs of this machine (all its logical CPU devices where there is
            none); "multi_worker": the machines that the environment variable TF_CONFIG lists; it must be made before
            TensorFlow's first operation; "tpu": the TPU of this machine or of the environment. It is untested on
            a TPU.

    Raises:
        UsageError: an unknown name, no TF_CONFIG, or no TPU.
    """
    if name not in STRATEGIES:
        raise UsageError(f"unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}")
    if name == "one":
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "tpu":
        return _tpu()
    if not os.environ.get("TF_CONFIG"):
        raise UsageError(f"the strategy multi_worker needs TF_CONFIG, for each worker such as TF_CONFIG='{_EXAMPLE}'")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, KeyError) as error:
        raise UsageError(f"the strategy multi_worker cannot be made of TF_CONFIG: {error}") from error


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except Exception as error:  # of many kinds, by what is missing
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"no TPU was found for strategy=tpu (untested): {line}", "strategy") from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def distributed(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Trains every `fit` inside of it under the strategy; None: on one device.

    Example:
        >>> with distributed(tf.distribute.MirroredStrategy()):
        ...     result = dcp_tf.prune(model, data, dcp_tf.DCP(rate=0.5))
    """
    token = _CURRENT.set(strategy)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_strategy() -> tf.distribute.Strategy | None:
    """The strategy of the innermost `distributed`."""
    return _CURRENT.get()


def worker_number(strategy: tf.distribute.Strategy | None) -> int:
    """The index of this process among the workers; 0 for the chief and for a single process."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not _has_workers(strategy) or resolver.task_type == "chief":
        return 0
    return resolver.task_id + ("chief" in resolver.cluster_spec().jobs)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process saves the result."""
    return worker_number(strategy) == 0


def _has_workers(strategy: tf.distribute.Strategy | None) -> bool:
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def replica_shares(strategy: tf.distribute.Strategy, batch: tuple) -> tuple[Any, Any]:
    """Splits a batch into one part per replica, as evenly as possible.

    Returns:
        The parts, and the fraction of the batch that each is, as per-replica values for `strategy.run`.
    """
    size, count = len(keras.tree.flatten(batch[0])[0]), strategy.num_replicas_in_sync
    bounds = [size * i // count for i in range(count + 1)]

    def part(context, values):
        number = context.replica_id_in_sync_group
        return values[bounds[number] : bounds[number + 1]]

    def share(context):
        number = context.replica_id_in_sync_group
        return tf.constant((bounds[number + 1] - bounds[number]) / size, tf.float32)

    parts = keras.tree.map_structure(
        lambda x: strategy.experimental_distribute_values_from_function(lambda context: part(context, x)), batch
    )
    return parts, strategy.experimental_distribute_values_from_function(share)


class Replicas:
    """A model as a strategy trains it.

    Args:
        model: an ordinary model; `gather` copies the replicas' weights to it.
        strategy: None: the model itself is trained.

    Attributes:
        model: the trained one; its BatchNormalizations use all replicas' images.
        strategy: as given.

    Raises:
        UsageError: the model cannot be created from its config, or its variables belong to a strategy already.
        RunError: several workers have models of different shapes.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy | None):
        if any(isinstance(variable.value, tf.distribute.DistributedValues) for variable in model.variables):
            raise UsageError(
                f"the weights of {model.name!r} belong to a strategy: load or build the model outside of "
                "strategy.scope(), and train inside of `with distributed(strategy):`"
            )
        self._plain, self.strategy = model, strategy
        self.model = model if strategy is None else _copy(model, strategy)
        if _has_workers(strategy):
            _require_same_shapes(model, strategy)
            self._broadcast_from_chief()
        self.scatter()

    def own_keys(self, masks: Mapping[str | int, Any]) -> dict[str | int, Any]:
        """Masks of the plain model's variables, by `id()` or path, for those of the trained one."""
        replicated = {id(v): own for v, own in zip(self._plain.variables, self.model.variables, strict=True)}
        return {key if isinstance(key, str) else id(replicated.get(key, key)): mask for key, mask in masks.items()}

    def scatter(self) -> None:
        """Copies the plain model's weights to all replicas."""
        if self.strategy is not None:
            with self.strategy.scope():
                transfer_state(self._plain, self.model)

    def gather(self) -> None:
        """Copies the replicas' weights to the plain model."""
        if self.strategy is not None:
            for own, plain in zip(self.model.variables, self._plain.variables, strict=True):
                plain.assign(own.numpy())

    def _broadcast_from_chief(self) -> None:
        """Copies the chief's weights to all workers, as rounding may differ between machines."""
        chief = is_chief(self.strategy)
        for variable in self._plain.variables:
            value = variable.numpy() if chief else variable.numpy() * 0
            variable.assign(self.strategy.reduce("SUM", tf.constant(value), axis=None).numpy())


def _copy(model: keras.Model, strategy: tf.distribute.Strategy) -> keras.Model:
    with strategy.scope():
        try:
            copy = keras.models.clone_model(model, clone_function=new_layer, recursive=True)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise UsageError(
                f"training under a strategy needs a model that can be created from its config; {model.name} "
                f"cannot: {error}"
            ) from error
        for layer in copy._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
    shapes = [[(v.name, tuple(v.shape)) for v in m.variables] for m in (model, copy)]
    if shapes[0] != shapes[1]:
        raise UsageError(f"the copy of {model.name} from its config has other weights; train it without a strategy")
    return copy


def _require_same_shapes(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    digest = zlib.crc32(repr([tuple(v.shape) for v in model.variables]).encode())
    digests = strategy.gather(tf.constant([digest], tf.int64), axis=0).numpy()
    if len(set(digests.tolist())) > 1:
        raise RunError(
            "the workers have models of different shapes; give all of them the same command, the same data and the "
            "same state to resume"
        )
