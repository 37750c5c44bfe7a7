"""ILSVRC-12 (Liu et al. 2021): top-1 error of the baseline, its change, and the FLOP reduction.

TFDS must hold imagenet2012 (--data_dir). Times are estimates for all trainings together at 4e12 multiply-accumulates
per second, a plausible rate of a GPU in a data center; they were not measured. The selection takes extra time.
With published weights the first training is not needed: --model=FILE.
"""

from dcp_tf.experiments.recipe import BY_TWO, Experiment, imagenet


def imagenet_resnet18_dcp_30() -> Experiment:
    """ResNet-18, DCP at a rate of .3.

        dcp-tf prune --experiment=imagenet_resnet18_dcp_30 --output_dir=DIR

    Paper: -27.5 % FLOPs; no error in its table.
    Time: 94 h.
    """
    return imagenet("resnet18", 2, method="dcp", rate=0.3, **BY_TWO)


def imagenet_resnet18_dcp_50() -> Experiment:
    """ResNet-18, DCP at a rate of .5.

        dcp-tf prune --experiment=imagenet_resnet18_dcp_50 --output_dir=DIR

    Paper: -46.2 % FLOPs; no error in its table.
    Time: 88 h.
    """
    return imagenet("resnet18", 2, method="dcp", rate=0.5, **BY_TWO)


def imagenet_resnet50_dcp_30() -> Experiment:
    """ResNet-50, DCP at a rate of .3.

        dcp-tf prune --experiment=imagenet_resnet50_dcp_30 --output_dir=DIR

    Paper: 23.99 % -.36 at -35.7 % FLOPs.
    Time: 206 h.
    """
    return imagenet("resnet50", 3, scope=True, method="dcp", rate=0.3, **BY_TWO)


def imagenet_resnet50_dcp_50() -> Experiment:
    """ResNet-50, DCP at a rate of .5.

        dcp-tf prune --experiment=imagenet_resnet50_dcp_50 --output_dir=DIR

    Paper: 23.99 % +1.02 at -55.5 % FLOPs.
    Time: 193 h.
    """
    return imagenet("resnet50", 3, scope=True, method="dcp", rate=0.5, **BY_TWO)


def imagenet_resnet50_adapt_dcp() -> Experiment:
    """ResNet-50, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=imagenet_resnet50_adapt_dcp --output_dir=DIR

    Paper: 23.99 % +.86 at -52.4 % FLOPs.
    Time: 195 h.
    """
    return imagenet("resnet50", 3, scope=True, method="adapt_dcp", rate=0.4, epsilon=1e-4, **BY_TWO)


def imagenet_resnet50_fpgm_50() -> Experiment:
    """ResNet-50, FPGM at a rate of .5.

        dcp-tf prune --experiment=imagenet_resnet50_fpgm_50 --output_dir=DIR

    Paper: 23.99 % +1.32.
    Time: 128 h.
    """
    return imagenet("resnet50", 3, scope=True, method="fpgm", rate=0.5)


def imagenet_resnet50_thinet_50() -> Experiment:
    """ResNet-50, ThiNet at a rate of .5.

        dcp-tf prune --experiment=imagenet_resnet50_thinet_50 --output_dir=DIR

    Paper: 23.99 % +3.27.
    Time: 128 h.
    """
    return imagenet("resnet50", 3, scope=True, method="thinet", rate=0.5)


def imagenet_mobilenet_v1_dcp_30() -> Experiment:
    """MobileNetV1, DCP at a rate of .3.

        dcp-tf prune --experiment=imagenet_mobilenet_v1_dcp_30 --output_dir=DIR

    Paper: 29.12 % +.40 at -49.7 % FLOPs.
    Time: 43 h.
    """
    return imagenet("mobilenet_v1", 2, cosine_epochs=150, method="dcp", rate=0.3, **BY_TWO)


def imagenet_mobilenet_v1_adapt_dcp() -> Experiment:
    """MobileNetV1, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=imagenet_mobilenet_v1_adapt_dcp --output_dir=DIR

    Paper: 29.12 % +.38 at -51.3 % FLOPs.
    Time: 43 h.
    """
    return imagenet("mobilenet_v1", 2, cosine_epochs=150, method="adapt_dcp", rate=0.2, epsilon=1e-4, **BY_TWO)


def imagenet_mobilenet_v2_dcp_30() -> Experiment:
    """MobileNetV2, DCP at a rate of .3.

        dcp-tf prune --experiment=imagenet_mobilenet_v2_dcp_30 --output_dir=DIR

    Paper: 28.12 % +.67 at -32.2 % FLOPs.
    Time: 38 h.
    """
    return imagenet("mobilenet_v2", 2, cosine_epochs=250, scope=True, method="dcp", rate=0.3, **BY_TWO)


def imagenet_mobilenet_v2_adapt_dcp() -> Experiment:
    """MobileNetV2, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=imagenet_mobilenet_v2_adapt_dcp --output_dir=DIR

    Paper: 28.12 % +.49 at -30.7 % FLOPs.
    Time: 38 h.
    """
    return imagenet(
        "mobilenet_v2", 2, cosine_epochs=250, scope=True, method="adapt_dcp", rate=0.2, epsilon=1e-4, **BY_TWO
    )
