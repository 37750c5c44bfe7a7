"""`evaluate` of a .tflite file: what the file says about itself is used, wherever it lies and whoever wrote it."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image
from tool_inputs import plain_model, write_images

from dcp_tf import tflite
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tools import evaluate, export

COLORS = {"amber": (255, 190, 0), "blue": (0, 60, 255), "green": (0, 200, 30), "red": (220, 0, 0)}


def rescaling_model(shape=(8, 8, 3), units=4, activation=None):
    """A network that takes pixels of 0 to 255; on others all of its answers are the same."""
    import keras
    from keras import layers

    inner = plain_model(shape, units, activation)
    image = keras.Input(shape)
    return keras.Model(image, inner(layers.Rescaling(1 / 255)(image)), name="pixels")


def measured(capsys, *flags):
    assert evaluate.run([*flags, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """A folder of four classes of plain colours with noise."""
    root, random = tmp_path_factory.mktemp("colors") / "all", np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(color) + random.normal(0, 20, (8, 8, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    without = root.parent / "without_blue"
    shutil.copytree(root, without, ignore=shutil.ignore_patterns("blue"))
    return root, without


@pytest.fixture(scope="module")
def exported(colors, tmp_path_factory):
    """A trained network for those, and its int8 file in a folder where nothing else lies."""
    import keras

    folder = tmp_path_factory.mktemp("exported")
    keras.utils.set_random_seed(0)
    model = rescaling_model()
    images, labels = next(iter(keras.utils.image_dataset_from_directory(colors[0], image_size=(8, 8), batch_size=40)))
    model.compile(keras.optimizers.Adam(0.03), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, labels, epochs=60, verbose=0)
    model.save(folder / "pixels.keras")
    flags = [f"--model={folder}/pixels.keras", f"--dataset=folder:{colors[0]}", "--quantization=int8"]
    assert export.run(flags) == 0
    record = json.loads((folder / "export.json").read_text())["files"]["pixels_int8.tflite"]
    (folder / "moved").mkdir()
    (folder / "pixels_int8.tflite").rename(folder / "moved" / "a.tflite")
    return folder / "moved" / "a.tflite", record


def changed(path, target, change):
    """The file with other metadata entries: `change` gets name -> bytes and returns the same; the archive stays."""
    content = path.read_bytes()
    model = flatbuffer.unpack(content)
    entries = {entry.name.decode(): entry for entry in model.metadata}
    stored = change({n: np.asarray(model.buffers[e.buffer].data, np.uint8).tobytes() for n, e in entries.items()})
    model.metadata = [entry for name, entry in entries.items() if name in stored]
    for name, text in stored.items():
        model.buffers[entries[name].buffer] = schema.BufferT(data=np.frombuffer(text, np.uint8))
    stream = io.BytesIO(flatbuffer.pack(model))
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "a") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    target.write_bytes(stream.getvalue())
    return f"--model={target}"


def test_a_moved_file_is_measured_as_export_measured_it(exported, colors, capsys):
    path, record = exported
    found, said = measured(capsys, f"--model={path}", f"--dataset=folder:{colors[0]}")
    assert found["top1"] == record["top1"] > 0.9
    assert f"normalization: raw (from the metadata of {path}" in said


def test_flags_override_what_the_file_says(exported, colors, capsys):
    path, _ = exported
    found, said = measured(capsys, f"--model={path}", f"--dataset=folder:{colors[0]}", "--normalization=none")
    assert found["top1"] < 0.6
    assert "metadata" not in said


def test_a_data_set_without_one_of_the_classes_is_measured_by_names(exported, colors, capsys):
    path, _ = exported
    found, said = measured(capsys, f"--model={path}", f"--dataset=folder:{colors[1]}")
    assert found["top1"] > 0.9
    assert "classes: 3 of without_blue are among the 4 that the file names" in said


def test_classes_of_other_names_are_taken_by_their_order_and_that_is_said(exported, colors, tmp_path, capsys):
    shutil.copytree(colors[0], tmp_path / "renamed")
    (tmp_path / "renamed" / "blue").rename(tmp_path / "renamed" / "azure")
    _, said = measured(capsys, f"--model={exported[0]}", f"--dataset=folder:{tmp_path}/renamed")
    assert "renamed has others (azure): classes are taken by their order" in said


def test_the_standard_s_metadata_of_other_tools_do(exported, colors, tmp_path, capsys):
    path, _ = exported
    model = changed(path, tmp_path / "b.tflite", lambda entries: {"TFLITE_METADATA": entries["TFLITE_METADATA"]})
    assert tflite.read_metadata(tmp_path / "b.tflite").labels == tuple(COLORS)
    assert tflite.read_metadata(tmp_path / "b.tflite").normalization == "raw"
    for data in colors:
        found, _ = measured(capsys, model, f"--dataset=folder:{data}")
        assert found["top1"] > 0.9


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entries: {name: text[: len(text) // 2] for name, text in entries.items()},
        lambda entries: {name: bytes(len(text)) for name, text in entries.items()},
        lambda entries: {name: b"\xff" * len(text) for name, text in entries.items()},
        lambda entries: {"DCP_TF_METADATA": b"[]"},
    ],
)
def test_damaged_metadata_are_one_line_and_the_flags_do(spoil, exported, colors, tmp_path, capsys):
    path, record = exported
    model = changed(path, tmp_path / "b.tflite", spoil)
    found, said = measured(capsys, model, f"--dataset=folder:{colors[0]}", "--normalization=raw")
    assert found["top1"] == record["top1"]
    assert said.count("the metadata of") == 1
    assert "damaged" in said


@pytest.mark.parametrize(("units", "classes"), [(1, 2), (4, 4)])
def test_a_sigmoid_file_says_that_it_is_one(units, classes, tmp_path, capsys):
    write_images(tmp_path / "data.npz", classes=classes)
    rescaling_model(units=units, activation="sigmoid").save(tmp_path / "m.keras")
    data = f"--dataset=npz:{tmp_path}/data.npz"
    expected, _ = measured(capsys, f"--model={tmp_path}/m.keras", data, "--normalization=none")
    flags = [data, "--normalization=none", "--quantization=float32", f"--output_dir={tmp_path}/out"]
    assert export.run([f"--model={tmp_path}/m.keras", *flags]) == 0
    capsys.readouterr()
    found, _ = measured(capsys, f"--model={tmp_path}/out/m_float32.tflite", data)
    assert found == pytest.approx(expected, rel=1e-4)
