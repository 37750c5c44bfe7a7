import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import models
from dcp_tf.errors import UsageError


def preresnet_counts(depth, size, channels, classes, width=16):
    """Parameters (with BatchNorm's moving statistics) and MACs of convolutions and the classifier, by hand."""
    n = (depth - 2) // 6
    params, macs = 9 * channels * width, 9 * channels * width * size * size
    c_in = width
    for stage in range(3):
        c_out = width * 2**stage
        if stage:
            size = (size + 1) // 2
        for block in range(n):
            weights = 9 * c_in * c_out + 9 * c_out * c_out
            weights += c_in * c_out if stage and block == 0 else 0
            params += weights + 4 * c_in + 4 * c_out
            macs += weights * size * size
            c_in = c_out
    return params + 4 * c_in + c_in * classes + classes, macs + c_in * classes


def conv_macs(model):
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            total += int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        elif isinstance(layer, keras.layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


@pytest.mark.parametrize(
    ("depth", "shape", "classes", "width"),
    [(8, (8, 8, 1), 10, 16), (20, (32, 32, 3), 10, 16), (56, (32, 32, 3), 10, 16), (14, (9, 9, 3), 5, 8)],
)
def test_preresnets_are_of_the_size_that_the_formula_gives(depth, shape, classes, width):
    model = models.preresnet(depth, shape, classes, width)
    params, macs = preresnet_counts(depth, shape[0], shape[2], classes, width)
    assert model.count_params() == params
    assert conv_macs(model) == macs


def test_preresnet56_is_the_papers():
    model = models.preresnet(56)
    assert model.count_params() / 1e6 == pytest.approx(0.86, abs=0.005)
    assert conv_macs(model) / 1e6 == pytest.approx(126, abs=0.5)


def test_preresnet_layout():
    model = models.preresnet(20)
    names = [layer.name for layer in model.layers]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(layer.use_bias for layer in convolutions)
    assert [name for name in names if "shortcut" in name] == ["stage2_block1_shortcut", "stage3_block1_shortcut"]
    strided = [layer.name for layer in convolutions if layer.strides == (2, 2)]
    assert sorted(strided) == [f"stage{s}_block1_{part}" for s in (2, 3) for part in ("conv1", "shortcut")]
    # The projection takes the activated input, the identity the plain one.
    shortcut = model.get_layer("stage2_block1_shortcut")
    assert shortcut.input is model.get_layer("stage2_block1_pre1_relu").output
    first, second = model.get_layer("stage2_block2_add").input
    assert model.get_layer("stage2_block1_add").output in (first, second)
    assert names[-4:] == ["head_bn", "head_relu", "head_pool", "logits"]


@pytest.mark.parametrize("name", ["preresnet8", "preresnet20", "mobilenet_v2_small"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_networks_give_logits_and_finite_gradients(name, shape):
    model = models.build(name, shape, 7)
    images = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits([0, 1, 2, 6], outputs))
    assert outputs.shape == (4, 7)
    assert models.outputs_kind(model) == "logits"
    for gradient in tape.gradient(loss, model.trainable_variables):
        assert np.isfinite(gradient).all()


def test_mobilenet_channels_are_multiples_of_8_and_scale():
    sizes = []
    for alpha in (0.3, 0.5, 1.0, 1.4):
        model = models.mobilenet_v2_small(alpha=alpha)
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert all(layer.filters % 8 == 0 for layer in convolutions if not hasattr(layer, "depth_multiplier"))
        sizes.append(model.count_params())
    assert sizes == sorted(sizes)
    assert models.mobilenet_v2_small().get_layer("head_conv").output.shape[1:3] == (8, 8)


@pytest.mark.parametrize("name", models.NETWORKS)
def test_every_network_is_built_by_its_name(name):
    model = models.build(name, (8, 8, 1), 5)
    assert model.name == name
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 5))


@pytest.mark.parametrize("name", ["resnet20", "preresnet", "preresnet-20", ""])
def test_unknown_networks_are_refused_with_the_known_ones(name):
    with pytest.raises(UsageError, match=r"unknown network.*preresnet20.*mobilenet_v2_small"):
        models.build(name)


@pytest.mark.parametrize("depth", [0, 2, 19, 21, 52])
def test_other_depths_are_refused(depth):
    with pytest.raises(UsageError, match="6n \\+ 2"):
        models.build(f"preresnet{depth}")


def test_shapes_and_classes_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="height, width, channels"):
        models.build("preresnet8", (64,))
    with pytest.raises(UsageError, match="at least 1 class"):
        models.build("preresnet8", num_classes=0)
    with pytest.raises(UsageError, match="alpha"):
        models.mobilenet_v2_small(alpha=0)
