"""The contract that every layer kind and every network keeps: checked on a model, its groups and a random plan."""

import dataclasses
import pathlib
import tempfile

import keras
import numpy as np

from dcp_tf.graph import ChannelGraph, apply_masks, copy_model, count_cost, rebuild

TOLERANCE = 1e-4


def randomize(model, seed=0, spread=0.5):
    """Gives every weight a value that matters: no zero bias, no unit gamma, no tiny LayerScale.

    Deep networks want a smaller spread: over hundreds of random layers float32's own rounding grows beyond bounds.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        value = keras.ops.convert_to_numpy(variable)
        if "variance" in variable.name or "gamma" in variable.name or "alpha" in variable.name:
            variable.assign(rng.uniform(1 - spread, 1 + spread, value.shape))
        elif value.std() < 1e-3:
            variable.assign(rng.normal(0, 0.6 * spread, value.shape))
    finalize(model)


def finalize(model):
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def example_inputs(model, size=16, seed=0):
    """A batch of two images for each input, in the model's own structure; open sizes become `size`."""
    rng = np.random.default_rng(seed)

    def one(tensor):
        shape = (2, *(size if n is None else n for n in tensor.shape[1:]))
        if "int" in tensor.dtype:
            return rng.integers(0, 5, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype("float32")

    if isinstance(model, keras.Sequential):
        return one(model.inputs[0])
    return keras.tree.map_structure(one, model.input)


def outputs(model, inputs):
    return [keras.ops.convert_to_numpy(y).astype("float64") for y in keras.tree.flatten(model(inputs))]


def difference(first, second):
    """The largest difference, relative to the largest value of the output."""
    assert [a.shape for a in first] == [b.shape for b in second]
    pairs = list(zip(first, second, strict=True))
    return max(float(np.abs(a - b).max(initial=0) / (np.abs(a).max(initial=0) + 1e-12)) for a, b in pairs)


def random_plan(graph, rate=0.4, seed=0, residual=True):
    """Group name -> indices that stay; at least one channel goes wherever one may."""
    rng = np.random.default_rng(seed)
    plan = {}
    for group in graph.prunable(residual):
        of_each = group.size // group.heads
        keep = group.heads * max(1, of_each - max(1, round(rate * of_each)))
        if group.head is None:
            plan[group.name] = np.sort(rng.choice(group.size, keep, replace=False))
        else:
            plan[group.name] = group.best(rng.permutation(group.size), keep)
    return plan


def permute(copy, graph, seed=0):
    """Puts the channels of every group in another order, in all weights of a copy of the graph's model."""
    rng = np.random.default_rng(seed)
    records = dict(zip(graph.records, ChannelGraph(copy).records.values(), strict=True))
    axes = [
        (key, index, axis, graph.class_of_label[labels].ravel())
        for key, record in graph.records.items()
        for index, by_axis in record.weights.items()
        for axis, labels in by_axis.items()
    ]
    order = np.arange(int(graph.class_of_label.max()) + 1)
    followed = [labels for r in graph.records.values() for w in r.weights.values() for labels in w.values()]
    heads = np.concatenate([graph.head_of_label[labels].ravel() for labels in followed])
    for group in graph.prunable(residual=True):
        if np.isin(group.classes, heads).any():
            continue  # what lies in a head changes place within it
        # Channels that occur twice in a tensor (a concatenation with itself) only change place with their like.
        occurrences = {c: tuple(int((classes == c).sum()) for *_, classes in axes) for c in group.classes.tolist()}
        head = dict(zip(group.classes.tolist(), [0] * group.size if group.head is None else group.head, strict=True))
        for kind in {(occurrences[c], head[c]) for c in occurrences}:
            alike = [c for c in occurrences if (occurrences[c], head[c]) == kind]
            order[alike] = rng.permutation(alike)
    for key, index, axis, classes in axes:
        where = np.arange(len(classes))
        for c in np.unique(classes):
            where[classes == order[c]] = np.flatnonzero(classes == c)
        variable = records[key].operation.weights[index]
        values = keras.ops.convert_to_numpy(variable)
        axis = (axis,) if isinstance(axis, int) else axis
        moved = np.moveaxis(values, axis, range(len(axis)))
        flat = moved.reshape(-1, *moved.shape[len(axis) :])[where]
        variable.assign(np.moveaxis(flat.reshape(moved.shape), range(len(axis)), axis))
    finalize(copy)


def check(
    model,
    inputs=None,
    rate=0.4,
    seed=0,
    prunable=None,
    tolerance=TOLERANCE,
    permutation=True,
    configs=True,
    save=False,
    shrinks=True,
):
    """Runs the whole contract.

    Args:
        model: a functional or Sequential model.
        inputs: example inputs in the model's structure.
        rate: share of channels to remove.
        seed: of weights and plan.
        prunable: the groups that may shrink, as name -> size (residual ones too).
        tolerance: largest relative difference.
        permutation: whether channels are only in weights, so that permuting those changes nothing.
        configs: whether the copy's config can be compared (not where it holds arrays).
        save: whether to save and load the rebuilt model.
        shrinks: whether anything can be pruned at all.

    Returns:
        The graph and the rebuilt model.
    """
    randomize(model, seed)
    graph = ChannelGraph(model)
    if prunable is not None:
        assert {g.name: g.size for g in graph.prunable(residual=True)} == prunable
    inputs = example_inputs(model, seed=seed) if inputs is None else inputs
    original = outputs(model, inputs)
    plan = random_plan(graph, rate, seed)
    assert bool(plan) == shrinks, [(g.name, g.size, g.pinned_because) for g in graph.groups]
    kept = graph.kept(plan)

    copy = copy_model(graph)
    assert difference(original, outputs(copy, inputs)) == 0
    if configs:
        assert copy.get_config() == model.get_config()
    small = rebuild(graph, kept)
    assert difference(original, outputs(model, inputs)) == 0, "the model itself was changed"
    apply_masks(ChannelGraph(copy), kept)
    full = outputs(copy, inputs)
    assert difference(full, outputs(small, inputs)) < tolerance
    if permutation:
        permute(copy, graph, seed)
        assert difference(full, outputs(copy, inputs)) < tolerance
    if shrinks:
        assert small.count_params() < model.count_params()

    if not count_cost_is_open(graph):
        predicted, counted = count_cost(graph, kept), count_cost(small)
        # What a custom layer of one channel does with channels cannot be tried.
        assert predicted == dataclasses.replace(counted, uncounted=predicted.uncounted)
        assert set(predicted.uncounted) <= set(counted.uncounted)
    ChannelGraph(small)
    if save:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "small.keras"
            small.save(path)
            loaded = keras.models.load_model(path)
        assert difference(outputs(small, inputs), outputs(loaded, inputs)) == 0
    return graph, small


def count_cost_is_open(graph):
    return any(None in shape[1:] for shape in graph.trace.shapes)
