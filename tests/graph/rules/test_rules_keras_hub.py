"""Rules for layers of KerasHub, which is optional."""

import keras
import pytest
from equivalence import check
from keras import layers

from dcp_tf import to_functional
from dcp_tf.graph import ChannelGraph, shrinkable_fraction

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("class_token", [True, False])
def test_patches_and_positions(class_token):
    pytest.importorskip("keras_hub")
    from keras_hub.src.models.vit.vit_layers import ViTPatchingAndEmbedding

    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(5, 1, name="before")(images)
    x = ViTPatchingAndEmbedding((8, 8), (4, 4), 6, num_channels=5, use_class_token=class_token, name="patches")(x)
    model = keras.Model(images, layers.Dense(2, name="last")(x))
    check(model, prunable={"before": 5, "patches": 6}, configs=False)


def test_cached_attention_is_pruned_inside():
    keras_hub = pytest.importorskip("keras_hub")
    x = keras.Input((6, 5))
    y = layers.Dense(7, name="first")(x)
    y = keras_hub.layers.CachedMultiHeadAttention(2, 4, name="attention")(y, y)
    inside = {"attention/heads": 2, "attention/query": 8, "attention/value": 8}
    check(keras.Model(x, layers.Dense(2)(y)), prunable=inside | {"first": 7, "attention": 7}, save=True)


def test_most_of_a_vit_can_shrink():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=(4, 4), num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    y = layers.Dense(3)(layers.GlobalAveragePooling1D()(backbone.output))
    model = to_functional(keras.Model(backbone.input, y))
    graph, _ = check(model, configs=False, permutation=False)
    assert sum(group.are_heads for group in graph.prunable()) == 2
    kinds = (keras.layers.Layer,)
    assert shrinkable_fraction(graph, kinds=kinds) > 0.6
    assert shrinkable_fraction(ChannelGraph(model, ignore_statistics=True), kinds=kinds) > 0.95
