"""Random nets with several inputs and outputs: shared trunks, branches at any depth, inputs that join late."""

import dataclasses

import keras
import numpy as np
from hypothesis import strategies as st

from dcp_tf.training import Classification, Regression

SIZE, CLASSES = 8, 3
KINDS = ("classes", "numbers", "map", "feature")  # a feature is a tensor of the trunk, as it is
NESTINGS = ("dict", "list", "tuple", "nested")


@dataclasses.dataclass
class BranchingNet:
    """A model with random weights, and data of it.

    Attributes:
        model: nested as drawn.
        kinds: of each output, one of `KINDS`, by its name.
        inputs: arrays by the names of the inputs.
        labels: arrays by the names of the outputs, none for features.
    """

    model: keras.Model
    kinds: dict
    inputs: dict
    labels: dict

    @property
    def nested_inputs(self):
        """The inputs as the model nests them."""
        return keras.tree.map_structure(lambda tensor: self.inputs[tensor.name], self.model._inputs_struct)

    def name_of(self, output):
        """The name of an output tensor of the model."""
        return output._keras_history.operation.name.removesuffix("_layer")

    @property
    def objective(self):
        """The argument `objective` of `prune`: features stay as they are."""
        kinds = {"classes": Classification, "numbers": Regression, "map": Regression}
        by_name = {name: kinds[kind]() for name, kind in self.kinds.items() if kind in kinds}
        return by_name if len(self.kinds) > 1 else next(iter(by_name.values()))

    @property
    def data(self):
        """The argument `train_data` of `prune`."""
        labels = self.labels if len(self.kinds) > 1 else next(iter(self.labels.values()))
        return self.nested_inputs, labels


def nested(tensors, how):
    """A dict of tensors in one of the forms that Keras takes."""
    if len(tensors) == 1 and how != "dict":
        return next(iter(tensors.values()))
    if how in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[how](tensors.values())
    if how == "dict" or len(tensors) < 2:
        return dict(tensors)
    first, *others = tensors.items()
    return {first[0]: first[1], "others": [tensor for _, tensor in others]}


def block(x, filters, name):
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.BatchNormalization(name=f"{name}_norm")(x))


def head(x, kind, name, extra, layer):
    """A branch with channels of its own to prune, that ends in a layer of that name."""
    if kind == "feature":
        return keras.layers.Identity(name=layer)(x)
    x = block(x, 6, f"{name}_block")
    if kind == "map":
        return keras.layers.Conv2D(2, 1, name=layer)(x)
    x = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    if extra is not None:
        x = keras.layers.Concatenate(name=f"{name}_join")([x, extra])
        x = keras.layers.Dense(6, activation="relu", name=f"{name}_hidden")(x)
    return keras.layers.Dense(CLASSES if kind == "classes" else 4, name=layer)(x)


def drawn_net(draw, images=24):
    """A net of any form, for hypothesis."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).filter(lambda k: set(k) - {KINDS[-1]}))
    depth, inputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return branching_net(
        kinds,
        [draw(st.integers(0, depth)) for _ in kinds],
        inputs,
        draw(st.sampled_from(NESTINGS)),
        depth,
        draw(st.integers(0, depth - 1)),
        draw(st.lists(st.booleans(), min_size=depth, max_size=depth)),
        images=images,
        seed=draw(st.integers(0, 99)),
    )


def branching_net(kinds, levels, inputs, nesting, depth=2, joins=0, residual=(), *, images=24, seed=0):
    """A net with random weights.

    Args:
        kinds: of its outputs, some of `KINDS`.
        levels: of the trunk at which each output branches off, 0 to `depth`.
        inputs: 1; 2: a vector that branches of vectors read; 3: a second image that joins the trunk.
        nesting: one of `NESTINGS`.
        depth: blocks of the trunk.
        joins: level at which the second image joins.
        residual: which blocks of the trunk are added to their inputs.
        images: how many samples the data has.
        seed: of weights and data.
    """
    keras.utils.clear_session()
    names = [f"{kind}{number}" for number, kind in enumerate(kinds)]
    image = keras.Input((SIZE, SIZE, 3), name="image")
    tensors, x, extra = {"image": image}, block(image, 6, "stem"), None
    if inputs > 1:
        tensors["meta"] = keras.Input((5,), name="meta")
        extra = keras.layers.Dense(6, activation="relu", name="meta_hidden")(tensors["meta"])
    outputs = {}
    for level in range(depth + 1):
        for name, kind, at in zip(names, kinds, levels, strict=True):
            if at == level:
                # The keys of a dict name the outputs, else the layers do.
                layer = f"{name}_layer" if nesting == "dict" else name
                outputs[name] = head(x, kind, name, extra if level else None, layer)
        if inputs > 2 and level == joins:
            tensors["depth"] = keras.Input((SIZE, SIZE, 1), name="depth")
            x = keras.layers.Concatenate(name="join")([x, block(tensors["depth"], 4, "second")])
        if level < depth:
            y = block(x, 6, f"trunk{level}")
            is_sum = level < len(residual) and residual[level] and x.shape == y.shape
            x = keras.layers.Add(name=f"add{level}")([x, y]) if is_sum else y
    outputs = {name: outputs[name] for name in names}
    read = {x.name for output in outputs.values() for x in keras.utils.get_source_inputs(output)}
    tensors = {name: tensor for name, tensor in tensors.items() if name in read}
    model = keras.Model(nested(tensors, nesting), nested(outputs, nesting), name="branching")
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        positive = "variance" in variable.name or "gamma" in variable.name
        value = rng.uniform(0.5, 1.5, variable.shape) if positive else rng.normal(0, 0.4, variable.shape)
        variable.assign(value.astype("float32"))
    arrays = {n: rng.normal(size=(images, *t.shape[1:])).astype("float32") for n, t in tensors.items()}
    labels = {}
    for name, kind in zip(names, kinds, strict=True):
        if kind == "classes":
            labels[name] = rng.integers(0, CLASSES, images).astype("int32")
        elif kind != "feature":
            labels[name] = rng.normal(size=(images, *outputs[name].shape[1:])).astype("float32")
    return BranchingNet(model, dict(zip(names, kinds, strict=True)), arrays, labels)
