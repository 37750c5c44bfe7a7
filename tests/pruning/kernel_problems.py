"""Algorithm 2's problem with kernels as atoms, and more nets of layers that the quadratic model covers."""

import numpy as np
from pruning_nets import NETS

from dcp_tf.pruning.problem.consumers import with_kernels
from dcp_tf.pruning.problem.problem import ChannelProblem


def kernel_problem(setting, settings, seed=0):
    """The kernels that read a setting's group."""
    consumers, size = with_kernels(setting.consumers, np.ones(setting.group.size, bool))
    given = setting.problem.stage_loss, setting.cursors, setting.labels, settings, setting.cache
    return ChannelProblem(setting.graph, "make", consumers, size, *given, np.random.default_rng(seed))


def strided(net, x):
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    return net.classify(net.layer("Conv2D", "read", 4, 3, strides=2, padding="valid", dilation_rate=1)(x))


def one_dimensional(net, x):
    x = net.plain("Reshape", (36, 3))(x)
    x = net.layer("Conv1D", "make", 5, 3, activation="relu")(x)
    x = net.layer("Conv1D", "read", 4, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    return net.layer("Dense", "logits", 3)(net.plain("GlobalAveragePooling1D")(x))


def several_readers(net, x):
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    y = net.plain("GlobalAveragePooling2D")(net.conv("read", 4, 3, strides=2, activation="relu")(x))
    z = net.plain("GlobalAveragePooling2D")(net.conv("read2", 3)(x))
    w = net.layer("Dense", "read3", 2, activation="tanh")(net.plain("GlobalAveragePooling2D")(x))
    return net.layer("Dense", "logits", 3)(net.plain("Concatenate")([y, z, w]))


def siamese(net, x):
    """One layer reads the same channels at two sizes."""
    x = net.norm_relu(net.conv("make", 5, 3)(x), "norm")
    read = net.conv("read", 4, 3, activation="relu")
    small = net.plain("AveragePooling2D", 2)(x)
    parts = [net.plain("GlobalAveragePooling2D")(read(y)) for y in (x, small)]
    return net.layer("Dense", "logits", 3)(net.plain("Subtract")(parts))


QUADRATIC = {
    **{name: NETS[name] for name in ("several_channels", "with_activation", "concatenated", "flattened")},
    **{f.__name__: f for f in (strided, one_dimensional, several_readers, siamese)},
}
READERS = {"several_readers": ["read", "read2", "read3"], "flattened": ["logits"]}  # else "read" alone
