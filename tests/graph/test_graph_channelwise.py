"""Custom layers that treat each channel alone need no rule: a trial finds them, and nothing else."""

import keras
import mixing_networks as nets
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, count_cost


class Own(layers.Layer):
    """A layer of one weight for each channel, without settings."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")


class Affine(Own):
    def build(self, shape):
        super().build(shape)
        self.table = self.add_weight(shape=(1, *shape[1:-1], shape[-1]), name="table")
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def call(self, x):
        return ops.tanh(self.temperature * x) * self.gamma + self.table


class Blurred(Own):
    """Pools, so that only the channels keep their number."""

    def call(self, x):
        return ops.average_pool(x, 2) * self.gamma


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, *shape[2:]), name="token")

    def call(self, x):
        return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, *x.shape[2:])), x], axis=1)


class Places(layers.Layer):
    """Adds an embedding of the rows, made by a layer inside."""

    def __init__(self, rows, width, **kwargs):
        super().__init__(**kwargs)
        self.rows, self.width = rows, width
        self.embedding, self.dropout = layers.Embedding(rows, width), layers.Dropout(0.1)

    def build(self, shape):
        self.embedding.build((None,))

    def call(self, x):
        return self.dropout(x + self.embedding(ops.arange(self.rows)))

    def get_config(self):
        return {**super().get_config(), "rows": self.rows, "width": self.width}


class Norm(Own):
    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6) * self.gamma


class Ranked(Own):
    """Channels have a meaning by their place."""

    def call(self, x):
        return x * self.gamma * ops.cast(ops.arange(x.shape[-1]) > 0, "float32")


class Paired(Own):
    def call(self, x):
        return x * self.gamma + ops.concatenate([x[..., 1::2], x[..., ::2]], -1)


class Softmaxed(layers.Layer):
    def call(self, x):
        return ops.softmax(x)


for kind in (Affine, Blurred, ClassToken, Places, Norm, Ranked, Paired, Softmaxed):
    keras.saving.register_keras_serializable("channelwise")(kind)


def around(layer):
    x = keras.Input((4, 4, 3))
    y = layer(layers.Dense(6, name="before")(x))
    return keras.Model(x, layers.Dense(2)(y))


FOLLOW = {
    "affine": Affine,
    "pooled": Blurred,
    "class token": ClassToken,
    "an embedding inside": lambda: Places(4, 6),
    "LayerScale": lambda: nets.LayerScale(6),
}


@pytest.mark.parametrize("kind", FOLLOW)
def test_layers_that_treat_each_channel_alone_follow(kind):
    check(around(FOLLOW[kind]()), prunable={"before": 6}, save=True)


@pytest.mark.parametrize("make", [Norm, nets.GlobalResponseNorm])
def test_normalizations_stay_unless_statistics_are_ignored(make):
    model = around(make())
    assert "takes statistics over the channels" in ChannelGraph(model).group("before").pinned_because
    assert ChannelGraph(model, ignore_statistics=True).group("before").pinned_because is None


class Depthwise(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 1), name="kernel")

    def call(self, x):
        return ops.depthwise_conv(x, self.kernel, padding="same")


def test_multiplications_of_an_own_depthwise_layer_are_not_known():
    graph, _ = check(around(Depthwise(name="own")), prunable={"before": 6})
    assert count_cost(graph).uncounted == ("own",)
    assert not count_cost(around(nets.LayerScale(6))).uncounted


def test_plans_of_earlier_versions_still_fit():
    model = around(nets.LayerScale(6))
    earlier = ChannelGraph(model, opens_attention=False)
    assert "no rule" in earlier.group("before").pinned_because
    assert earlier.fingerprint() in ChannelGraph(model).fingerprints()


def test_a_scale_before_a_root_mean_square_keeps_zeros():
    x = keras.Input((4, 3))
    y = layers.Dense(6, name="stem")(x)
    y = layers.RMSNormalization()(y + nets.LayerScale(6)(layers.Dense(6)(layers.ReLU()(y))))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"stem": 6}, save=True)


@pytest.mark.parametrize("make", [Ranked, Paired, Softmaxed])
def test_layers_that_mix_channels_stay(make):
    graph = ChannelGraph(around(make()), ignore_statistics=True)
    assert "for which there is no rule" in graph.group("before").pinned_because
