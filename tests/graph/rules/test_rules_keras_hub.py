"""Rules for layers of KerasHub, which is optional."""

import keras
import pytest
from equivalence import check
from keras import layers

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
