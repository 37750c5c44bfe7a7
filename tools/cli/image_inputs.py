"""The images among several inputs of a model: each gets the pixels that a model of this input alone would get."""

import dataclasses
from typing import Any

from dcp_tf.errors import UsageError, did_you_mean

_CHANNELS = (1, 3, 4)


def normalize(flags: Any, model: Any, dataset: Any, chosen: tuple[str, Any, Any], notes: list[str]) -> tuple[Any, str]:
    """The data set with normalized images; inputs that are none are taken as they are.

    Args:
        flags: of the program.
        model: with flat inputs.
        dataset: of arrays, bound to the model.
        chosen: the name of the normalization, or `INPUT=NAME,...`, and mean and std, as `read_normalization` returns.
        notes: gets a line on each image whose pixels change unasked, and on the inputs that are no images.

    Returns:
        The data set, and the normalization as `INPUT=NAME,...`; "mean/std" or "none" for all.

    Raises:
        UsageError: a normalization is for no image, or the pixels do not fit it.
    """
    from dcp_tf.data import find_normalization
    from dcp_tf.models import takes_raw_pixels
    from dcp_tf.models.signature import input_names

    names, (said, mean, std) = input_names(model), chosen
    arrays = [split.input_arrays for split in (dataset.train, dataset.test)]
    images = {
        name: number
        for number, (name, tensor) in enumerate(zip(names, model.inputs, strict=True))
        if len(tensor.shape) == 4 and tensor.shape[-1] in _CHANNELS
    }
    asked = _by_name(said, images, names)
    if not images and (asked or mean or said != "none"):
        raise UsageError(f"no input of the model is an image ({', '.join(names)}): leave out --normalization")
    used: dict[str, Any] = {}
    for name, number in images.items():
        pixels = [part[number] for part in arrays]
        are_integers = {part.dtype.kind in "ui" for part in pixels}
        if len(are_integers) > 1:
            raise UsageError(f"{name!r} holds integers in one of train and test, floats in the other; use one type")
        is_open = said == "none" and flags.normalization is None and not mean
        reason = takes_raw_pixels(model, number) if is_open else None
        used[name] = find_normalization(asked.get(name, "raw" if reason else "none"), mean, std)
        used[name].check_channels(model.inputs[number].shape[-1])
        if reason or (are_integers == {True} and name not in asked and not mean):
            what = f"pixels: 0 to 255 ({reason}" if reason else "integers of 0 to 255 become 0 to 1 ("
            notes.append(f"input {name!r}: {what}{'; ' * bool(reason)}--normalization overrides)")
        for part in pixels:
            if part.dtype.kind not in "ui":
                used[name].check_floats(part)
    others = [name for name in names if name not in images]
    if images and others:
        notes.append(f"inputs taken as they are: {', '.join(others)}")
    by_number = tuple(used.get(name) for name in names)
    train, test = (dataclasses.replace(split, normalizations=by_number) for split in (dataset.train, dataset.test))
    told = "mean/std" if mean else ",".join(f"{name}={own.name}" for name, own in used.items()) or "none"
    return dataclasses.replace(dataset, train=train, test=test), told


def _by_name(said: str, images: Any, names: Any) -> dict[str, str]:
    """The normalizations that are asked for, by input."""
    if "=" not in said:
        return {} if said == "none" else dict.fromkeys(images, said)
    asked = dict(entry.rpartition("=")[::2] for entry in said.split(","))
    for name in asked:
        if name not in images:
            what = "is no image" if name in names else f"is no input; {did_you_mean(name, list(images) or list(names))}"
            raise UsageError(f"--normalization={said}: {name!r} {what}")
    return asked
