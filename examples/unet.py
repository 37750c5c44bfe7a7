"""A U-Net that finds discs, squares and triangles in clutter: half of its multiply-accumulates, then 8 bits.

python examples/unet.py
"""

import argparse

import keras
import numpy as np

import dcp_tf
from dcp_tf.models import unet
from dcp_tf.tflite import Runner

CLASSES = ("background", "disc", "square", "triangle")


def draw(count, seed):
    """Images (N, 48, 48, 3) of shapes that overlap, among lines, crosses and noise, and their classes (N, 48, 48)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    images = rng.uniform(0.4, 0.6, (count, 6, 6, 3)).repeat(8, 1).repeat(8, 2)
    labels = np.zeros((count, 48, 48), np.int32)
    for image, classes in zip(images, labels, strict=True):
        for kind in rng.permutation([*rng.integers(1, 4, rng.integers(1, 4)), 0, 0, -1, -1]):
            (cx, cy), radius, angle = rng.uniform(8, 40, 2), rng.uniform(6, 13), rng.uniform(0, np.pi)
            u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            low, high = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
            disc, square = u**2 + v**2 < radius**2, high < 0.85 * radius
            triangle = (v > -radius / 2) & (v < radius - np.sqrt(3) * np.abs(u))
            line, cross = np.abs(v) < 1, (low < radius / 4) & (high < radius)
            inside = (line, disc, square, triangle, cross)[kind]
            image[inside], classes[inside] = rng.choice([0.1, 0.9], 3), max(kind, 0)
        image += rng.normal(0, rng.uniform(0.02, 0.1), image.shape)
    return images.astype("float32"), labels


def train(model, data, epochs):
    """Keras' own training, with a rate that falls to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(5e-3, epochs * -(-len(data[1]) // 16))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(*data, batch_size=16, epochs=epochs, verbose=2)


def mean_iou(labels, logits):
    """Intersection over union, mean of the classes."""
    metric = keras.metrics.MeanIoU(len(CLASSES), sparse_y_pred=False)
    metric.update_state(labels, logits)
    return float(metric.result())


def main(count=4000, epochs=6):
    """Trains, prunes by three methods, fine-tunes and exports; returns the rows that it prints."""
    keras.utils.set_random_seed(0)
    data, (images, labels) = draw(count, seed=1), draw(300, seed=2)
    model = unet((48, 48, 3), num_classes=len(CLASSES), width=8, depth=3)
    train(model, data, epochs)
    rows = []
    for method in ("original", "dcp", "l1", "random"):
        small, before = model, None
        if method != "original":
            small = dcp_tf.Pruner(model, method, macs="50%").prune(data)
            before = mean_iou(labels, small.predict(images, verbose=0))
            train(small, data, -(-epochs // 3))
        after = mean_iou(labels, small.predict(images, verbose=0))
        result = dcp_tf.export(small, "runs/unet", ["int8"], calibration=data, test=images, name=method, runs=0)
        file = result.files["int8"]
        in_8_bits = mean_iou(labels, Runner(file).predict(images))
        rows.append((method, dcp_tf.count_cost(small).macs, before, after, in_8_bits, file.stat().st_size))
    print(f"{'mean IoU':10}{'MACs':>12}{'pruned':>10}{'trained':>10}{'int8 file':>10}{'bytes':>12}")
    for method, macs, before, after, in_8_bits, size in rows:
        before = "-" if before is None else f"{before:.1%}"
        print(f"{method:10}{macs:12,}{before:>10}{after:>10.1%}{in_8_bits:>10.1%}{size:12,}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="training images")
    parser.add_argument("--epochs", type=int, default=6, help="of the training; fine-tuning takes a third")
    main(**vars(parser.parse_args()))
