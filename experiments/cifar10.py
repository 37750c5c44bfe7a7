"""CIFAR-10 (Liu et al. 2021, table of CIFAR-10): error of the baseline, its change, and the FLOP reduction.

Times are estimates for all trainings together at 2e12 multiply-accumulates per second, a plausible rate of a GPU in a
data center on such networks; they were not measured. The selection takes extra time (ResNet-56: .9 h in the paper).
"""

from dcp_tf.experiments.recipe import BY_TWO, Experiment, cifar10


def cifar10_resnet56_dcp_50() -> Experiment:
    """ResNet-56, DCP at a rate of .5.

        dcp-tf prune --experiment=cifar10_resnet56_dcp_50 --output_dir=DIR

    Paper: 6.26 % +.02 at -49.8 % FLOPs.
    Time: 2 h.
    """
    return cifar10("preresnet56", 3, method="dcp", rate=0.5, **BY_TWO)


def cifar10_resnet56_dcp_30() -> Experiment:
    """ResNet-56, DCP at a rate of .3 (sweep of rates).

        dcp-tf prune --experiment=cifar10_resnet56_dcp_30 --output_dir=DIR

    Paper: not in the paper's table.
    Time: 2.1 h.
    """
    return cifar10("preresnet56", 3, method="dcp", rate=0.3, **BY_TWO)


def cifar10_resnet56_dcp_70() -> Experiment:
    """ResNet-56, DCP at a rate of .7 (sweep of rates).

        dcp-tf prune --experiment=cifar10_resnet56_dcp_70 --output_dir=DIR

    Paper: not in the paper's table.
    Time: 1.7 h.
    """
    return cifar10("preresnet56", 3, method="dcp", rate=0.7, **BY_TWO)


def cifar10_resnet56_adapt_dcp() -> Experiment:
    """ResNet-56, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=cifar10_resnet56_adapt_dcp --output_dir=DIR

    Paper: 6.26 % -.03 at -54.8 % FLOPs.
    Time: 2 h.
    """
    return cifar10("preresnet56", 3, method="adapt_dcp", rate=0.4, epsilon=1e-4, **BY_TWO)


def cifar10_resnet56_dkp_50() -> Experiment:
    """ResNet-56, DKP alone, half of the multiply-accumulates left.

        dcp-tf prune --experiment=cifar10_resnet56_dkp_50 --output_dir=DIR

    Paper: 6.26 % -.08 at -50.0 % FLOPs.
    Time: 2.5 h.
    """
    return cifar10("preresnet56", 3, method="dkp", target_macs="50%", per_step=1)


def cifar10_resnet56_adapt_dkp() -> Experiment:
    """ResNet-56, Adapt-DKP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=cifar10_resnet56_adapt_dkp --output_dir=DIR

    Paper: 6.26 % -.09 at -58.4 % FLOPs.
    Time: 2.5 h.
    """
    return cifar10("preresnet56", 3, method="adapt_dkp", rate=0.4, epsilon=1e-4, per_step=1)


def cifar10_resnet56_wm_50() -> Experiment:
    """ResNet-56 with half of the inner channels, trained from scratch (WM).

        dcp-tf prune --experiment=cifar10_resnet56_wm_50 --output_dir=DIR

    Paper: 6.26 % +.50.
    Time: 1.6 h.
    """
    return cifar10("preresnet56", 3, method="width_multiplier", rate=0.5, auxiliary_losses=0)


def cifar10_resnet56_wm_plus_50() -> Experiment:
    """The same with auxiliary losses (WM+).

        dcp-tf prune --experiment=cifar10_resnet56_wm_plus_50 --output_dir=DIR

    Paper: 6.26 % +.39.
    Time: 1.6 h.
    """
    return cifar10("preresnet56", 3, method="width_multiplier", rate=0.5)


def cifar10_resnet56_random_dcp_50() -> Experiment:
    """ResNet-56, random channels, fitted as DCP fits them (Random-DCP).

        dcp-tf prune --experiment=cifar10_resnet56_random_dcp_50 --output_dir=DIR

    Paper: 6.26 % +.40.
    Time: 1.8 h.
    """
    return cifar10("preresnet56", 3, method="random", rate=0.5, update=True, **BY_TWO)


def cifar10_resnet56_thinet_50() -> Experiment:
    """ResNet-56, ThiNet at a rate of .5.

        dcp-tf prune --experiment=cifar10_resnet56_thinet_50 --output_dir=DIR

    Paper: 6.26 % +.82.
    Time: 1.8 h.
    """
    return cifar10("preresnet56", 3, method="thinet", rate=0.5)


def cifar10_resnet56_lasso_50() -> Experiment:
    """ResNet-56, channel pruning by LASSO (CP) at a rate of .5.

        dcp-tf prune --experiment=cifar10_resnet56_lasso_50 --output_dir=DIR

    Paper: 6.26 % +1.00.
    Time: 1.8 h.
    """
    return cifar10("preresnet56", 3, method="lasso", rate=0.5)


def cifar10_vgg19_dcp_30() -> Experiment:
    """VGG-19, DCP at a rate of .3.

        dcp-tf prune --experiment=cifar10_vgg19_dcp_30 --output_dir=DIR

    Paper: 6.02 % -.31 at -50.1 % FLOPs.
    Time: 6 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="dcp", rate=0.3, **BY_TWO)


def cifar10_vgg19_dcp_50() -> Experiment:
    """VGG-19, DCP at a rate of .5 (sweep of rates).

        dcp-tf prune --experiment=cifar10_vgg19_dcp_50 --output_dir=DIR

    Paper: not in the paper's table; its networks lose 74.3 % of the FLOPs.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="dcp", rate=0.5, **BY_TWO)


def cifar10_vgg19_adapt_dcp() -> Experiment:
    """VGG-19, Adapt-DCP with epsilon 1e-4.

        dcp-tf prune --experiment=cifar10_vgg19_adapt_dcp --output_dir=DIR

    Paper: 6.02 % -.57 at -69.8 % FLOPs.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="adapt_dcp", rate=0.2, epsilon=1e-4, **BY_TWO)


def cifar10_vgg19_adapt_dcp_3e4() -> Experiment:
    """VGG-19, Adapt-DCP with epsilon 3e-4 (sweep of epsilon).

        dcp-tf prune --experiment=cifar10_vgg19_adapt_dcp_3e4 --output_dir=DIR

    Paper: part of its ablation.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="adapt_dcp", rate=0.2, epsilon=3e-4, **BY_TWO)


def cifar10_vgg19_adapt_dcp_5e4() -> Experiment:
    """VGG-19, Adapt-DCP with epsilon 5e-4 (sweep of epsilon).

        dcp-tf prune --experiment=cifar10_vgg19_adapt_dcp_5e4 --output_dir=DIR

    Paper: part of its ablation.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="adapt_dcp", rate=0.2, epsilon=5e-4, **BY_TWO)


def cifar10_vgg19_wm_30() -> Experiment:
    """VGG-19 with 70 % of the channels, trained from scratch (WM).

        dcp-tf prune --experiment=cifar10_vgg19_wm_30 --output_dir=DIR

    Paper: 6.02 % +.37.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="width_multiplier", rate=0.3, auxiliary_losses=0)


def cifar10_vgg19_random_dcp_30() -> Experiment:
    """VGG-19, random channels, fitted as DCP fits them (Random-DCP).

        dcp-tf prune --experiment=cifar10_vgg19_random_dcp_30 --output_dir=DIR

    Paper: 6.02 % -.03.
    Time: 6 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="random", rate=0.3, update=True, **BY_TWO)


def cifar10_vgg19_slimming_30() -> Experiment:
    """VGG-19, by the scales of BatchNormalization (network slimming).

        dcp-tf prune --experiment=cifar10_vgg19_slimming_30 --output_dir=DIR

    Paper: 6.02 % -.14.
    Time: 5 h.
    """
    return cifar10("vgg19_cifar", 2, scope=True, method="bn_scale", rate=0.3, baseline={"bn_sparsity": 1e-4})


def cifar10_mobilenet_v1_dcp_30() -> Experiment:
    """MobileNetV1, DCP at a rate of .3.

        dcp-tf prune --experiment=cifar10_mobilenet_v1_dcp_30 --output_dir=DIR

    Paper: 6.04 % -.50 at -48.6 % FLOPs.
    Time: 0.7 h.
    """
    return cifar10("mobilenet_v1_cifar", 2, scope=True, method="dcp", rate=0.3, **BY_TWO)


def cifar10_mobilenet_v1_adapt_dcp() -> Experiment:
    """MobileNetV1, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=cifar10_mobilenet_v1_adapt_dcp --output_dir=DIR

    Paper: 6.04 % -.61 at -66.1 % FLOPs.
    Time: 0.7 h.
    """
    return cifar10("mobilenet_v1_cifar", 2, scope=True, method="adapt_dcp", rate=0.2, epsilon=1e-4, **BY_TWO)


def cifar10_mobilenet_v1_random_dcp_30() -> Experiment:
    """MobileNetV1, random channels, fitted as DCP fits them (Random-DCP).

        dcp-tf prune --experiment=cifar10_mobilenet_v1_random_dcp_30 --output_dir=DIR

    Paper: 6.04 % +.32.
    Time: 0.6 h.
    """
    return cifar10("mobilenet_v1_cifar", 2, scope=True, method="random", rate=0.3, update=True, **BY_TWO)


def cifar10_mobilenet_v2_dcp_30() -> Experiment:
    """MobileNetV2, DCP at a rate of .3.

        dcp-tf prune --experiment=cifar10_mobilenet_v2_dcp_30 --output_dir=DIR

    Paper: 5.53 % -.16 at -27.1 % FLOPs.
    Time: 1.5 h.
    """
    return cifar10("mobilenet_v2_cifar", 2, scope=True, method="dcp", rate=0.3, **BY_TWO)


def cifar10_mobilenet_v2_adapt_dcp() -> Experiment:
    """MobileNetV2, Adapt-DCP; the paper gives no epsilon, 1e-4 is that of VGG-19.

        dcp-tf prune --experiment=cifar10_mobilenet_v2_adapt_dcp --output_dir=DIR

    Paper: 5.53 % -.25 at -34.4 % FLOPs.
    Time: 1.5 h.
    """
    return cifar10("mobilenet_v2_cifar", 2, scope=True, method="adapt_dcp", rate=0.2, epsilon=1e-4, **BY_TWO)


def cifar10_mobilenet_v2_random_dcp_30() -> Experiment:
    """MobileNetV2, random channels, fitted as DCP fits them (Random-DCP).

        dcp-tf prune --experiment=cifar10_mobilenet_v2_random_dcp_30 --output_dir=DIR

    Paper: 5.53 % +.42.
    Time: 1.3 h.
    """
    return cifar10("mobilenet_v2_cifar", 2, scope=True, method="random", rate=0.3, update=True, **BY_TWO)
