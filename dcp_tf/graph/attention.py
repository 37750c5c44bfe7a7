"""The attention layers of Keras, opened: their projections are layers of the trace, the products one operation.

So what lies between the projections is a tensor like any other, and heads, value channels and query-key pairs are
channels like any other. The model itself keeps its layer.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import KerasTensor, layers
from keras.src.ops.symbolic_arguments import SymbolicArguments

ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)
_BY_NAME = {"keras_hub.src.layers.modeling.cached_multi_head_attention.CachedMultiHeadAttention"}
_PARTS = ("query", "key", "value", "gate", "output")
MASKS = ("query_mask", "value_mask", "key_mask", "attention_mask")


class AttentionProducts(keras.Operation):
    """What an attention layer computes between its projections, with the layer's own code.

    Args:
        layer: the attention layer.
        is_causal: whether it was called with `use_causal_mask`.
    """

    def __init__(self, layer: keras.Layer, is_causal: bool):
        super().__init__(name="heads")
        self.layer, self.is_causal = layer, is_causal

    @property
    def repeats(self) -> int:
        """How many heads of the query share a head of key and value."""
        return getattr(self.layer, "num_repeats", 1)

    def call(
        self, query: Any, key: Any, value: Any, gate: Any = None, training: bool | None = None, **masks: Any
    ) -> Any:
        """The values of each head, weighted, (..., heads, channels); `masks` by the names in `MASKS`."""
        mask = self.layer._compute_attention_mask(query, value, use_causal_mask=self.is_causal, **masks)
        if self.repeats > 1:
            key, value = (keras.ops.repeat(x, self.repeats, axis=2) for x in (key, value))
        self.layer._return_attention_scores = False
        outputs, _ = self.layer._compute_attention(query, key, value, mask, training)
        return outputs if gate is None else outputs * gate

    def compute_output_spec(self, query: Any, key: Any, value: Any, gate: Any = None, **others: Any) -> Any:
        """The shape of the query with the channels of the value."""
        return KerasTensor((*query.shape[:-1], value.shape[-1]), query.dtype)


@dataclasses.dataclass
class InnerNode:
    """A call inside of a layer, with what a Keras node tells about a call; `outer` is the node of the layer's call."""

    operation: keras.Operation
    arguments: SymbolicArguments
    outputs: list[KerasTensor]
    outer: Any = None


def projections(layer: keras.Layer) -> dict[str, keras.Layer]:
    """The layers inside of an attention layer, by what they make."""
    found = {name: getattr(layer, f"_{name}_dense", None) for name in _PARTS}
    return {name: dense for name, dense in found.items() if dense is not None}


def can_open(node: Any) -> bool:
    """Whether a call is an attention without other tensors than query, value, key and masks, as Keras has it."""
    layer, tensors, kwargs = node.operation, node.arguments.keras_tensors, node.arguments.kwargs
    known = type(layer) in ATTENTION or f"{type(layer).__module__}.{type(layer).__qualname__}" in _BY_NAME
    if not known or len(node.outputs) != 1 or kwargs.get("return_attention_scores"):
        return False
    if not layer.built or any(x is not None for x in node.arguments.args[3:]):
        return False
    masks = masks_of(node)
    passed = [id(x) for x in (*node.arguments.args[:3], kwargs.get("value"), kwargs.get("key"), *masks.values())]
    if any(id(t) not in passed for t in tensors) or not node.arguments.args:
        return False
    query = node.arguments.args[0]
    # A mask of one's own for the query would be replaced by the one that Keras keeps with it.
    if masks.get("query_mask") is not getattr(query, "_keras_mask", None) and "query_mask" in masks:
        return False
    if any(len(mask.shape) > len(query.shape) and mask.shape[1] != 1 for mask in masks.values()):
        return False  # with values of its own for each head
    parts = projections(layer).values()
    altered = any(dense.quantization_mode or dense.lora_enabled for dense in parts)
    return len(layer._output_dense.kernel.shape) == 3 and not altered


def masks_of(node: Any) -> dict[str, Any]:
    """The masks that an attention layer is called with, those that Keras passes on from tensor to tensor too."""
    return {name: node.arguments.kwargs[name] for name in MASKS if node.arguments.kwargs.get(name) is not None}


def inner_nodes(
    node: Any, products: Callable[[keras.Layer, bool], AttentionProducts], shapes: Mapping[int, tuple]
) -> tuple[dict[int, int], list[InnerNode]]:
    """The calls inside of an attention, in running order; the last makes its output.

    Args:
        node: of the call.
        products: returns the operation between the projections of a layer.
        shapes: by id of a tensor argument its traced shape.

    Returns:
        By id of a tensor that the inner calls read, the id of the argument that it stands for; and the calls.
    """
    layer, arguments = node.operation, node.arguments
    given = dict(zip(("query", "value", "key"), arguments.args, strict=False)) | {
        name: arguments.kwargs[name] for name in ("value", "key") if arguments.kwargs.get(name) is not None
    }
    given = {name: tensor for name, tensor in given.items() if tensor is not None}
    masks = masks_of(node)
    tensors = [x for x in (*given.values(), *masks.values()) if isinstance(x, KerasTensor)]
    stand_ins = {id(x): KerasTensor(shapes[id(x)], x.dtype) for x in tensors}
    masks = {name: stand_ins.get(id(mask), mask) for name, mask in masks.items()}
    query, value, key = (stand_ins[id(given.get(name, given["value"]))] for name in ("query", "value", "key"))
    parts, made, nodes = projections(layer), {}, []
    read = {"query": query, "key": key, "value": value, "gate": query}
    for name, tensor in read.items():
        if name in parts:
            shape = (*tensor.shape[:-1], *parts[name].kernel.shape[1:])
            nodes.append(_inner(parts[name], shape, tensor))
            made[name] = nodes[-1].outputs[0]
    between = products(layer, bool(arguments.kwargs.get("use_causal_mask")))
    shape = (*made["query"].shape[:-1], made["value"].shape[-1])
    nodes.append(_inner(between, shape, *made.values(), **masks))
    nodes.append(_inner(parts["output"], (*query.shape[:-1], parts["output"].kernel.shape[-1]), nodes[-1].outputs[0]))
    nodes = [dataclasses.replace(inner, outer=node) for inner in nodes]
    return {id(stand_in): argument for argument, stand_in in stand_ins.items()}, nodes


def _inner(operation: keras.Operation, shape: tuple, *tensors: KerasTensor, **masks: Any) -> InnerNode:
    dtype = getattr(operation, "compute_dtype", tensors[0].dtype)
    return InnerNode(operation, SymbolicArguments(*tensors, **masks), [KerasTensor(shape, dtype)])


def config_of(layer: keras.Layer, shapes: Mapping[str, tuple], query_width: int) -> dict[str, Any]:
    """The config entries of an attention layer whose projections have kernels of other shapes.

    Args:
        layer: the attention layer.
        shapes: by projection the shape of its kernel.
        query_width: channels of the query.
    """
    config, (_, heads, size), width = layer.get_config(), shapes["query"], shapes["output"][-1]
    if isinstance(layer, layers.GroupQueryAttention):
        return {"num_query_heads": heads, "num_key_value_heads": shapes["key"][1], "head_dim": size}
    # Left open it is the size of the query, which may shrink by another number.
    changed = width != layer._output_dense.kernel.shape[-1] or (config["output_shape"] is None and width != query_width)
    return {
        "num_heads": heads,
        "key_dim": size,
        "value_dim": shapes["value"][2],
        "output_shape": (width,) if changed else config["output_shape"],
    }
