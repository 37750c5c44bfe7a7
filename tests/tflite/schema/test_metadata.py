"""What a file says about itself can be read again, by us and by the standard's readers, and changes no output."""

import contextlib
import io
import zipfile

import flatbuffers
import numpy as np
import pytest
import tflite_models as nets
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from dcp_tf import data, tflite
from dcp_tf.errors import UsageError
from dcp_tf.tflite.schema import flatbuffer, metadata_format

LABELS = ("cat", "dog", "Übergröße", "fox", "hen")


def described(mode="float32", labels=LABELS, normalization="imagenet", model=None):
    model = nets.residual() if model is None else model
    arguments = {"representative_data": nets.images()} if mode.startswith("int") else {}
    file = tflite.convert(model, mode, **arguments)
    about = tflite.image_metadata(model, mode, data.find_normalization(normalization), labels, "logits")
    return file, tflite.with_metadata(file, about), about


@pytest.mark.parametrize("mode", [mode.value for mode in nets.MODES])
def test_a_file_computes_the_same_and_is_as_large_but_for_the_text(mode):
    model = nets.zero_kernels(nets.residual()) if mode == "sparse" else nets.residual()
    plain, told, about = described(mode, model=model)
    assert tflite.read_metadata(told) == about
    assert tflite.read_metadata(plain) is None
    before, after = tflite.inspect(plain), tflite.inspect(told)
    assert after.size - before.size < 4096
    assert (after.operations, after.tensor_types, after.macs) == (before.operations, before.tensor_types, before.macs)
    images = nets.images(3)
    np.testing.assert_array_equal(tflite.Runner(told).predict(images), tflite.Runner(plain).predict(images))


def test_weights_stay_aligned_and_equal_models_give_equal_files(tmp_path):
    _, told, about = described()
    model = schema.Model.GetRootAs(told.content, 0)
    offsets = []
    for index in range(model.BuffersLength()):
        if model.Buffers(index).DataLength() > 8:
            offsets.append(told.content.find(model.Buffers(index).DataAsNumpy().tobytes()) % 16)
    assert len(offsets) > 10
    assert not any(offsets)
    assert tflite.with_metadata(told, about).content == told.content
    assert tflite.read_metadata(told.save(tmp_path / "a.tflite").path) == about


def test_normalization_is_that_of_pixels_up_to_255():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    for name in ("none", "unit", "raw", "cifar10", "imagenet", "tf", "caffe"):
        chosen = data.find_normalization(name)
        about = tflite.image_metadata(nets.residual(), "float32", chosen)
        ordered = pixels[..., ::-1] if about.channels == "BGR" else pixels
        by_hand = (ordered - np.array(about.mean)) / np.array(about.std)
        np.testing.assert_allclose(by_hand, chosen.apply(pixels, 255.0), rtol=1e-4, atol=1e-4)


class Table:
    """Reads the standard's flatbuffer with nothing but the numbers of its fields."""

    def __init__(self, content, position):
        self.table = flatbuffers.table.Table(bytearray(content), position)

    def _at(self, field):
        offset = self.table.Offset(4 + 2 * field)
        return offset and offset + self.table.Pos

    def text(self, field):
        return self.table.String(self._at(field)).decode()

    def byte(self, field):
        return self.table.Get(number_types.Uint8Flags, self._at(field))

    def child(self, field):
        return Table(self.table.Bytes, self.table.Indirect(self._at(field)))

    def children(self, field):
        offset = self.table.Offset(4 + 2 * field)
        start = self.table.Vector(offset)
        return [
            Table(self.table.Bytes, self.table.Indirect(start + 4 * i)) for i in range(self.table.VectorLen(offset))
        ]

    def floats(self, field):
        return self.table.GetVectorAsNumpy(number_types.Float32Flags, self.table.Offset(4 + 2 * field))


def standard(content):
    model = schema.Model.GetRootAs(content, 0)
    entries = {model.Metadata(i).Name().decode(): model.Metadata(i).Buffer() for i in range(model.MetadataLength())}
    raw = model.Buffers(entries["TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert raw[4:8] == b"M001"
    return Table(raw, int.from_bytes(raw[:4], "little"))


def test_the_standard_s_readers_find_labels_and_normalization():
    _, told, about = described("int8")
    root = standard(told.content)
    assert root.text(0) == about.model
    assert "int8" in root.text(1)
    (graph,) = root.children(3)
    (image,), (scores,) = graph.children(2), graph.children(3)
    assert image.child(3).byte(0) == 2  # an image,
    assert image.child(3).child(1).byte(0) == 1  # in RGB
    (unit,) = image.children(4)
    assert unit.byte(0) == 1
    np.testing.assert_allclose(unit.child(1).floats(0), [123.675, 116.28, 103.53])
    np.testing.assert_allclose(unit.child(1).floats(1), [58.395, 57.12, 57.375])
    (labels,) = scores.children(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)
    with zipfile.ZipFile(io.BytesIO(told.content)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(LABELS)


def test_labels_that_fit_no_output_are_not_tied_to_one():
    _, told, about = described(labels=("yes", "no"))
    (graph,) = standard(told.content).children(3)
    assert graph.children(3)[0].table.Offset(4 + 2 * 6) == 0
    assert not zipfile.is_zipfile(io.BytesIO(told.content))
    assert tflite.read_metadata(told).labels == about.labels


def test_inputs_that_are_no_images_have_no_normalization():
    about = tflite.image_metadata(nets.residual(), "float32", None, LABELS)
    assert (about.mean, about.channels, about.input_layout) == ((), None, None)
    told = tflite.with_metadata(tflite.convert(nets.residual()), about)
    (graph,) = standard(told.content).children(3)
    assert graph.children(2)[0].child(3).byte(0) == 1  # features


def test_a_file_that_holds_no_model_is_a_usage_error(tmp_path):
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(UsageError, match="not a TFLite model"):
        tflite.read_metadata(tmp_path / "text.tflite")


def foreign(mean, std, labels, stats=None):
    """A file as the standard's own writers describe it: the entry of the standard alone, and a file of labels."""
    file = tflite.convert(nets.sequential())
    builder = flatbuffers.Builder(1024)
    image = {0: "image", 3: {0: 2, 1: {0: 1}}, 4: [{0: 1, 1: {0: [mean], 1: [std]}}]}
    scores = {0: "probability", 3: {0: 1, 1: {}}, 6: [{0: "labels.txt", 2: 2}]} | ({5: stats} if stats else {})
    table = {0: "ImageClassifier", 3: [{2: [image], 3: [scores]}], 7: "1.0.0"}
    builder.Finish(metadata_format._table(builder, table), file_identifier=b"M001")
    model = flatbuffer.unpack(file.content)
    entry = schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers))
    model.buffers.append(schema.BufferT(data=np.frombuffer(bytes(builder.Output()), np.uint8)))
    model.metadata = [entry]
    stream = io.BytesIO(flatbuffer.pack(model))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", labels)
    return tflite.TFLiteFile(stream.getvalue(), file.quantization)


def test_files_of_other_tools_are_read():
    names = ("cat", "dog", "fox", "hen", "owl")
    numbered = "".join(f"{number} {name}\r\n" for number, name in enumerate(names))
    about = tflite.read_metadata(foreign(127.5, 127.5, numbered, {0: [1.0], 1: [0.0]}))
    assert (about.labels, about.normalization, about.outputs) == (names, "tf", "probabilities")
    about = tflite.read_metadata(foreign(120.0, 60.0, "\n".join(names)))
    assert (about.labels, about.normalization, about.mean, about.std) == (names, "mean/std", (120.0,), (60.0,))
    about = tflite.read_metadata(foreign(0.0, 0.0, "cat\ndog\n"))  # no std, and no name for each output
    assert (about.labels, about.normalization, about.outputs) == ((), None, None)


def test_metadata_that_are_overwritten_anywhere_are_one_error():
    file, random = foreign(1.0, 2.0, "a\nb\nc\nd\ne"), np.random.default_rng(0)
    start = file.content.find(b"M001") - 4
    for _ in range(100):
        content = bytearray(file.content)
        for position in random.integers(0, 250, random.integers(1, 12)):
            content[start + position] = random.integers(0, 256)
        with contextlib.suppress(UsageError):  # nothing else
            tflite.read_metadata(tflite.TFLiteFile(bytes(content), file.quantization))
