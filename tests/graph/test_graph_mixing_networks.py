"""ConvNeXt, PoolFormer, hybrids and patch embeddings: what shrinks of them, exactly, down to the TFLite file."""

import keras
import mixing_networks as nets
import numpy as np
import pytest
from equivalence import check, randomize
from keras import layers, ops

from dcp_tf import tflite
from dcp_tf.graph import ChannelGraph, rebuild, register_rule

NETWORKS = {
    "ConvNeXt": (nets.conv_next, {"hidden00": 8, "hidden10": 12}, 2),
    "ConvNeXt of 1x1 convolutions": (lambda: nets.conv_next(dense=False), {"hidden00": 8, "hidden10": 12}, 2),
    "ConvNeXt V2": (lambda: nets.conv_next(scale=None, response=nets.GlobalResponseNorm), {}, 4),
    "PoolFormer": (nets.pool_former, {"hidden00": 8, "hidden10": 12}, 2),
    "PoolFormer, one stage": (
        lambda: nets.pool_former(widths=(4,), normalize=layers.BatchNormalization),
        {"hidden00": 8, "down0": 4},
        0,
    ),
    "convolutions, then attention": (nets.conv_then_attention, {"stem": 4, "hidden00": 8, "mlp0_hidden": 16}, 1),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_without_token_mixing_layers(kind):
    """With ignored statistics all channels can go, but those of the output."""
    make, groups, pinned = NETWORKS[kind]
    graph = ChannelGraph(make())
    assert groups.items() <= {g.name: g.size for g in graph.prunable(residual=True)}.items()
    assert sum(bool(g.pinned_because) for g in graph.groups) == pinned + 1
    free = ChannelGraph(graph.trace.model, ignore_statistics=True)
    assert [g.name for g in free.groups if g.pinned_because] == ["head"]
    if groups:
        check(graph.trace.model, save=True)


POSITIONS = {
    "a layer of a table": lambda x: nets.Positions()(x),
    "a constant": lambda x: x + np.linspace(0, 1, 4 * 6, dtype="float32").reshape(4, 6),
    "an embedding of a constant": lambda x: x + layers.Embedding(4, 6, name="places")(keras.ops.arange(4)),
    "a factor for each channel": lambda x: x * np.linspace(0.5, 1, 6, dtype="float32"),
    "a sample dropped": lambda x: layers.Dropout(0.2, noise_shape=(None, 1, 1))(x),
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions_factors_and_dropped_samples_follow(kind):
    x = keras.Input((8, 8, 3))
    y = POSITIONS[kind](nets.patches(x, 4, 6))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(5, name="after")(y)))
    constant = "constant" in kind or "factor" in kind
    check(model, prunable={"patches": 6, "after": 5}, configs=not constant, permutation=not constant, save=True)


@keras.saving.register_keras_serializable("mixing")
class Patches(layers.Layer):
    """As in Keras' own example of a vision transformer."""

    def call(self, images):
        patches = ops.image.extract_patches(images, size=4)
        return ops.reshape(patches, (-1, patches.shape[1] * patches.shape[2], patches.shape[3]))


@keras.saving.register_keras_serializable("mixing")
class PatchEncoder(layers.Layer):
    def __init__(self, count=4, width=6, **kwargs):
        super().__init__(**kwargs)
        self.count, self.width = count, width
        self.projection = layers.Dense(width)
        self.positions = layers.Embedding(count, width)

    def call(self, patches):
        return self.projection(patches) + self.positions(ops.expand_dims(ops.arange(0, self.count), axis=0))

    def get_config(self):
        return {**super().get_config(), "count": self.count, "width": self.width}


def test_a_patch_encoder_with_a_rule():
    @register_rule(PatchEncoder)
    def patch_encoder(call):
        projection, made = call.operation.projection, call.fresh(call.operation.width)
        kernel = call.consume(projection.kernel, 0, call.channels(0, axis=-1))
        call.weight(projection.kernel, {1: made})
        call.weight(projection.bias, {0: made})
        call.weight(call.operation.positions.embeddings, {1: made})
        call.config("width", made)
        call.multiplies(kernel, positions=call.operation.count, output_axis=1, bias=True)
        return call.place(made, axis=-1)

    x = keras.Input((8, 8, 3))
    y = PatchEncoder(name="encoder")(Patches()(x))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"encoder": 6}, save=True)


FILES = {
    "MLP-Mixer": nets.mlp_mixer,
    "gMLP": nets.gmlp,
    "ConvNeXt": nets.conv_next,
    "ConvNeXt V2": lambda: nets.conv_next(scale=None, response=nets.GlobalResponseNorm),
    "PoolFormer": nets.pool_former,
    "Swin": nets.swin,
    "hybrid": nets.conv_then_attention,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_the_pruned_network_is_loaded_and_becomes_a_file(kind, tmp_path):
    model = FILES[kind]()
    randomize(model)
    graph = ChannelGraph(model, ignore_statistics=True)
    small = rebuild(
        graph, graph.kept({g.name: g.first(g.heads * max(1, g.size // g.heads // 2)) for g in graph.prunable(True)})
    )
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    images = np.random.default_rng(0).normal(size=(4, *model.input.shape[1:])).astype("float32")
    np.testing.assert_array_equal(loaded(images), small(images))
    parity = tflite.check_parity(tflite.convert(loaded), loaded, images)
    assert parity.max_error < 1e-3, parity
