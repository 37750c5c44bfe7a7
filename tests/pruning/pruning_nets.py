"""Small nets in every layout that a selection can meet, and Algorithm 2's problem on one of their groups."""

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.graph import ChannelGraph, copy_model
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor
from dcp_tf.pruning.problem.consumers import KernelMasks
from dcp_tf.pruning.problem.problem import ChannelProblem, SubProblem
from dcp_tf.pruning.problem.stages import StageLoss, channel_unit
from dcp_tf.training import ClassificationLoss, TrainConfig

CLASSES = 3
SHAPE = (6, 6, 3)
PLENTY = 2**30
NONE = TrainConfig(epochs=0)
BARE = {"auxiliary": NONE, "finetuning": NONE, "looks_at_baseline": False}  # of `prune`: the selection alone


class Net:
    """Makes layers by name, each once; notes the linear outputs of every call of a layer with a kernel.

    With `split_activations` a layer's activation becomes a layer of its own, so that its linear output is a tensor of
    the model: the nets then compute the same, and eq. 5 can be taken from them with no help of the library's.
    """

    def __init__(self, dtype="float32", split_activations=False):
        self.dtype, self.split = dtype, split_activations
        self.made, self.linear = {}, {}

    def layer(self, kind, name, *args, activation=None, **settings):
        if name not in self.made:
            if activation and not self.split:
                settings["activation"] = activation
            self.made[name] = getattr(keras.layers, kind)(*args, name=name, dtype=self.dtype, **settings)

        def call(x):
            y = self.made[name](x)
            self.linear.setdefault(name, []).append(y)
            if activation and self.split:
                y = keras.layers.Activation(activation, dtype=self.dtype)(y)
            return y

        return call

    def conv(self, name, filters, size=1, **settings):
        return self.layer("Conv2D", name, filters, size, padding="same", **settings)

    def plain(self, kind, *args, **settings):
        return getattr(keras.layers, kind)(*args, dtype=self.dtype, **settings)

    def norm_relu(self, x, name):
        return self.plain("ReLU")(self.layer("BatchNormalization", name)(x))

    def classify(self, x):
        x = self.plain("GlobalAveragePooling2D")(x)
        return self.layer("Dense", "logits", CLASSES)(x)


def several_channels(net, x):
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    x = net.conv("read", 4, 3)(x)
    return net.classify(net.norm_relu(x, "norm2"))


def with_activation(net, x):
    x = net.conv("make", 5, 3, activation="relu")(x)
    x = net.conv("read", 4, 3, activation="tanh")(x)
    return net.classify(x)


def grouped(net, x):
    x = net.norm_relu(net.conv("make", 6, 3)(x), "norm")
    x = net.conv("read", 4, 3, groups=2, activation="relu")(x)
    return net.classify(x)


def depthwise(net, x):
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    x = net.norm_relu(net.layer("DepthwiseConv2D", "depthwise", 3, padding="same")(x), "norm2")
    x = net.conv("read", 4)(x)
    return net.classify(net.norm_relu(x, "norm3"))


def concatenated(net, x):
    a = net.norm_relu(net.conv("make", 4, 3)(x), "norm")
    b = net.norm_relu(net.conv("other", 3, 3)(x), "norm2")
    x = net.conv("read", 4, 3)(net.plain("Concatenate")([b, a, a]))
    return net.classify(net.norm_relu(x, "norm3"))


def residual(net, x):
    x = net.conv("make", 5, 3)(x)
    y = net.conv("read1", 4, 3)(net.norm_relu(x, "norm"))
    x = net.plain("Add")([x, net.conv("back1", 5, 3)(net.norm_relu(y, "norm2"))])
    y = net.conv("read2", 4, activation="relu")(x)
    x = net.plain("Add")([x, net.conv("back2", 5, 3)(y)])
    return net.classify(net.plain("ReLU")(x))


def shared(net, x):
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    read = net.conv("read", 5, 3, activation="relu")
    return net.classify(read(read(x)))


def flattened(net, x):
    x = net.conv("make", 4, 3, strides=2, activation="relu")(x)
    return net.layer("Dense", "logits", CLASSES)(net.plain("Flatten")(x))


def separable(net, x):
    x = net.conv("make", 5, 3, activation="relu")(x)
    x = net.layer("SeparableConv2D", "read", 4, 3, depth_multiplier=2, padding="same", activation="relu")(x)
    return net.classify(x)


NETS = {
    f.__name__: f
    for f in (
        *(several_channels, with_activation, grouped, depthwise, concatenated, residual, shared, flattened),
        separable,
    )
}


def build(make, net=None, seed=0):
    """The model; every weight has a value that matters."""
    keras.utils.clear_session()  # layers without a name are numbered as in a fresh process
    net = net or Net()
    image = keras.Input(SHAPE, name="image", dtype=net.dtype)
    model = keras.Model(image, make(net, image))
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        positive = "variance" in variable.name or "gamma" in variable.name
        value = rng.uniform(0.5, 1.5, variable.shape) if positive else rng.normal(0, 0.4, variable.shape)
        variable.assign(value.astype("float32"))
    return model


def images(count=14, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE)).astype("float32"), rng.integers(0, CLASSES, count).astype("int32")


def batched(x, y, size):
    """Batches as the selection has them: model inputs and labels."""
    starts = range(0, len(x), size)
    return [[tf.constant(x[i : i + size])] for i in starts], [tf.constant(y[i : i + size]) for i in starts]


class Setting:
    """The problem of one group, with all that it stands on."""

    def __init__(
        self, model, group="make", settings=None, data=None, batch=5, seed=0, limit=PLENTY, masks=None, disk=0
    ):
        shapes = [(None, *SHAPE)]
        self.graph = ChannelGraph(model, shapes)
        self.base = ChannelGraph(copy_model(self.graph), shapes)
        self.group = self.graph.group(group)
        self.unit = channel_unit(self.graph, self.group)
        self.masks = masks or KernelMasks()
        self.consumers = self.masks.consumer_kernels(self.unit.consumers)
        self.cache = Cache(limit, disk)
        inputs, self.labels = batched(*(data or images()), batch)
        self.cursors = tuple(ActivationCursor(g.trace, inputs, self.cache) for g in (self.graph, self.base))
        for cursor in self.cursors:
            cursor.advance(self.unit.calls[0])
        loss = ClassificationLoss("logits")
        self.problem = ChannelProblem(
            self.graph,
            group,
            self.consumers,
            self.group.size,
            StageLoss((self.graph.trace.outputs[0],), lambda x: x, loss),
            self.cursors,
            self.labels,
            settings or SubProblem(),
            self.cache,
            np.random.default_rng(seed),
        )

    def mask(self, *channels):
        mask = np.zeros(self.group.size, bool)
        mask[list(channels)] = True
        return mask
