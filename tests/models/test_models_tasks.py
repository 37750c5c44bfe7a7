"""Networks for other tasks than a class for an image."""

import math

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf import models
from dcp_tf.errors import UsageError

SMALL = {
    "unet": lambda: models.unet((16, 16, 3), 3, width=4, depth=2),
    "detector": lambda: models.detector_mobilenet_v2((32, 64, 3), 4, alpha=0.25, width=16),
    "ds_cnn": lambda: models.ds_cnn((20, 10, 1), 5, width=8, blocks=2),
    "image_and_metadata": lambda: models.image_and_metadata((32, 32, 3), 6, metadata=3, alpha=0.25, units=8),
}


def parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_variables)


def unet_parameters(width, depth, channels, classes):
    """By hand: 3x3 kernels, scale and offset of each normalization, 2x2 transposed convolutions, and the logits."""

    def two(c_in, c_out):
        return 9 * c_in * c_out + 9 * c_out * c_out + 4 * c_out

    widths = [width * 2**level for level in range(depth + 1)]
    down = sum(two(c_in, c_out) for c_in, c_out in zip([channels, *widths], widths, strict=False))
    up = sum(4 * 2 * c * c + c + two(2 * c, c) for c in widths[:-1])
    return down + up + width * classes + classes


@pytest.mark.parametrize(("width", "depth", "channels", "classes"), [(4, 2, 1, 3), (64, 4, 3, 2)])
def test_unets_are_of_the_size_that_the_formula_gives(width, depth, channels, classes):
    model = models.unet((16, 16, channels), classes, width, depth)
    assert parameters(model) == unet_parameters(width, depth, channels, classes)
    assert model.output_shape == (None, 16, 16, classes)


def test_each_decoder_level_reads_the_encoders_map_of_its_size():
    model = SMALL["unet"]()
    for level in (1, 2):
        skip, _ = model.get_layer(f"up{level}_concat").input
        assert skip is model.get_layer(f"down{level}_2_relu").output


def test_ds_cnn_small_is_of_the_papers_size():
    # Zhang et al. 2017, figure 6: one 10x4 convolution and four blocks, all of 64 channels; 2.7 million operations.
    model = models.ds_cnn()
    kernels = 10 * 4 * 64 + 4 * (9 * 64 + 64 * 64) + 64 * 12
    assert parameters(model) == kernels + 9 * 2 * 64 + 12
    assert dcp_tf.count_cost(model).macs == 25 * 5 * (kernels - 64 * 12) + 64 * 12


def test_the_detector_gives_a_class_and_a_box_at_every_eighth_pixel():
    model = SMALL["detector"]()
    outputs = model(np.zeros((2, 32, 64, 3), np.float32))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "classes": (2, 4, 8, 4),
        "boxes": (2, 4, 8, 4),
    }
    fine, lateral = model.get_layer("pyramid_fine_add").input
    assert fine.shape == lateral.shape == (None, 4, 8, 16)


def test_image_and_metadata_reads_both():
    model = SMALL["image_and_metadata"]()
    rng = np.random.default_rng(0)
    inputs = {"image": rng.normal(size=(1, 32, 32, 3)), "metadata": rng.normal(size=(1, 3))}
    logits = np.asarray(model(inputs))
    for name, value in inputs.items():
        assert not np.allclose(logits, model({**inputs, name: value + 1}))


@pytest.mark.parametrize("name", SMALL)
def test_inner_channels_are_free_and_outputs_are_logits(name):
    model = SMALL[name]()
    graph = dcp_tf.ChannelGraph(model)
    pinned = {group.name for group in graph.groups if group.pinned_because}
    assert pinned == {output._keras_history.operation.name for output in model.outputs}
    for output in model.outputs:
        layer = output._keras_history.operation
        assert layer.activation is keras.activations.linear


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: models.unet((20, 16, 3), depth=3), "multiples of 8, received 20 x 16"),
        (lambda: models.detector_mobilenet_v2((48, 64, 3)), "multiples of 32, received 48 x 64"),
        (lambda: models.image_and_metadata(alpha=0), "alpha must be above 0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(build, words):
    with pytest.raises(UsageError, match=words):
        build()


def test_spectrograms_and_metadata_are_taken_as_they_are():
    for name in ("ds_cnn", "image_and_metadata"):
        assert models.load(f"zoo:{name}").normalization == "none"
