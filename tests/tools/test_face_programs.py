"""Faces through the programs: training, pruning, fine-tuning, verification on pairs, and export of embeddings."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from tool_inputs import SHORT

from dcp_tf.tools import evaluate, export, finetune, prune, train
from dcp_tf.tools.cli import data_flags, face_flags

SIZE = (16, 16)
PEOPLE, IMAGES, FOLDS = 12, 6, 3


def face(person, number, size=SIZE):
    """A pattern that tells the person, under noise that tells the image."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    pattern = np.sin(rows[..., None] * (1 + person % 4) / 3 + columns[..., None] * (1 + person // 4) / 3 + np.arange(3))
    noise = np.random.default_rng(100 * person + number).normal(0, 20, (*size, 3))
    return np.clip(128 + 90 * pattern + noise, 0, 255).astype(np.uint8)


def write_faces(root, people=PEOPLE, images=IMAGES, size=SIZE):
    for person in range(people):
        folder = root / f"p{person:02}"
        folder.mkdir(parents=True)
        for number in range(1, images + 1):
            Image.fromarray(face(person, number, size)).save(folder / f"p{person:02}_{number:04}.png")
    return root


def write_pairs(path):
    """Three folds of four and four pairs; each fold shows two people of its own, p00 to p05."""
    lines = [f"{FOLDS}\t4"]
    for fold in range(FOLDS):
        one, other = (f"p{2 * fold + number:02}" for number in (0, 1))
        lines += [f"{name}\t{first}\t{first + 1}" for name in (one, other) for first in (1, 3)]
        lines += [f"{one}\t{number}\t{other}\t{number + 1}" for number in range(1, 5)]
    path.write_text("\n".join(lines) + "\n")
    return path


def embedding_network(size=SIZE):
    """BatchNorm first, PReLU, a depthwise convolution and a residual unit; an embedding of 8 values."""
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((*size, 3))
    stem = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(image)
    x = layers.BatchNormalization(name="first_bn")(stem)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(layers.Conv2D(16, 1, use_bias=False, name="expand")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="depthwise_prelu")(layers.BatchNormalization(name="depthwise_bn")(x))
    x = layers.BatchNormalization(name="project_bn")(layers.Conv2D(8, 1, use_bias=False, name="project")(x))
    x = layers.Add(name="sum")([stem, x])
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="last")(x)
    x = layers.DepthwiseConv2D(4, use_bias=False, name="head_depthwise")(x)
    return keras.Model(image, layers.Dense(8, name="embedding")(layers.Flatten(name="flat")(x)), name="tiny_face")


class Faces:
    """A folder of people, pairs, and a network, as flags."""

    def __init__(self, folder):
        self.folder = folder
        self.root = write_faces(folder / "faces")
        self.pairs = (f"--pairs={write_pairs(folder / 'pairs.txt')}", f"--pairs_root={self.root}")
        self.data = (f"--dataset=faces:{self.root}", "--normalization=face")
        embedding_network().save(folder / "tiny.keras")
        self.model = f"--model={folder / 'tiny.keras'}"


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return Faces(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def pruned(faces, tmp_path_factory):
    """The folder of a whole run of `prune` with pairs."""
    folder = tmp_path_factory.mktemp("run") / "out"
    flags = (*SHORT, "--quantization=float32,int8", "--finetune_epochs=2", f"--output_dir={folder}")
    assert prune.run([faces.model, *faces.data, *faces.pairs, *flags]) == 0
    return folder


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_train_prune_and_verify_a_network_of_ours(faces, tmp_path, capsys):
    """`train` leaves the embedding network alone, in plain Keras; its run tells `evaluate` what it was trained on."""
    flags = ("--model=zoo:spherenet4", faces.data[0], *faces.pairs, "--epochs=2", "--batch_size=16")
    assert train.run([*flags, "--learning_rate=0.01", f"--output_dir={tmp_path}"]) == 0
    told = capsys.readouterr()
    assert "people of the pairs are left out" in told.err
    summary = summary_of(tmp_path)
    assert (summary["loss"], summary["metric"]) == ("arcface", "verification_accuracy")
    assert summary["normalization"] == "face"
    model = keras.models.load_model(tmp_path / "baseline.keras")
    assert model.output_shape == (None, 512)
    assert not any("margin" in layer.name for layer in model.layers)
    assert evaluate.run([f"--model={tmp_path}/baseline.keras", *faces.pairs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verification_accuracy"] == pytest.approx(summary["baseline"]["verification_accuracy"])
    assert found["verification"]["folds"] == [1, 2, 3]


def test_prune_verifies_all_models_and_files(pruned, capsys):
    summary = summary_of(pruned)
    assert (summary["loss"], summary["metric"]) == ("arcface", "verification_accuracy")
    measured = [summary["baseline"], summary["pruned"], *summary["tflite"].values()]
    assert len(measured) == 6
    for each in measured:
        assert 0 <= each["verification_accuracy"] <= 1
        assert len(each["verification"]["fold_accuracies"]) == FOLDS
    for record in summary["tflite"].values():
        low, high = (0.999, 1) if record["quantization"] == "float32" else (0.5, 0.9)
        assert record["cosine_min"] > low
        assert record["cosine_mean"] >= max(high if high < 1 else low, record["cosine_min"])
    assert summary["pruned"]["params"] < summary["baseline"]["params"]
    assert "verification_accuracy_before_finetuning" in summary["pruned"]
    assert keras.models.load_model(pruned / "pruned.keras").output_shape == (None, 8)
    page = (pruned / "report.html").read_text()
    assert "Verification" in page
    assert "Least cosine" in page
    assert "Top-1" not in page


def test_evaluate_finds_what_the_run_found(pruned, faces, capsys):
    summary = summary_of(pruned)
    expected = {"pruned.keras": summary["pruned"], "pruned_int8.tflite": summary["tflite"]["pruned_int8.tflite"]}
    for file, record in expected.items():
        assert evaluate.run([f"--model={pruned}/{file}", *faces.pairs]) == 0
        told = capsys.readouterr()
        assert f"verification_accuracy {record['verification_accuracy']:.4f}" in told.out
        assert "fold 3" in told.out
        assert "normalization: face" in told.err
    assert evaluate.run([f"--model={pruned}/pruned.keras", *faces.pairs, "--pairs_folds=2,3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verification"]["folds"], found["images"]) == ([2, 3], 18)


def test_finetune_and_export_show_verification(pruned, faces, tmp_path, capsys):
    flags = (faces.data[0], *faces.pairs, f"--output_dir={tmp_path}")
    teacher = (f"--teacher={pruned}/baseline.keras", "--distillation=0.5")
    short = ("--finetune_epochs=1", "--batch_size=32")
    assert finetune.run([f"--model={pruned}/pruned.keras", *flags, *teacher, *short]) == 0
    assert "verification_accuracy" in capsys.readouterr().out
    assert "verification" in summary_of(tmp_path)["pruned"]
    assert export.run([f"--model={tmp_path}/pruned.keras", *flags, "--quantization=float16"]) == 0
    assert "Verification" in capsys.readouterr().out
    record = json.loads((tmp_path / "export.json").read_text())["files"]["pruned_float16.tflite"]
    assert record["cosine_min"] > 0.99
    assert record["verification"]["folds"] == [1, 2, 3]


def test_people_of_the_pairs_are_not_trained_on(faces):
    flags = parsed(prune, *faces.data, *faces.pairs, "--pairs_folds=1,2")
    assert face_flags.face_settings(flags).leave_out == ("p00", "p01", "p02", "p03")
    elsewhere = parsed(prune, *faces.data, faces.pairs[0], f"--pairs_root={faces.folder}")
    model_and_data = data_flags.load_model_and_data(parsed(prune, faces.model, *faces.data, *faces.pairs))
    assert set(model_and_data.dataset.class_names) == {f"p{person:02}" for person in range(6, PEOPLE)}
    # Nothing of those who remain is set aside: they are measured on nothing.
    assert model_and_data.dataset.train.size == 6 * IMAGES
    assert model_and_data.dataset.train.labels.tolist().count(0) == IMAGES
    assert elsewhere.pairs_root != str(faces.root)


def test_people_of_the_pairs_who_are_learnt_from_elsewhere_are_told_of(faces, tmp_path):
    elsewhere = write_faces(tmp_path / "copies", people=3)
    data = (f"--dataset=faces:{elsewhere}", "--normalization=face")
    notes = data_flags.load_model_and_data(parsed(prune, faces.model, *data, *faces.pairs)).notes
    assert any("3 people of the pairs are learned too, such as p00" in note for note in notes)
    notes = data_flags.load_model_and_data(parsed(prune, faces.model, *faces.data, *faces.pairs)).notes
    assert not any("learned too" in note for note in notes)


def test_lists_choose_the_people(faces, tmp_path):
    (tmp_path / "keep.txt").write_text("p06\np07\np08\n")
    (tmp_path / "leave.txt").write_text("p07\n")
    lists = (f"--keep_identities={tmp_path}/keep.txt", f"--leave_out_identities={tmp_path}/leave.txt")
    model_and_data = data_flags.load_model_and_data(parsed(prune, faces.model, *faces.data, *faces.pairs, *lists))
    assert model_and_data.dataset.class_names == ("p06", "p08")


def parsed(program, *arguments):
    import copy

    flags = copy.deepcopy(program.PROGRAM.flags)
    flags([program.PROGRAM.name, *arguments])
    return flags


def refused(capsys, program, *arguments):
    assert program.run([*arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_one_clear_line_for_each_mistake(faces, tmp_path, capsys, inputs):
    pairs, root = faces.pairs
    out = f"--output_dir={tmp_path / 'out'}"
    cases = (
        ((evaluate, faces.model, pairs), "--pairs needs --pairs_root=DIR"),
        ((evaluate, faces.model, root), "--pairs_root goes with --pairs=FILE"),
        ((evaluate, faces.model, f"--pairs={tmp_path}/none.txt", root), "none.txt cannot be read"),
        ((evaluate, faces.model, pairs, f"--pairs_root={tmp_path}/none"), "there is no folder"),
        ((evaluate, faces.model, pairs, root, *faces.data), "either --dataset or --pairs"),
        ((evaluate, faces.model, pairs, root, "--pairs_folds=2"), "two folds or more"),
        ((evaluate, faces.model, pairs, root, "--pairs_folds=2,x"), "takes numbers"),
        ((evaluate, faces.model, pairs, root, "--pairs_folds=2,9"), "has the folds 1 to 3"),
        ((evaluate, faces.model, pairs, root, "--loss=softmax"), "is not an embedding network"),
        ((evaluate, inputs.residual, pairs, root), "is not an embedding network"),
        ((evaluate, inputs.plain, pairs, root, "--min_images=3"), "goes with --dataset=faces:DIR"),
        ((prune, inputs.plain, inputs.data(), pairs, root, out), "is not an embedding network"),
        ((prune, faces.model, inputs.data("larger"), "--min_images=3", out), "goes with --dataset=faces:DIR"),
        ((prune, inputs.plain, *faces.data, out), "16 x 16 pixels (height x width), but the model takes 8 x 8"),
        ((prune, faces.model, *faces.data, "--min_images=7", out), "12 people, but 0 of them remain"),
        ((prune, faces.model, *faces.data, out), "give --pairs to verify them"),
        ((train, "--model=zoo:spherenet4", *faces.data[:1], out), "give --pairs to verify them"),
        ((train, "--model=zoo:spherenet4", "--dataset=faces:none", out), "there is no such folder"),
    )
    for (program, *arguments), expected in cases:
        assert expected in refused(capsys, program, *arguments)
    assert not (tmp_path / "out").exists()


def test_training_models_are_told_to_leave_their_head_behind(faces, tmp_path, capsys):
    """One takes labels as a second input, one ends in logits over the people."""
    network = embedding_network()
    label = keras.Input((1,), dtype="int32", name="label")
    logits = keras.layers.Dense(6, name="logits")(network.output)
    own = keras.ops.one_hot(keras.ops.squeeze(label, 1), 6)
    keras.Model([network.input, label], logits - 0.35 * own).save(tmp_path / "labels.keras")
    keras.Model(network.input, logits).save(tmp_path / "logits.keras")
    with_labels, with_logits = (f"--model={tmp_path}/{name}.keras" for name in ("labels", "logits"))
    out = f"--output_dir={tmp_path / 'out'}"
    the_part = "keras.Model(model.inputs[0], model.get_layer(NAME).output).save('x.keras')"
    assert the_part in refused(capsys, evaluate, with_labels, *faces.pairs)
    assert the_part in refused(capsys, prune, with_labels, *faces.data, *faces.pairs, out)
    refusal = refused(capsys, prune, with_logits, *faces.data, *faces.pairs, out)
    assert "as many outputs as there are people, 6: say --loss=softmax" in refusal
    assert the_part in refused(capsys, prune, with_logits, *faces.data, *faces.pairs, "--loss=softmax", out)
    flags = parsed(prune, with_logits, *faces.data, *faces.pairs, "--loss=arcface")
    assert "ArcFace over 6 classes" in data_flags.load_model_and_data(flags).objective.describe()
    model_and_data = data_flags.load_model_and_data(parsed(prune, faces.model, *faces.data, *faces.pairs))
    assert any("the 8 outputs being an embedding" in note for note in model_and_data.notes)


def test_faces_of_another_size_are_stretched_where_asked(faces, tmp_path, capsys):
    larger = write_faces(tmp_path / "larger", people=6, size=(20, 16))
    flags = (faces.model, faces.pairs[0], f"--pairs_root={larger}", "--normalization=face")
    assert "20 x 16 pixels" in refused(capsys, evaluate, *flags)
    for person in range(6):  # the first image has the size that the model takes, others have not
        Image.fromarray(face(person, 1)).save(larger / f"p{person:02}" / f"p{person:02}_0001.png")
    assert "_0002.png has 20 x 16 pixels" in refused(capsys, evaluate, *flags)
    trained_on = (f"--dataset=faces:{larger}", *faces.pairs, f"--output_dir={tmp_path / 'out'}")
    assert "_0002.png has 20 x 16 pixels" in refused(capsys, prune, faces.model, *trained_on)
    assert evaluate.run([*flags, "--resize", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 27
