"""Faces (Liu et al. 2021, sec. 5): LFW accuracy of the whole network, and of the pruned one.

Give --dataset=faces:DIR (the training faces), and --pairs with --pairs_root to measure verification. Times are
estimates for all trainings together, per million faces, at 4e12 multiply-accumulates per second, a plausible rate of a
data-center GPU on such networks; they were not measured. With a trained network the first training is not needed:
--model=FILE.
"""

from dcp_tf.experiments.recipe import BY_TWO, Experiment, faces


def faces_lresnet34e_ir_dcp_25() -> Experiment:
    """LResNet34E-IR, DCP at a rate of .25.

        dcp-tf prune --experiment=faces_lresnet34e_ir_dcp_25 --dataset=faces:DIR --output_dir=DIR

    Paper: 99.72 % -> 99.70 %, 391.5 -> 308.7 ms on a phone.
    Time: 61 h a million.
    """
    return faces("lresnet34e_ir", method="dcp", rate=0.25, **BY_TWO)


def faces_lresnet34e_ir_dcp_50() -> Experiment:
    """LResNet34E-IR, DCP at a rate of .5.

        dcp-tf prune --experiment=faces_lresnet34e_ir_dcp_50 --dataset=faces:DIR --output_dir=DIR

    Paper: 99.72 % -> 99.70 %, 391.5 -> 232.6 ms on a phone.
    Time: 55 h a million.
    """
    return faces("lresnet34e_ir", method="dcp", rate=0.5, **BY_TWO)


def faces_mobilefacenet_dcp_25() -> Experiment:
    """MobileFaceNet, DCP at a rate of .25.

        dcp-tf prune --experiment=faces_mobilefacenet_dcp_25 --dataset=faces:DIR --output_dir=DIR

    Paper: 99.50 % -> 99.38 %, 36.9 -> 28.7 ms on a phone.
    Time: 3 h a million.
    """
    return faces("mobilefacenet", method="dcp", rate=0.25, **BY_TWO)


def faces_mobilefacenet_dcp_50() -> Experiment:
    """MobileFaceNet, DCP at a rate of .5.

        dcp-tf prune --experiment=faces_mobilefacenet_dcp_50 --dataset=faces:DIR --output_dir=DIR

    Paper: not in the paper's table.
    Time: 3 h a million.
    """
    return faces("mobilefacenet", method="dcp", rate=0.5, **BY_TWO)
