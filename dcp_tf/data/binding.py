"""From inputs, labels and weights as a user nests them to the order and the names of a model's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from dcp_tf.data.structure import flat_parts, pack_parts, sample_shapes
from dcp_tf.errors import UsageError
from dcp_tf.models.signature import input_names, input_structure, output_names, output_structure, pack

Shape = tuple[int | None, ...]


def bind(model: keras.Model, spec: tuple[Any, Any, Any], what: str, hint: str = "") -> Callable | None:
    """The function that brings (inputs, labels, weights), of arrays or of a batch, into the form of a model.

    `DataSplit.bound_to` says what that is.

    Args:
        model: functional or Sequential.
        spec: nested specs of inputs, labels and weights; labels and weights may be None.
        what: the name of the data, for messages.
        hint: ends the message where an input has one axis less than the model takes.

    Returns:
        None where they have that form already.

    Raises:
        UsageError: they do not fit.
    """
    order = order_of_inputs(model, spec[0], what)
    shapes = [sample_shapes(spec[0])[number] for number in order]
    added = [
        _added_axes(len(tensor.shape) - 1, shape, len(order))
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    check_shapes(model, [_with_axes(shape, more) for shape, more in zip(shapes, added, strict=True)], what, hint)
    numbered = tuple(_numbered(part) for part in spec)
    labels = _of_outputs(model, numbered[1], "labels", what)
    weights = _of_outputs(model, numbered[2], "sample weights", what)

    def convert(all_inputs: Any, all_labels: Any, all_weights: Any) -> tuple[Any, Any, Any]:
        if all_inputs is not None:
            parts = flat_parts(all_inputs)
            all_inputs = pack([_with_axis(parts[n], more) for n, more in zip(order, added, strict=True)])
        return all_inputs, _picked(labels, all_labels), _picked(weights, all_weights)

    # Their order in a dict counts too.
    return None if not any(added) and repr(convert(*numbered)) == repr(numbered) else convert


def order_of_inputs(model: keras.Model, inputs: Any, what: str = "the data") -> list[int]:
    """Which of the flat parts of nested inputs each input of a model reads, in the order of `model.inputs`.

    Raises:
        UsageError: the nesting, the number or the names of the inputs are not the model's.
    """
    names = input_names(model)
    aliases = [tensor.name for tensor in model.inputs]
    order = _positions(_numbered(inputs), input_structure(model), (names, aliases))
    if order is not None and None not in order:
        return order
    if len(names) == 1:
        advice = (
            "; pairs (inputs, labels) set labels apart, .map(lambda batch: (batch[IMAGES], batch[LABELS])) makes them"
        )
    else:
        example = ", ".join(f"{name!r}: ..." for name in names)
        advice = f": give {{{example}}}, or a tuple in this order, ((..., ...), labels)"
    raise UsageError(f"{what} has {_listed(inputs, 'input')}, the model {_has(names, model.inputs, 'input')}{advice}")


def check_shapes(model: keras.Model, shapes: Sequence[Shape], what: str, hint: str = "") -> None:
    """Raises UsageError unless samples of some shapes, in the order of `model.inputs`, fit the model."""
    for name, tensor, shape in zip(input_names(model), model.inputs, shapes, strict=True):
        expected = tuple(tensor.shape[1:])
        if not _fits(expected, shape):
            missing = hint if len(shape) + 1 == len(expected) else ""
            if len(shapes) > 1 and any(_fits(expected, other) for other in shapes):
                names = ", ".join(map(repr, input_names(model)))
                missing = f"; inputs without names are taken in the order {names}: give them as a dict"
            takes = f"takes images of shape {expected}" if len(shapes) == 1 else f"takes {name!r} of shape {expected}"
            raise UsageError(f"the model {takes}, {what} has {tuple(shape)}{_shape_hint(expected, shape) or missing}")


def _of_outputs(model: keras.Model, numbered: Any, kind: str, what: str) -> Any:
    """The numbers of the parts in the form of the model's outputs: one, or a dict by name; None without any."""
    if not flat_parts(numbered):
        return None
    names = output_names(model)
    is_shared = kind != "labels" and isinstance(numbered, int)
    aliases = [tensor._keras_history.operation.name for tensor in model.outputs]
    numbers = (
        [numbered] * len(names)
        if is_shared
        else _positions(numbered, output_structure(model), (names, aliases), is_partial=True)
    )
    if numbers is None:
        raise UsageError(
            f"{what} has {kind} for {_listed(numbered, 'output')}, the model "
            f"{_has(names, model.outputs, 'output')}: give "
            + (
                "one array"
                if len(names) == 1
                else f"{{{names[0]!r}: ...}}, or a tuple in this order; None where missing"
            )
        )
    by_name = {name: number for name, number in zip(names, numbers, strict=True) if number is not None}
    return numbers[0] if len(names) == 1 else by_name


def _positions(
    numbered: Any, structure: Any, names: tuple[Sequence[str], Sequence[str]], is_partial: bool = False
) -> list[int | None] | None:
    """The number of each part of a model's structure, by path, by name or by order; None where it does not fit."""
    numbers = dict(keras.tree.flatten_with_path(numbered))
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    if set(numbers) == set(paths):
        return [numbers[path] for path in paths]
    if len(numbers) == len(paths) == 1:
        return list(numbers.values())
    is_flat = all(len(path) == 1 for path in numbers)
    if is_flat and isinstance(numbered, Mapping):
        by_name = {alias: i for aliases in reversed(names) for i, alias in enumerate(aliases)}
        positions = [by_name.get(name) for name in numbered]
        if None in positions or not (is_partial or set(positions) == set(range(len(paths)))):
            return None
        given = dict(zip(positions, numbered.values(), strict=True))
        return [given.get(position) for position in range(len(paths))]
    return list(numbered) if is_flat and isinstance(numbered, tuple) and len(numbered) == len(paths) else None


def _numbered(structure: Any) -> Any:
    return None if structure is None else pack_parts(structure, range(len(flat_parts(structure))))


def _picked(numbers: Any, structure: Any) -> Any:
    """Some parts of a structure by their numbers."""
    parts = flat_parts(structure)
    return None if numbers is None else keras.tree.map_structure(lambda number: parts[number], numbers)


def _added_axes(rank: int, shape: Shape, count: int) -> int:
    """As Keras does, a model of several inputs reads (N,) as (N, 1), and the other way round: axes to add, -1 to 1."""
    more = rank - len(shape)
    return more if count > 1 and ((more, rank) == (1, 1) or (more == -1 and shape[-1] == 1)) else 0


def _with_axes(shape: Shape, more: int) -> Shape:
    return (*shape, 1) if more > 0 else shape[: len(shape) + more]


def _with_axis(array: Any, more: int) -> Any:
    return array[..., None] if more > 0 else array[..., 0] if more < 0 else array


def _listed(structure: Any, kind: str) -> str:
    """The names or the number of what the user gives."""
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    if isinstance(structure, Mapping):
        return f"the {kind}{'s' if len(paths) > 1 else ''} " + ", ".join(repr("/".join(map(str, p))) for p in paths)
    return f"{len(paths)} {kind}s" if len(paths) > 1 else f"one {kind}"


def _has(names: Sequence[str], tensors: Sequence[Any], kind: str) -> str:
    """What the model has, as a part of a sentence."""
    shown = [f"{name!r} {tuple(tensor.shape[1:])}" for name, tensor in zip(names, tensors, strict=True)]
    return f"has the {kind}{'s' if len(shown) > 1 else ''} {', '.join(shown)}"


def _shape_hint(expected: Shape, shape: Shape) -> str:
    """What may be wrong with data of another shape than the model takes, as the end of a sentence."""
    if len(shape) == len(expected) and all(e == s for e, s in zip(expected, shape, strict=True) if s is not None):
        return f"; fix it in the pipeline: .map(lambda x, *y: (tf.ensure_shape(x, {(None, *expected)}), *y))"
    if len(shape) > 1 and _fits(expected, (*shape[1:], shape[0])):
        return "; its channels come first: numpy.moveaxis(images, 1, -1) puts them last"
    return "; it has no axis of channels: images[..., None] adds one" if _fits(expected, (*shape, 1)) else ""


def _fits(expected: Shape, shape: Shape) -> bool:
    return len(shape) == len(expected) and all(e in (None, s) for e, s in zip(expected, shape, strict=True))
