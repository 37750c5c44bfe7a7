"""Copies a layer as a Python object, for layers that cannot be created from a config or arguments."""

import collections
import types
import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Keras has no public name for the base class of all that holds variables, for nodes, nor for the lists of what a layer
# tracks.
from keras.src.ops.node import Node
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils.tracking import Tracker

# Made by a layer's `__new__` for that layer, and the calls that the original was part of.
_OWN = {"build", "quantize"}
_CALLS = ("_inbound_nodes", "_outbound_nodes")


def copy_object(layer: keras.Layer) -> keras.Layer:
    """A copy of `layer`, its attributes, variables and inner layers.

    Objects without variables (functions, initializers, tensors) are shared.

    Raises:
        TypeError: a function holds a layer or a variable of the original, or an attribute cannot be copied.
    """
    copier = _Copier()
    copy = copier.copy(layer)
    copier.update_trackers()
    variables = [getattr(owner, "variables", []) for owner in (layer, copy)]
    shared = {id(variable) for variable in variables[0]} & {id(variable) for variable in variables[1]}
    if shared or len(variables[0]) != len(variables[1]):
        raise TypeError(f"{layer.name!r} holds its variables in a way that cannot be copied")
    return copy


class _Copier:
    def __init__(self):
        self._copies: dict[int, Any] = {}
        self._originals: list[Any] = []  # an id belongs to an object only as long as the object is there
        self._trackers: list[Tracker] = []

    def copy(self, value: Any) -> Any:
        if id(value) not in self._copies:
            self._originals.append(value)
            new = self._copy(value)
            self._copies.setdefault(id(value), new)
        return self._copies[id(value)]

    def update_trackers(self) -> None:
        """Trackers know what they hold by its id."""
        for tracker in self._trackers:
            tracker.stored_ids = {name: {id(item) for item in store} for name, (_, store) in tracker.config.items()}

    def _copy(self, value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, np.ndarray):
            return value.copy()
        if isinstance(value, tf.Variable):
            return tf.Variable(value.numpy(), trainable=value.trainable, dtype=value.dtype)
        if isinstance(value, keras.Model) and (
            hasattr(value, "_nodes_by_depth") or getattr(value, "_functional", None)
        ):
            return self._graph(value)
        if isinstance(value, (KerasSaveable, keras.random.SeedGenerator, Tracker)):
            return self._object(value)
        if isinstance(value, (keras.KerasTensor, Node)):
            raise TypeError("a part of a graph cannot be copied alone")
        if isinstance(value, (list, dict, set)):
            return self._container(value)
        if isinstance(value, tuple):
            parts = [self.copy(item) for item in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, weakref.ref):
            return weakref.ref(self.copy(value()))
        if isinstance(value, types.FunctionType):
            self._check_function(value)
        elif self._is_users_own(value):
            return self._object(value)
        return value

    def _variable(self, variable: keras.Variable) -> keras.Variable:
        new = object.__new__(type(variable))
        vars(new).update(vars(variable))
        for name in list(vars(new)):
            if name.startswith("_self_unconditional"):
                vars(new)[name] = type(vars(new)[name])()
        vars(new)["_value"] = tf.Variable(variable.numpy(), trainable=variable.trainable, dtype=variable.dtype)
        return new

    def _graph(self, model: keras.Model) -> keras.Model:
        new = keras.models.clone_model(model, clone_function=self.copy, recursive=True)
        new._trainable = model._trainable
        return new

    def _object(self, value: Any) -> Any:
        kind = type(value)
        new = kind.__new__(kind) if isinstance(value, keras.Operation) else object.__new__(kind)
        self._copies[id(value)] = new
        own = vars(new).keys() & _OWN
        for name, attribute in vars(value).items():
            if name not in own:
                vars(new)[name] = [] if name in _CALLS else self.copy(attribute)
        if isinstance(new, Tracker):
            self._trackers.append(new)
        return new

    def _container(self, value: Any) -> Any:
        kind = type(value)
        new = kind.__new__(kind)
        self._copies[id(value)] = new
        if isinstance(value, list):
            list.extend(new, map(self.copy, value))
        elif isinstance(value, set):
            set.update(new, map(self.copy, value))
        else:
            put = (collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict).__setitem__
            for key, item in value.items():
                put(new, key, self.copy(item))
        if hasattr(value, "__dict__"):
            vars(new).update({name: self.copy(item) for name, item in vars(value).items()})
        return new

    def _check_function(self, function: types.FunctionType) -> None:
        for cell in function.__closure__ or ():
            if isinstance(cell.cell_contents, (KerasSaveable, keras.Variable, tf.Variable)):
                raise TypeError(f"the function {function.__name__!r} holds a layer or a variable")

    def _is_users_own(self, value: Any) -> bool:
        """Whether a plain object may hold layers: those of Keras, TensorFlow and Python do not."""
        package = type(value).__module__.partition(".")[0]
        return (
            hasattr(value, "__dict__")
            and not isinstance(value, (type, types.ModuleType))
            and (package not in ("keras", "tensorflow", "builtins", "inspect", "numpy", "functools"))
        )
