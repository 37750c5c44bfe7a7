"""Every program says how good the model is that it is given, and warns where it is at chance."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import dcp_tf
from dcp_tf.tools import compare, evaluate, export, finetune, prune
from dcp_tf.tools.app import baseline
from dcp_tf.training import TrainConfig

NONE = TrainConfig(epochs=0)
SHORT = ("--method=l1", "--rate=0.5", "--round_to=1", "--finetune_epochs=0", "--quantization=float32")
SHORT += ("--benchmark_runs=0",)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.round(images * 255 / 16).astype("uint8").reshape(-1, 8, 8, 1), labels


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A model that takes 0 to 255, which an augmentation model hides, and one that does not say what it takes."""
    folder = tmp_path_factory.mktemp("baseline_look")
    images, labels = digits
    arrays = {"x_train": images[:1400], "x_test": images[1400:]}
    np.savez(folder / "digits.npz", **arrays, y_train=labels[:1400], y_test=labels[1400:])
    np.savez(folder / "from_one.npz", **arrays, y_train=labels[:1400] + 1, y_test=labels[1400:] + 1)
    np.savez(folder / "no_zero.npz", **arrays, y_train=np.maximum(labels[:1400], 1), y_test=labels[1400:])
    keras.utils.set_random_seed(0)
    augmentation = keras.Sequential([layers.RandomTranslation(0.05, 0.05), layers.RandomRotation(0.02)])
    body = [layers.Conv2D(12, 3, activation="relu"), layers.Conv2D(16, 3, strides=2, activation="relu")]
    body += [layers.Flatten(), layers.Dense(10)]
    image = keras.Input((8, 8, 1))
    scaled = layers.Rescaling(1 / 255)(augmentation(image))
    model = keras.Sequential([keras.Input((8, 8, 1)), *body])
    both = keras.Model(image, model(scaled))
    both.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    both.fit(images[:1400].astype("float32"), labels[:1400], epochs=8, batch_size=32, verbose=0)
    both.save(folder / "hidden.keras")
    plain = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 1, name="scale"), *body])
    plain.get_layer("scale").set_weights([np.full((1, 1, 1, 1), 1 / 255), np.zeros(1)])
    plain.save(folder / "silent.keras")
    return folder


def run(program, folder, model, *flags, data="digits"):
    return program.run([f"--model={folder}/{model}.keras", f"--dataset=npz:{folder}/{data}.npz", *flags])


def test_the_range_behind_an_augmentation_model_is_known(folder, capsys):
    assert run(evaluate, folder, "hidden", "--json") == 0
    printed = capsys.readouterr()
    assert "pixels: 0 to 255" in printed.err
    assert "warning" not in printed.err
    assert json.loads(printed.out)["top1"] > 0.75


@pytest.mark.parametrize("program", [evaluate, export, finetune, pytest.param(compare, marks=pytest.mark.slow)])
def test_every_program_warns_and_names_the_flag(program, folder, tmp_path, capsys):
    flags = {
        evaluate: (),
        export: ("--quantization=float32", f"--output_dir={tmp_path}"),
        finetune: ("--finetune_epochs=1", f"--output_dir={tmp_path}"),
        compare: ("--methods=l1", "--seeds=1", "--rate=0.5", "--finetune_epochs=0", f"--output_dir={tmp_path}"),
    }
    assert run(program, folder, "silent", *flags[program]) == 0
    told = capsys.readouterr().err
    assert ": top1 0.1" in told.splitlines()[0 if program is not evaluate else 2]
    assert "give --normalization=raw" in told
    for path in tmp_path.glob("*.json"):
        check = json.loads(path.read_text())["baseline_check"]
        assert check["pixel_ranges"][0]["flags"] == "--normalization=raw"
        assert check["pixel_ranges"][0]["value"] > 0.75
        assert "warning" in check["warning"][0]


def test_a_run_goes_on_and_its_report_says_it(folder, tmp_path, capsys):
    assert run(prune, folder, "silent", *SHORT, f"--output_dir={tmp_path}") == 0
    told = capsys.readouterr().err
    assert told.startswith("baseline: top1 0.1")
    assert "on 397 images" in told.splitlines()[0]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["baseline_check"]["value"] == summary["baseline"]["top1"]
    assert "give --normalization=raw" in (tmp_path / "report.html").read_text()
    right = ("--normalization=raw", "--expected=0.8", f"--output_dir={tmp_path}/b")
    assert run(prune, folder, "silent", *SHORT, *right) == 0
    assert "warning" not in capsys.readouterr().err
    assert "likely cause" not in (tmp_path / "b" / "report.html").read_text()


def test_expectations_are_measured(folder, capsys):
    assert run(evaluate, folder, "hidden", "--expected=0.999") == 0
    assert "but 0.999 is expected" in capsys.readouterr().err
    assert run(evaluate, folder, "silent", "--normalization=tf", "--expected=0.9") == 0
    assert "but 0.9 is expected" in capsys.readouterr().err
    assert run(prune, folder, "hidden", *SHORT, "--expected=95", f"--output_dir={folder}/never") == 2
    assert "a fraction of 1" in capsys.readouterr().err
    assert not (folder / "never").exists()


def test_labels_from_1_are_one_line(folder, capsys):
    assert run(evaluate, folder, "hidden", data="from_one") == 2
    printed = capsys.readouterr().err
    assert "labels from 1 to 10; classes are numbered from 0: subtract 1" in printed
    assert len(printed.splitlines()) == 1
    assert run(evaluate, folder, "hidden", data="no_zero") == 0
    assert "none of the labels is 0: they run from 1 to 9" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [pytest.param(255.0, marks=pytest.mark.slow), 1.0])
def test_in_python_prune_warns_too(folder, digits, scale, capsys):
    images, labels = digits
    model = keras.models.load_model(folder / "silent.keras")
    images = (images * (scale / 255)).astype("float32")
    data, held_out = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
    method = dcp_tf.L1(rate=0.5, round_to=1)
    pipeline = tf.data.Dataset.from_tensor_slices(held_out).batch(64)
    for training, validation in ((data, held_out), (pipeline, None)):
        dcp_tf.prune(model, training, method, validation_data=validation, auxiliary=NONE, finetuning=NONE)
        told = capsys.readouterr().err
        assert told.startswith("baseline: top1")
        assert ("likely cause: the model takes other pixels, 0 to 255" in told) is (scale == 1.0)
        assert ("warning" in told) is (scale == 1.0)


@pytest.mark.parametrize(
    ("text", "with_flags"),
    [
        ("give normalization='tf'", "give --normalization=tf"),
        ("give mean=(0.5, 0.4, 0.5), std=(0.2, 0.2, 1e-05)", "give --mean=0.5,0.4,0.5 --std=0.2,0.2,1e-05"),
        ("give mean=(0.5,), std=(2.0,)", "give --mean=0.5 --std=2.0"),
        ("warning: the model is at chance", "warning: the model is at chance"),
    ],
)
def test_what_the_library_suggests_is_printed_as_flags(text, with_flags):
    assert baseline._with_flags(text) == with_flags
