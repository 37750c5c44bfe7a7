"""Small networks of KerasHub with random weights, for the sweep: made by its constructors, nothing is downloaded."""

from collections.abc import Callable
from typing import Any

SHAPE = (64, 64, 3)


def _classifier(backbone: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda hub: hub.models.ImageClassifier(backbone(hub), num_classes=10)


def _resnet(hub: Any, filters: tuple[int, ...] = (64, 64, 96), block: str = "bottleneck_block") -> Any:
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=list(filters),
        stackwise_num_blocks=[2] * len(filters),
        stackwise_num_strides=[1, *[2] * (len(filters) - 1)],
        block_type=block,
        image_shape=SHAPE,
    )


def _mobilenet(hub: Any) -> Any:
    return hub.models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25, 0.25]],
        stackwise_activation=[["relu"] * 2, ["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=96,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=128,
        squeeze_and_excite=0.5,
        image_shape=SHAPE,
    )


def _efficientnet(hub: Any) -> Any:
    return hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[16, 16, 24],
        stackwise_output_filters=[16, 24, 40],
        stackwise_expansion_ratios=[1, 4, 6],
        stackwise_strides=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0, 0.25, 0.25],
        stackwise_block_types=["fused", "v1", "unfused"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_shape=SHAPE,
    )


def _densenet(hub: Any) -> Any:
    return hub.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 3, 2], compression_ratio=0.5, growth_rate=16, image_shape=SHAPE
    )


def _cspdarknet(hub: Any) -> Any:
    return hub.models.CSPNetBackbone(
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[2, 2, 2],
        stackwise_num_filters=[32, 48, 64],
        block_type="dark_block",
        stage_type="csp",
        bottle_ratio=[0.5],
        block_ratio=[0.5],
        image_shape=SHAPE,
    )


def _deeplab(hub: Any) -> Any:
    backbone = hub.models.DeepLabV3Backbone(
        image_encoder=_resnet(hub, block="basic_block"),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[1, 2, 3],
        image_shape=SHAPE,
    )
    return hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=4)


def _retinanet(hub: Any) -> Any:
    encoder = _resnet(hub, (64, 64, 64, 96), "basic_block")
    backbone = hub.models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=6, use_p5=False, image_shape=SHAPE
    )
    anchors = hub.layers.AnchorGenerator("xyxy", 3, 6, num_scales=3, aspect_ratios=[0.5, 1.0, 2.0], anchor_size=4.0)
    return hub.models.RetinaNetObjectDetector(
        backbone, anchor_generator=anchors, num_classes=4, bounding_box_format="xyxy"
    )


def _vit(hub: Any) -> Any:
    backbone = hub.models.ViTBackbone(
        image_shape=SHAPE, patch_size=(16, 16), num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    return hub.models.ViTImageClassifier(backbone, num_classes=10)


# Name of the table -> what builds the network from the module keras_hub.
HUB_NETWORKS: dict[str, Callable[[Any], Any]] = {
    "ResNet": _classifier(_resnet),
    "MobileNet": _classifier(_mobilenet),
    "EfficientNet": _classifier(_efficientnet),
    "DenseNet": _classifier(_densenet),
    "CSPDarkNet": _classifier(_cspdarknet),
    "DeepLabV3Plus": _deeplab,
    "RetinaNet": _retinanet,
    "ViT": _vit,
}
