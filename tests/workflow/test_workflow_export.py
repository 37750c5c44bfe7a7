"""`export`: files that were run and compared, in one call."""

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((40, 8, 8, 1), dtype="float32")
NUMBERS = RNG.random((40, 3), dtype="float32")


def network(size=8, filters=4):
    keras.utils.set_random_seed(1)
    image = keras.Input((size, size, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(filters, 3, activation="relu")(image))
    return keras.Model(image, keras.layers.Dense(3, activation="softmax")(x), name="small")


def two_inputs():
    keras.utils.set_random_seed(1)
    image, numbers = keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="numbers")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.Concatenate()([x, numbers])
    outputs = {"classes": keras.layers.Dense(3, name="classes")(x), "box": keras.layers.Dense(2, name="box")(x)}
    return keras.Model({"image": image, "numbers": numbers}, outputs, name="pair")


def test_prelus_of_8_bits_are_replaced_where_that_is_asked_for(tmp_path):
    image = keras.Input((8, 8, 1))
    x = keras.layers.PReLU("random_uniform", shared_axes=[1, 2])(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="slopes")
    result = dcp_tf.export(model, tmp_path, calibration=IMAGES, replace_prelu=True, runs=0, verbose=0)
    float32, int8 = (result.records[f"slopes_{mode}.tflite"] for mode in ("float32", "int8"))
    assert float32["operations"]["PRELU"] == 1
    assert "replaced_prelus" not in float32
    assert int8["operations"]["MAXIMUM"] == 1
    assert "PRELU" not in int8["operations"]
    assert int8["replaced_prelus"] == 1


def test_files_are_written_compared_and_measured_in_one_call(tmp_path, capfd):
    model = network()
    labels = model.predict(IMAGES, verbose=0).argmax(-1)
    capfd.readouterr()
    modes = ["float32", "int8"]
    result = dcp_tf.export(
        model,
        tmp_path / "new",
        modes,
        calibration=IMAGES,
        test=(IMAGES, labels),
        baseline=network(8, 16),
        runs=10,
        verbose=0,
    )
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(result.records)
    assert sorted(result.records) == [f"{n}_{m}.tflite" for n in ("baseline", "small") for m in modes]
    record = result.records["small_float32.tflite"]
    assert (record["top1"], record["samples"]) == (1.0, 40)
    assert (
        record["bytes"] == result.files["float32"].stat().st_size < result.records["baseline_float32.tflite"]["bytes"]
    )
    expected = tflite.convert(model, "int8", representative_data=IMAGES)
    file = tflite.Runner(result.files["int8"]).predict(IMAGES[:4])
    assert np.allclose(file, tflite.Runner(expected).predict(IMAGES[:4]), atol=0.01)
    assert result.latency["int8"].latencies.keys() == {"baseline_int8.tflite", "small_int8.tflite"}
    result.summary()
    result.latency["int8"].summary()
    axes = result.plot().axes[0]
    assert axes.get_ylabel() == "top-1 (%)"
    assert len([line for line in axes.lines if len(line.get_xdata()) and line.get_marker() not in ("None", "")]) == 4
    assert "small_int8.tflite" in result._repr_html_()
    (axes,) = result.latency["int8"].plot().axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [
        round(x.median_ms, 6) for x in result.latency["int8"].latencies.values()
    ]
    text = capfd.readouterr().out
    assert "small_int8.tflite" in text
    assert "median ms" in text
    assert "100.00%" in text


def test_open_sizes_and_several_inputs_and_outputs_are_taken(tmp_path):
    result = dcp_tf.export(network(None), tmp_path, "float32", test=IMAGES, runs=0, verbose=0)
    assert tflite.inspect(result.files["float32"]).inputs[0].shape == (1, 8, 8, 1)
    data = {"image": IMAGES, "numbers": NUMBERS}, {"classes": np.arange(40) % 3, "box": NUMBERS[:, :2]}
    result = dcp_tf.export(two_inputs(), tmp_path, ["float32", "int8"], test=data, runs=0, verbose=0)
    assert result.records["pair_float32.tflite"]["max_error"] < 1e-3
    assert len(tflite.inspect(result.files["int8"]).outputs) == 2


def test_a_file_that_cannot_be_made_is_named_and_the_others_are_there(tmp_path):
    with pytest.raises(RunError, match=r"small_sparse.tflite: .*zero.*; written: small_float32.tflite"):
        dcp_tf.export(network(), tmp_path, ["sparse", "float32"], test=IMAGES, runs=0)
    assert [p.name for p in tmp_path.iterdir()] == ["small_float32.tflite"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"quantizations": ["int9"]}, "unknown quantization 'int9'; did you mean 'int8'"),
        ({"quantizations": []}, "say which files"),
        ({"test": None}, "give test"),
        ({"model": 3}, "expected a Keras 3 model"),
        ({"test": IMAGES[:, :4]}, "test"),
        ({"verbose": "no"}, "verbose must be 0"),
        ({"quantizations": None}, "quantizations must be a list"),
        ({"name": "a/b"}, "the beginning of a file's name"),
        ({"runs": -1}, "runs must be 0 or more"),
        ({"io": "uint8"}, "io must be one of float, int8"),
        ({"seed": "a"}, "seed must be a whole number"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, words):
    given = {"model": network(), "quantizations": ["float32"], "test": IMAGES, "runs": 0, **arguments}
    with pytest.raises(UsageError, match=words):
        dcp_tf.export(folder=tmp_path / "none", **given)
