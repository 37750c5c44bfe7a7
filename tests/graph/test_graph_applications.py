"""All networks of keras.applications: rebuilt equals masked, and most of their convolutions can shrink."""

import time

import keras
import numpy as np
import pytest
from equivalence import TOLERANCE, difference, example_inputs, outputs, random_plan, randomize

from dcp_tf.graph import ChannelGraph, apply_masks, count_cost, rebuild, shrinkable_fraction

# The smallest image that each family takes.
SIZES = {"Inception": 75, "Xception": 71, "NASNet": 64, "ResNet": 64, "VGG": 64, "DenseNet": 64, "MobileNet": 64}
NAMES = [
    "Xception",
    "VGG16",
    "VGG19",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNet50V2",
    "ResNet101V2",
    "ResNet152V2",
    "InceptionV3",
    "InceptionResNetV2",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "NASNetMobile",
    "NASNetLarge",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "EfficientNetV2M",
    "EfficientNetV2L",
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtXLarge",
]
REACHED = ("MobileNet", "EfficientNet", "NASNet", "DenseNet", "Xception")
FAST = ["MobileNetV2", "MobileNetV3Small", "ResNet50V2"]


def build(name):
    keras.backend.clear_session()
    size = next((s for family, s in SIZES.items() if family in name), 64)
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)


def check_application(name, rate=0.3):
    """Returns a row of figures: groups, share that can shrink, seconds for analysis and surgery, difference."""
    model = build(name)
    randomize(model, spread=0.2)
    start = time.perf_counter()
    graph = ChannelGraph(model)
    analysed = time.perf_counter()
    kept = graph.kept(random_plan(graph, rate))
    small = rebuild(graph, kept)
    rebuilt = time.perf_counter()
    predicted, counted = count_cost(graph, kept), count_cost(small)
    assert predicted == counted
    assert small.count_params() < model.count_params()
    x = example_inputs(model)
    original = outputs(model, x)
    apply_masks(graph, kept)
    full = outputs(model, x)
    error = difference(full, outputs(small, x))
    assert np.isfinite(full[0]).all()
    assert difference(original, full) > 100 * TOLERANCE, "the plan removes nothing that matters: nothing was tested"
    assert error < TOLERANCE
    share = shrinkable_fraction(graph)
    if name.startswith(REACHED):
        assert share >= 0.9
    return len(graph.groups), share, analysed - start, rebuilt - analysed, error


@pytest.mark.parametrize("name", FAST)
def test_applications(name):
    check_application(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_application(name):
    groups, share, analysis, surgery, error = check_application(name)
    print(f"{name:20} {groups:4} groups, {share:6.1%} can shrink, {analysis:.2f} + {surgery:.2f} s, error {error:.1e}")
