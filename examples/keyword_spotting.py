"""A keyword spotter on spectrograms (DS-CNN): half of its multiply-accumulates, then 8 bits.

python examples/keyword_spotting.py
"""

import argparse

import keras
import numpy as np

import dcp_tf
from dcp_tf.models import ds_cnn
from dcp_tf.tflite import Runner

# A word is a pitch that moves between low (0), middle (1) and high (2), as syllables do.
MELODIES = [(a, b, c) for a in range(3) for b in range(3) for c in range(3)]
KEYWORDS = MELODIES[1:21:2]
OTHERS = [melody for melody in MELODIES if melody not in KEYWORDS]  # class 10, "unknown"; class 11 is silence


def record(count, seed):
    """Spectrograms (N, 49, 20, 1) of one second with a word, or without one, in noise, and their classes (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 12, count)
    time, spectrograms = np.arange(8000) / 8000, []
    for label in labels:
        melody = KEYWORDS[label] if label < 10 else OTHERS[rng.integers(len(OTHERS))]
        length, base = rng.uniform(0.45, 0.8), rng.uniform(300, 600)
        progress = (time - rng.uniform(0.02, 0.98 - length)) / length
        pitch = base * 2 ** (0.45 * np.interp(progress, np.linspace(0.1, 0.9, 3), melody) + rng.normal(0, 0.02))
        phase = 2 * np.pi * np.cumsum(pitch) / 8000
        voice = sum(rng.uniform(0.2, 1) * np.sin(harmonic * phase) for harmonic in (1, 2, 3))
        voice *= ((progress > 0) & (progress < 1)) * rng.uniform(0.3, 1) * (label < 11)
        hum = rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(100, 3500) * time)
        click = rng.normal(0, 1, 8000) * (np.abs(time - rng.uniform()) < 0.02)
        sound = voice + hum + click + rng.normal(0, rng.uniform(0.2, 0.9), 8000)
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, 128), 256)[::160][:49] * np.hanning(256)
        power = np.abs(np.fft.rfft(frames)[:, 1:81]) ** 2
        spectrograms.append(np.log(power.reshape(49, 20, 4).mean(-1) + 1e-3))
    spectrograms = np.stack(spectrograms)[..., None].astype("float32")
    return (spectrograms - 2.0) / 2.0, labels


def train(model, data, epochs):
    """Keras' own training, with a rate that falls to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(data[1]) // 32))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(*data, batch_size=32, epochs=epochs, verbose=2)


def main(count=4000, epochs=15):
    """Trains, prunes by three methods, fine-tunes and exports; returns the rows that it prints."""
    keras.utils.set_random_seed(0)
    data, test = record(count, seed=1), record(1000, seed=2)
    model = ds_cnn((49, 20, 1), num_classes=12)
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
            small, "runs/keyword_spotting", ["int8"], calibration=data, test=test, name=method, runs=0
        )
        file = result.files["int8"]
        in_8_bits = np.mean(np.argmax(Runner(file).predict(test[0]), -1) == test[1])
        rows.append((method, dcp_tf.count_cost(small).macs, before, after, in_8_bits, file.stat().st_size))
    print(f"{'accuracy':10}{'MACs':>12}{'pruned':>10}{'trained':>10}{'int8 file':>10}{'bytes':>12}")
    for method, macs, before, after, in_8_bits, size in rows:
        before = "-" if before is None else f"{before:.1%}"
        print(f"{method:10}{macs:12,}{before:>10}{after:>10.1%}{in_8_bits:>10.1%}{size:12,}")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="training recordings")
    parser.add_argument("--epochs", type=int, default=15, help="of the training; fine-tuning takes a third")
    main(**vars(parser.parse_args()))
