"""A classifier that reads an image and a row of numbers: half of its multiply-accumulates, then 8 bits.

The class is a shape and whether it is large. How large it looks depends on its distance and on the camera, which are in
the metadata, so neither input is enough.

    python examples/image_and_metadata.py
"""

import argparse

import keras
import numpy as np

import dcp_tf
from dcp_tf.models import image_and_metadata
from dcp_tf.tflite import Runner

ZOOM = np.array([0.7, 1.0, 1.4])  # of three cameras


def draw(count, seed):
    """Images (N, 48, 48, 3) of one shape, lines, a cross and noise, its distance and camera, and its class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    images = rng.uniform(0.4, 0.6, (count, 6, 6, 3)).repeat(8, 1).repeat(8, 2)
    labels, cameras = rng.integers(0, 6, count), rng.integers(0, 3, count)
    sizes = np.where(labels < 3, rng.uniform(0.55, 0.85, count), rng.uniform(1.1, 1.6, count))
    distances = rng.uniform(0.7, 1.4, count)
    for image, label, radius in zip(images, labels, 8 * sizes * ZOOM[cameras] / distances, strict=True):
        for kind in (4, 3, label % 3, 3):  # a line may cross the shape
            size = radius if kind < 3 else rng.uniform(4, 10)
            (cx, cy), angle = rng.uniform(14, 34, 2), rng.uniform(0, np.pi)
            u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
            v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
            low, high = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
            disc, square, triangle = u**2 + v**2 < size**2, high < size, (v > -size / 2) & (v < size - 1.7 * np.abs(u))
            line, cross = np.abs(v) < 1, (low < size / 4) & (high < size)
            image[(disc, square, triangle, line, cross)[kind]] = rng.choice([0.1, 0.9], 3)
        image += rng.normal(0, rng.uniform(0.02, 0.08), image.shape)
    metadata = np.concatenate([rng.normal(distances, 0.02)[:, None], np.eye(3)[cameras]], 1)
    return {"image": images.astype("float32"), "metadata": metadata.astype("float32")}, labels


def train(model, data, epochs):
    """Keras' own training, with a rate that falls to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(data[1]) // 32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(*data, batch_size=32, epochs=epochs, verbose=2)


def main(count=10000, epochs=6):
    """Trains, prunes by three methods, fine-tunes and exports; returns the rows that it prints."""
    keras.utils.set_random_seed(0)
    data, test = draw(count, seed=1), draw(1000, seed=2)
    model = image_and_metadata((48, 48, 3), num_classes=6, metadata=4, alpha=0.5)
    train(model, data, epochs)
    rows = []
    for method in ("original", "dcp", "l1", "random"):
        small, before = model, None
        if method != "original":
            small = dcp_tf.Pruner(model, method, macs="50%").prune(data)
            before = small.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
            train(small, data, -(-epochs // 3))
        after = small.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
        result = dcp_tf.export(
            small, "runs/image_and_metadata", ["int8"], calibration=data, test=test, name=method, runs=0
        )
        file = result.files["int8"]
        logits = Runner(file).predict([test[0]["image"], test[0]["metadata"]])
        in_8_bits = np.mean(np.argmax(logits, -1) == test[1])
        rows.append((method, dcp_tf.count_cost(small).macs, before, after, in_8_bits, file.stat().st_size))
    print(f"{'accuracy':10}{'MACs':>12}{'pruned':>10}{'trained':>10}{'int8 file':>10}{'bytes':>12}")
    for method, macs, before, after, in_8_bits, size in rows:
        before = "-" if before is None else f"{before:.1%}"
        print(f"{method:10}{macs:12,}{before:>10}{after:>10.1%}{in_8_bits:>10.1%}{size:12,}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10000, help="training images")
    parser.add_argument("--epochs", type=int, default=6, help="of the training; fine-tuning takes a third")
    main(**vars(parser.parse_args()))
