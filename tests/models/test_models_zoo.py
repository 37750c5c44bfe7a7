import functools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import models
from dcp_tf.errors import UsageError
from dcp_tf.graph import count_cost

# Several tests look at the same network, and the large ones take seconds to build.
build = functools.cache(models.build)


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


@pytest.mark.parametrize("name", ["preresnet8", "resnet20b", "mobilenet_v2_small", "vgg16_cifar"])
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
    for alpha in (0.3, 0.5, 1.4):
        model = models.mobilenet_v2_small(alpha=alpha)
        convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert all(layer.filters % 8 == 0 for layer in convolutions if not hasattr(layer, "depth_multiplier"))
        sizes.append(model.count_params())
    assert sizes[0] < sizes[1] < sizes[2]
    assert models.mobilenet_v2_small().get_layer("head_conv").output.shape[1:3] == (8, 8)


# Trainable parameters of the papers: torchvision's and Keras' counts, and sums over the layers of the papers' tables.
PAPER_PARAMS = {
    "preresnet20": 272_282,
    "preresnet56": 855_578,
    "preresnet56_cifar": 855_578,
    "preresnet110": 1_730_522,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet20b": 272_474,
    "resnet56b": 855_770,
    "resnet110b": 1_730_714,
    "vgg16_cifar": 14_728_266,
    "vgg19_cifar": 20_040_522,
    "mobilenet_v1_cifar": 3_217_226,
    "mobilenet_v2_cifar": 2_296_922,
    "mobilenet_v2_small": 149_322,
    "vit_cifar": 803_978,
    "mobilevit_cifar": 454_426,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v1_sparse": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilefacenet": 1_003_136,
    "lresnet34e_ir": 34_139_328,
    "spherenet4": 12_562_496,
    "spherenet20": 22_666_944,
    "unet": 31_037_698,
    "detector_mobilenet_v2": 1_952_597,
    "ds_cnn": 23_180,
    "resnet8": 77_946,
    "mobilenet_v1_025": 213_586,
    "autoencoder": 267_928,
    "image_and_metadata": 193_864,
}


LARGE = ("preresnet110", "resnet110", "resnet56b", "resnet110b", "lresnet34e_ir")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in models.NETWORKS]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_of_the_size_of_its_paper_at_its_own_shape(name):
    model, network = build(name), models.NETWORKS[name]
    assert sum(math.prod(weight.shape) for weight in model.trainable_variables) == PAPER_PARAMS[name]
    assert model.inputs[0].shape == (None, *network.input_shape)
    assert network.num_classes in (None, *(output.shape[-1] for output in model.outputs))
    assert model.name == name.removesuffix("_cifar") or model.name == name
    # Names are unique and say what a layer is: no conv2d_7.
    assert not [layer.name for layer in model.layers if re.fullmatch(r"(conv2d|dense|re_lu|p_re_lu|add).*", layer.name)]


ONE_PER_FAMILY = {
    **dict.fromkeys(
        ("preresnet20", "resnet20", "vgg16_cifar", "mobilenet_v1", "mobilenet_v2_cifar", "vit_cifar", "resnet18"), 5
    ),
    "mobilefacenet": None,
    "spherenet20": None,
}


@pytest.mark.parametrize(("name", "classes"), ONE_PER_FAMILY.items())
def test_small_images_will_do(name, classes):
    model = models.build(name, (16, 16, 1), classes)
    outputs = model(np.ones((2, 16, 16, 1), np.float32))
    assert outputs.shape == (2, *model.output_shape[1:])
    assert classes is None or outputs.shape[-1] == classes
    assert np.isfinite(outputs).all()


def test_published_counts_with_statistics():
    assert build("resnet20").count_params() == 271_098
    assert build("resnet56").count_params() == 857_082
    assert models.mobilefacenet((112, 96, 3)).count_params() == 1_019_136
    # What keras.applications prints for MobileNet and MobileNetV2.
    assert build("mobilenet_v1").count_params() == 4_253_864
    assert build("mobilenet_v2").count_params() == 3_538_984


# Keras' counts of the networks of MLPerf Tiny, with statistics and with biases before BatchNormalization; MACs.
MLPERF_TINY = {
    "resnet8": (78_666, 12_501_632),
    "mobilenet_v1_025": (221_794, 7_489_664),
    "autoencoder": (269_992, 264_192),
}


@pytest.mark.parametrize(("name", "published"), MLPERF_TINY.items())
def test_networks_of_mlperf_tiny_are_of_the_published_size(name, published):
    model = build(name)
    normalized = [layer.input._keras_history.operation for layer in model.layers if hasattr(layer, "moving_mean")]
    biases = sum(layer.output.shape[-1] for layer in normalized if not layer.use_bias)
    assert (model.count_params() + biases, count_cost(model).macs) == published


def test_resnet50_has_the_stride_on_the_3x3():
    convolutions = [layer for layer in build("resnet50").layers if isinstance(layer, keras.layers.Conv2D)]
    strided = {layer.name for layer in convolutions if layer.strides == (2, 2)}
    assert strided == {"stem_conv"} | {f"stage{s}_block1_{part}" for s in (2, 3, 4) for part in ("conv2", "shortcut")}
    assert not any(layer.use_bias for layer in convolutions)


def test_option_a_shortcuts_take_every_second_pixel_and_add_channels_of_zeros():
    model = models.cifar_resnet(8)
    stage1, add = model.get_layer("stage1_block1_relu"), model.get_layer("stage2_block1_add")
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    inner, shortcut = keras.Model(model.input, [stage1.output, add.input[0]])(images)
    expected = np.zeros((1, 16, 16, 32), np.float32)
    expected[..., 8:24] = np.asarray(inner)[:, ::2, ::2]
    np.testing.assert_array_equal(shortcut, expected)


def test_option_b_shortcuts_are_convolutions():
    model = models.cifar_resnet(8, shortcuts="B")
    names = [layer.name for layer in model.layers if layer.name.endswith("shortcut")]
    assert names == ["stage2_block1_shortcut", "stage3_block1_shortcut"]
    with pytest.raises(UsageError, match="'A' or 'B', or 'conv', received 'C'"):
        models.cifar_resnet(8, shortcuts="C")
    with pytest.raises(UsageError, match="6n \\+ 2"):
        models.cifar_resnet(18)


def test_networks_for_faces_have_no_classes():
    assert models.load("zoo:spherenet4", input_shape=(32, 32, 3)).model.output_shape == (None, 512)
    assert models.mobilefacenet((32, 32, 3), embedding=64).output_shape == (None, 64)
    with pytest.raises(UsageError, match="spherenet4 gives embeddings"):
        models.build("spherenet4", num_classes=10)
    with pytest.raises(UsageError, match="autoencoder gives what it is given"):
        models.build("autoencoder", num_classes=10)
    with pytest.raises(UsageError, match=r"autoencoder needs an input shape of \(values,\)"):
        models.build("autoencoder", (32, 32, 3))


@pytest.mark.parametrize("name", ["resnet21", "preresnet", "preresnet-20", ""])
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
