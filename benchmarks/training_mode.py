r"""Does training see what the selection fitted? Losses right after surgery, in inference and in training mode.

    python benchmarks/training_mode.py --networks=preresnet20,vgg16 --rates=.3,.5

Networks of the zoo with random weights, whose BatchNormalization has the statistics of the images, are pruned by `dcp`
without fine-tuning. The loss is the cross-entropy with the baseline's predictions, less what those have of themselves,
on images that were not fitted; in training mode BatchNormalization takes the statistics of batches of 128.
"""

import sys

import common
import numpy as np

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("training_mode", __doc__)
PROGRAM.section("What is measured")
PROGRAM.list("networks", [], "Names as in zoo:NAME; without the flag all classifiers of the zoo.")
PROGRAM.list("rates", ["0.3", "0.5"], "Pruning rates.")
PROGRAM.integer("image_size", 32, "Height and width of the images.", lower=8)
PROGRAM.integer("images", 512, "Images to fit on; as many again measure.", lower=128)
PROGRAM.integer("seed", 0, "Of weights and images.")


def main(flags) -> None:
    """Prints a row for each network and rate."""
    from dcp_tf.models import NETWORKS

    others = ("unet", "detector_mobilenet_v2", "ds_cnn", "image_and_metadata")
    classifiers = [name for name, network in NETWORKS.items() if network.num_classes and name not in others]
    for name in flags.networks or classifiers:
        for rate in map(float, flags.rates):
            before, inference, training = losses(name, rate, flags)
            ratio = training / max(inference, 1e-12)
            print(f"{name:24} {rate:.1f}  {before:9.5f}  {inference:9.5f}  {training:9.5f}  {ratio:6.2f}", flush=True)


def losses(name, rate, flags) -> tuple[float, float, float]:
    """The baseline's loss in training mode, and the pruned model's in inference and in training mode."""
    import keras
    import tensorflow as tf

    import dcp_tf
    from dcp_tf import models
    from dcp_tf.training import TrainConfig

    keras.utils.set_random_seed(flags.seed)
    shape = (flags.image_size, flags.image_size, 3)
    model = models.build(name, shape, 10)
    rng = np.random.default_rng(flags.seed)
    coarse = rng.normal(size=(2 * flags.images, 8, 8, 3)).astype("float32")
    images = tf.image.resize(coarse, shape[:2]).numpy()
    common.take_statistics(model, images[:128])  # Keras keeps the outputs of all layers of a batch
    none, fitted, measured = TrainConfig(epochs=0), images[: flags.images], images[flags.images :]
    method = dcp_tf.DCP(rate=rate, round_to=1, discrimination=0.0)
    result = dcp_tf.prune(
        model, (fitted, None), method, auxiliary=none, finetuning=none, objective="softmax", looks_at_baseline=False
    )

    def distance(network, training: bool) -> float:
        values = []
        for i in range(0, len(measured), 128):
            probabilities = tf.nn.softmax(model(measured[i : i + 128], training=False))
            log_probabilities = tf.nn.log_softmax(network(measured[i : i + 128], training=training))
            kl = tf.reduce_sum(probabilities * (tf.math.log(probabilities + 1e-12) - log_probabilities), -1)
            values.append(float(tf.reduce_mean(kl)))
        return float(np.mean(values))

    return distance(model, True), distance(result.model, False), distance(result.model, True)


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
