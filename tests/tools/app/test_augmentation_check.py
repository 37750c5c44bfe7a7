"""Images are not changed at random where the model does not recognise them then, unless that is asked for."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from tool_inputs import SHORT

from dcp_tf import data
from dcp_tf.tools import export, finetune, prune
from dcp_tf.tools.app.augmentation_check import drop_harmful_augmentation
from dcp_tf.tools.cli.data_flags import ModelAndData
from dcp_tf.training import choose_objective

CLASSES = np.arange(160) % 4
NOTE = "the training images are not augmented (shift): the model's accuracy falls"


@pytest.fixture
def rows(tmp_path):
    """One bright pixel each; its row tells the class to one model, its color to the other."""
    images = np.zeros((160, 8, 8, 4), np.float32)
    images[np.arange(160), 2 * CLASSES, np.arange(160) % 7, CLASSES] = 1.0
    path = tmp_path / "rows.npz"
    np.savez(path, x_train=images, y_train=CLASSES, x_test=images, y_test=CLASSES)
    return path


def model(reads_rows):
    image = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 1, name="conv")
    x = conv(image)
    x = layers.Flatten()(x) if reads_rows else layers.GlobalMaxPooling2D()(x)
    found = keras.Model(image, layers.Dense(4, name="classes")(x))
    conv.kernel.assign(np.eye(4)[None, None])
    kernel = np.zeros((8, 8, 4, 4), np.float32)
    for row in range(4):
        kernel[2 * row, :, :, row] = 1.0
    found.get_layer("classes").kernel.assign(kernel.reshape(256, 4) if reads_rows else np.eye(4))
    return found


class Flags(dict):
    __getattr__ = dict.__getitem__


def looked_at(path, reads_rows, *, labels=True, **flags):
    network = model(reads_rows)
    images = data.load(f"npz:{path}", input_shape=(8, 8, 4))
    objective = choose_objective(network, images.train)
    if not labels:
        images = dataclasses.replace(images, train=dataclasses.replace(images.train, labels=None))
    given = Flags({"augmentation": None, "finetune_epochs": 1, "seed": 0} | flags)
    model_and_data = ModelAndData(network, images, "logits", "none", "m.keras", (), objective)
    return drop_harmful_augmentation(given, model_and_data)


@pytest.mark.parametrize("labels", [True, False])
def test_what_the_model_does_not_recognise_is_left_out_and_said(rows, labels):
    model_and_data = looked_at(rows, reads_rows=True, labels=labels)
    assert model_and_data.dataset.train.augmentation == "none"
    assert len(model_and_data.notes) == 1
    assert NOTE in model_and_data.notes[0]


@pytest.mark.parametrize("labels", [True, False])
def test_what_the_model_recognises_stays(rows, labels):
    model_and_data = looked_at(rows, reads_rows=False, labels=labels)
    assert model_and_data.dataset.train.augmentation == "shift"
    assert not model_and_data.notes


@pytest.mark.parametrize("flags", [{"augmentation": "shift"}, {"finetune_epochs": 0}])
def test_nothing_is_looked_at_that_was_asked_for_or_is_not_needed(rows, flags):
    assert looked_at(rows, reads_rows=True, **flags).dataset.train.augmentation == "shift"


def test_all_programs_that_train_say_it(rows, tmp_path, capsys):
    model(reads_rows=True).save(tmp_path / "rows.keras")
    flags = [f"--model={tmp_path / 'rows.keras'}", f"--dataset=npz:{rows}", f"--output_dir={tmp_path / 'out'}"]
    assert prune.run([*flags, *SHORT]) == 0
    assert NOTE in capsys.readouterr().err
    assert finetune.run([*flags, "--finetune_epochs=1", "--overwrite"]) == 0
    assert NOTE in capsys.readouterr().err
    assert export.run([*flags, "--quantization=float32"]) == 0
    assert NOTE not in capsys.readouterr().err
    assert export.run([*flags, "--quantization=qat"]) == 0
    assert NOTE in capsys.readouterr().err
