"""A detector of shapes on MobileNetV2: half of its multiply-accumulates, then 8 bits. python examples/detector.py"""

import argparse

import keras
import numpy as np
import tensorflow as tf

import dcp_tf
from dcp_tf.models import detector_mobilenet_v2
from dcp_tf.tflite import Runner


def draw(count, seed):
    """Images of one to three shapes among lines, crosses and noise; class and box of each of 8 x 8 cells; weights."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    images = rng.uniform(0.4, 0.6, (count, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    classes, boxes = np.zeros((count, 8, 8), "int32"), np.zeros((count, 8, 8, 4), "float32")
    for n, image in enumerate(images):
        for kind in rng.permutation([*rng.integers(1, 4, rng.integers(1, 4)), 0, 0, -1, -1]):
            (cx, cy), radius, angle = rng.uniform(12, 52, 2), rng.uniform(7, 13), rng.uniform(0, np.pi)
            u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            low, high = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
            disc, square = u**2 + v**2 < radius**2, high < 0.85 * radius
            triangle = (v > -radius / 2) & (v < radius - np.sqrt(3) * np.abs(u))
            line, cross = np.abs(v) < 1, (low < radius / 4) & (high < radius)
            inside = (line, disc, square, triangle, cross)[kind]
            image[inside] = rng.choice([0.1, 0.9], 3)
            if kind > 0:  # the cell of the center gives class and box
                cell = n, int(cy) // 8, int(cx) // 8
                xs, ys, middle_x, middle_y = x[inside], y[inside], 8 * cell[2] + 4, 8 * cell[1] + 4
                sides = middle_x - xs.min(), middle_y - ys.min(), xs.max() + 1 - middle_x, ys.max() + 1 - middle_y
                classes[cell], boxes[cell] = kind, sides
        image += rng.normal(0, rng.uniform(0.02, 0.1), image.shape)
    weights = {"classes": np.where(classes > 0, 1, 0.1).astype("float32"), "boxes": (classes > 0).astype("float32")}
    return images.astype("float32"), {"classes": classes, "boxes": boxes / 8}, weights


def iou(true, pred):
    """Intersection over union of boxes around the same cell."""
    pred = keras.ops.relu(pred)
    both = keras.ops.minimum(true, pred)
    area, area_pred, shared = ((b[..., 0] + b[..., 2]) * (b[..., 1] + b[..., 3]) for b in (true, pred, both))
    return shared / keras.ops.maximum(area + area_pred - shared, 1e-6)


def train(model, train_ds, epochs):
    """Keras' own training, with a rate that falls to 0."""
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, epochs * len(train_ds))),
        loss={"classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "boxes": "huber"},
        loss_weights={"classes": 10.0, "boxes": 100.0},
        weighted_metrics={"classes": ["accuracy"], "boxes": [iou]},
    )
    model.fit(train_ds, epochs=epochs, verbose=2)


def measure(outputs, labels, weights):
    """Accuracy of the classes, and mean IoU of the boxes."""
    boxes, classes = keras.tree.flatten(outputs)  # in the order of model.outputs
    right, overlap = np.argmax(classes, -1) == labels["classes"], iou(labels["boxes"], boxes)
    return np.average(right, weights=weights["classes"]), np.average(overlap, weights=weights["boxes"])


def main(count=5000, epochs=12):
    """Trains, prunes by three methods, fine-tunes and exports; returns the rows that it prints."""
    keras.utils.set_random_seed(0)
    train_ds = tf.data.Dataset.from_tensor_slices(draw(count, seed=1)).shuffle(count).batch(32)
    images, *test = draw(400, seed=2)
    model = detector_mobilenet_v2((64, 64, 3), num_classes=4, alpha=0.5, width=64)
    train(model, train_ds, epochs)
    rows = []
    for method in ("original", "dcp", "l1", "random"):
        small, before = model, None
        if method != "original":
            small = dcp_tf.Pruner(model, method, macs="50%").prune(train_ds)
            before = measure(small.predict(images, verbose=0), *test)
            train(small, train_ds, -(-epochs // 3))
        after = measure(small.predict(images, verbose=0), *test)
        result = dcp_tf.export(small, "runs/detector", ["int8"], calibration=train_ds, test=images, name=method, runs=0)
        file = result.files["int8"]
        in_8_bits = measure(Runner(file).predict(images), *test)
        rows.append((method, dcp_tf.count_cost(small).macs, before, after, in_8_bits, file.stat().st_size))
    print(f"class accuracy, mean IoU\n{'':10}{'MACs':>12}{'pruned':>16}{'trained':>16}{'int8 file':>16}{'bytes':>12}")
    for method, macs, *pairs, size in rows:
        cells = "".join(f"{'-' if pair is None else f'{pair[0]:.1%}, {pair[1]:.1%}':>16}" for pair in pairs)
        print(f"{method:10}{macs:12,}{cells}{size:12,}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="training images")
    parser.add_argument("--epochs", type=int, default=12, help="of the training; fine-tuning takes a third")
    main(**vars(parser.parse_args()))
