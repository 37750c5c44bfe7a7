"""The rules of XNNPACK's sparse inference, one broken at a time in a network that meets them all."""

import re

import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers

from dcp_tf import models, tflite
from dcp_tf.graph import ChannelGraph


def zeros(model, share):
    """Sets a share of the weights of each 1x1 convolution to zero."""
    random = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel = np.array(layer.kernel)
            kernel[random.random(kernel.shape) < share] = 0
            layer.kernel.assign(kernel)
    return model


def stem(x, filters=8, **changes):
    settings = {"kernel_size": 3, "strides": 2, "padding": "valid", "activation": "relu", "name": "stem"} | changes
    return layers.Conv2D(filters, **settings)(layers.ZeroPadding2D(1)(x))


def body(x):
    y = layers.Conv2D(8, 1, activation="relu6", name="point")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depth")(y)
    y = layers.Activation("hard_silu")(layers.Conv2D(8, 1)(y))
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    return layers.Add()([x, layers.Multiply()([y, gate])])


def network(start=stem, middle=body, channels=3, share=0.9, size=16):
    inputs = keras.Input((size, size, channels))
    x = layers.GlobalAveragePooling2D()(middle(start(inputs)))
    return zeros(keras.Model(inputs, layers.Dense(5)(x)), share)


def test_a_network_that_meets_all_rules_is_accepted():
    model = network()
    for source in (model, tflite.convert(model, "sparse")):
        report = tflite.sparse_inference_report(source)
        assert report.accepted, report
        assert report.pointwise == 3
        assert report.density == pytest.approx(0.1, abs=0.08)
        assert "yes, 3" in str(report)


def broken(**changes):
    return lambda: network(**changes)


def after(layer):
    """A network with one more layer behind the stem."""
    return lambda: network(middle=lambda x: body(layer(x)))


@pytest.mark.parametrize(
    ("build", "operation", "reason"),
    [
        (broken(start=layers.Conv2D(8, 3, 2, padding="same")), "CONV_2D", r"ZeroPadding2D\(1\)"),
        # At odd sizes "same" pads evenly, so the converter merges the zeros into it; XNNPACK does not look at the size.
        (broken(size=17), "CONV_2D", "size is odd"),
        (broken(start=lambda x: stem(x, strides=1)), "CONV_2D", "stride 1"),
        (broken(start=lambda x: stem(x, kernel_size=5)), "CONV_2D", "5x5 kernel"),
        (broken(channels=4), "CONV_2D", "4 channels"),
        (broken(start=layers.MaxPooling2D(), middle=layers.Conv2D(8, 1)), "MAX_POOL_2D", "first operation must be"),
        (after(layers.DepthwiseConv2D(3, 2, padding="same")), "DEPTHWISE_CONV_2D", r"ZeroPadding2D\(1\)"),
        (after(layers.DepthwiseConv2D(7, padding="same")), "DEPTHWISE_CONV_2D", "7x7"),
        (after(layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)), "DEPTHWISE_CONV_2D", "dilation"),
        (after(layers.Conv2D(8, 3, padding="same")), "CONV_2D", "behind the first one"),
        (after(layers.Conv2D(8, 1, strides=2)), "CONV_2D", "stride 1"),
        (after(layers.MaxPooling2D()), "MAX_POOL_2D", "no channels-first kernel"),
        (
            # Behind a ReLU it would do nothing, and the converter would see that.
            broken(start=lambda x: layers.PReLU("he_normal", shared_axes=[1, 2])(stem(x, activation=None))),
            "PRELU",
            "no channels-first kernel",
        ),
    ],
)
def test_each_operation_that_prevents_it_is_named(build, operation, reason):
    report = tflite.sparse_inference_report(build())
    assert not report.accepted
    assert len(report.blockers) == 1, report
    assert report.blockers[0].startswith(f"{operation} (")
    assert re.search(reason, report.blockers[0]), report


def test_weights_with_too_few_zeros_prevent_it():
    report = tflite.sparse_inference_report(network(share=0.5))
    assert any("of the weights of the 1x1 convolutions are zero" in blocker for blocker in report.blockers)


def test_dense_and_integer_files_are_not_taken():
    model = network()
    assert tflite.sparse_inference_report(tflite.convert(model)).blockers == (
        "no weight is stored in the sparse encoding; export with quantization sparse",
    )
    int8 = tflite.convert(model, "int8", representative_data=nets.images())
    assert "integers" in tflite.sparse_inference_report(int8).blockers[0]


def test_a_value_that_leaves_the_part_prevents_it():
    inputs = keras.Input((16, 16, 3))
    x = body(stem(inputs))
    side = layers.MaxPooling2D()(x)
    model = zeros(keras.Model(inputs, [layers.GlobalAveragePooling2D()(x), side]), 0.9)
    assert "also read by MAX_POOL_2D" in str(tflite.sparse_inference_report(model))
    model = zeros(keras.Model(inputs, [layers.GlobalAveragePooling2D()(x), x]), 0.9)
    assert "an output of the model" in str(tflite.sparse_inference_report(model))
    flat = zeros(keras.Model(inputs, layers.Flatten()(x)), 0.9)
    assert "no MEAN" not in str(tflite.sparse_inference_report(model))
    assert not tflite.sparse_inference_report(flat).accepted


def test_the_network_of_the_zoo_is_accepted_pruned_and_its_twin_is_not():
    sparse, plain = (
        zeros(models.build(name, (32, 32, 3), 10), 0.8) for name in ("mobilenet_v1_sparse", "mobilenet_v1")
    )
    assert tflite.sparse_inference_report(sparse).accepted
    assert not tflite.sparse_inference_report(plain).accepted
    assert [w.shape for w in sparse.weights] == [w.shape for w in plain.weights]
    graphs = [ChannelGraph(model) for model in (sparse, plain)]
    assert [g.name for g in graphs[0].prunable(residual=True)] == [g.name for g in graphs[1].prunable(residual=True)]
