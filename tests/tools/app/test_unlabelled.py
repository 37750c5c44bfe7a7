"""Models without labels: the baseline's outputs are met, and how near a model and its files are to it is measured."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from dcp_tf import tflite
from dcp_tf.tools import export, finetune, prune

SHAPE = (12, 12, 3)
SHORT = ("--rate=0.3", "--round_to=1", "--method=l1", "--batch_size=32", "--benchmark_runs=0", "--finetune_lr=0.05")


def image_model(end):
    """An image-to-image net whose output holds a color cast, which a softmax over the channels would not see."""
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(3, 3, padding="same", bias_initializer=keras.initializers.Constant(0.8), activation=end)(x)
    return keras.Model(image, x)


def classifier():
    keras.utils.set_random_seed(1)
    image = keras.Input(SHAPE)
    x = layers.Conv2D(16, 3, activation="relu", kernel_initializer="random_normal")(image)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    return keras.Model(image, layers.Dense(5, activation="softmax")(layers.Flatten()(x)))


def vectors():
    model = classifier()
    return keras.Model(model.input, layers.Dense(6)(model.layers[-2].output))


CASES = {
    "linear images": (lambda: image_model(None), "mse", "baseline_r2", "numbers"),
    "sigmoid images": (lambda: image_model("sigmoid"), "sigmoid", "baseline_r2", "probabilities"),
    "classes": (classifier, "softmax", "baseline_agreement", "probabilities"),
    "vectors": (vectors, "mse", "baseline_r2", "numbers"),
}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.uniform(size=(96, *SHAPE)).astype("float32") for part in ("train", "test")}
    np.savez(tmp_path / "data.npz", **images)
    return images["x_test"], f"--dataset=npz:{tmp_path}/data.npz"


QUICK = ("linear images",)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in CASES])
def test_a_run_tells_how_near_the_pruned_model_is_to_the_baseline(case, data, tmp_path, capsys):
    make, loss, metric, outputs = CASES[case]
    images, dataset = data
    make().save(tmp_path / "own.keras")
    folder = tmp_path / "out"
    flags = [f"--model={tmp_path}/own.keras", dataset, *SHORT, f"--output_dir={folder}"]
    assert prune.run([*flags, "--finetune_epochs=3", "--quantization=float32"]) == 0
    printed = capsys.readouterr()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["loss"], summary["metric"]) == (loss, metric)
    before, after = (
        keras.models.load_model(folder / f"{n}.keras").predict(images, verbose=0) for n in ("baseline", "pruned")
    )
    pruned = summary["pruned"]
    assert pruned["baseline_mse"] == pytest.approx(np.square(after - before).mean(), rel=1e-3)
    if metric == "baseline_agreement":
        assert pruned[metric] == pytest.approx(np.mean(before.argmax(-1) == after.argmax(-1)))
        assert "Same as baseline" in printed.out
    else:
        assert pruned[metric] > (0.5 if before.ndim > 2 else -1)
        assert "R2 to baseline" in printed.out
        snr = 10 * np.log10(np.square(before).sum() / np.square(after - before).sum())
        assert pruned["baseline_snr_db"] == pytest.approx(snr, abs=0.05)
        assert ("warning: the outputs of the pruned model" in printed.err) is bool(snr < 15)
    if before.ndim == 2:
        assert "baseline_cosine" in pruned
    else:  # nothing was added to all channels
        assert abs((after - before).mean()) < 0.1 * before.std()
    own, file = (summary["tflite"][f"{name}_float32.tflite"] for name in ("baseline", "pruned"))
    assert file[metric] == pytest.approx(pruned[metric], abs=1e-3)
    assert own[metric] == pytest.approx(1)
    assert tflite.read_metadata(folder / "pruned_float32.tflite").outputs == outputs
    assert "baseline" in (folder / "report.html").read_text()


def test_fine_tuning_without_labels_is_measured_by_the_teacher(data, tmp_path, capsys):
    image_model(None).save(tmp_path / "teacher.keras")
    model = image_model(None)
    for layer in model.layers[1:]:
        layer.set_weights([weight * 0.9 for weight in layer.get_weights()])
    model.save(tmp_path / "own.keras")
    flags = [f"--model={tmp_path}/own.keras", f"--teacher={tmp_path}/teacher.keras", data[1], "--finetune_epochs=2"]
    assert finetune.run([*flags, "--batch_size=32", f"--output_dir={tmp_path}/out"]) == 0
    printed = capsys.readouterr()
    assert "before fine-tuning: baseline_r2" in printed.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pruned"]["baseline_r2"] > summary["pruned"]["baseline_r2_before_finetuning"]
    assert "nan" not in printed.out


def test_an_export_without_labels_shows_no_column_of_dashes(data, tmp_path, capsys):
    image_model(None).save(tmp_path / "own.keras")
    flags = [f"--model={tmp_path}/own.keras", data[1], "--quantization=float32", f"--output_dir={tmp_path}"]
    assert export.run(flags) == 0
    table = capsys.readouterr().out.split("SNR to Keras")
    assert len(table) == 2
    assert " dB" in table[1]
    assert "top-1" not in table[0]
