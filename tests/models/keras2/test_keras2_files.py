"""Files of Keras 2 in all the forms in which its versions wrote them."""

import pathlib
import re
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras2_nets import assert_same, model_of, randomized
from tf_keras import layers

from dcp_tf import models
from dcp_tf.errors import UsageError
from dcp_tf.models.keras2 import operations

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
WEIGHTS = "model.weights.h5"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained model that holds a nested one, a shared layer and a wrapper, and its file."""
    inside = tf_keras.Input((8, 8, 4))
    inner = tf_keras.Model(inside, layers.Conv2D(4, 1)(layers.BatchNormalization()(layers.Conv2D(4, 1)(inside))))
    shared = layers.Conv2D(4, 3, padding="same")
    inputs = tf_keras.Input((8, 8, 4))
    x = shared(layers.ReLU()(shared(inputs)))
    x = layers.Conv2D(4, 3, padding="same")(inner(x))
    x = layers.Bidirectional(layers.GRU(3))(layers.Reshape((-1, 4))(layers.Cropping2D(3)(x)))
    model = randomized(tf_keras.Model(inputs, layers.Dense(2)(layers.Dense(3)(x))))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 8, 8, 4)), np.ones((2, 2)), verbose=0)  # the file holds an optimizer and metrics too
    path = tmp_path_factory.mktemp("keras2") / "new.keras"
    model.save(path)
    return model, path


def refile(source, target, rename):
    """Copies a .keras archive with other paths to its weights; `rename` takes a path with slashes."""
    target_weights = pathlib.Path(target).with_suffix(".h5")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name != WEIGHTS:
                new.writestr(name, old.read(name))
        with old.open(WEIGHTS) as stream, h5py.File(stream) as file, h5py.File(target_weights, "w") as renamed:
            file.visititems(lambda path, item: _copy(path, item, renamed, rename))
        new.write(target_weights, WEIGHTS)


def _copy(path, item, file, rename):
    if isinstance(item, h5py.Dataset):
        *group, name = rename(path).rsplit("/vars/", 1)
        file.create_group("/".join(group) + "/vars") if "/".join(group) + "/vars" not in file else None
        file["/".join(group) + "/vars"][name] = item[()]


def as_of_2_14(path):
    return path.replace("layers/", "_layer_checkpoint_dependencies/")


def as_of_2_13(path):
    """Counts each layer with weights twice."""

    def double(match):
        return f"_layer_checkpoint_dependencies/{match[1]}" + (f"_{2 * int(match[2])}" if match[2] else "")

    return re.sub(r"layers/(\w+?)(?:_(\d+))?(?=/)", double, path)


def as_on_windows(path):
    group, name = path.rsplit("/vars/", 1)
    return group.replace("/", "\\") + "/vars/" + name


FORMS = {
    "2.14": as_of_2_14,
    "2.13": as_of_2_13,
    "Windows": as_on_windows,
    "2.13 on Windows": lambda path: as_on_windows(as_of_2_13(path)),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_under_the_names_of_other_versions(form, tmp_path, trained):
    old, path = trained
    refile(path, tmp_path / "old.keras", FORMS[form])
    with zipfile.ZipFile(tmp_path / "old.keras") as archive, archive.open(WEIGHTS) as stream, h5py.File(stream) as file:
        names = set()
        file.visit(names.add)
    assert any("\\" in name or "_layer_checkpoint_dependencies" in name for name in names)
    assert {"optimizer", "metrics"} < {re.split(r"[/\\]", name)[0] for name in names}
    assert_same(old, models.load(str(tmp_path / "old.keras")).model)


def test_weights_that_no_version_files_so_are_refused(tmp_path, trained):
    refile(trained[1], tmp_path / "odd.keras", lambda path: as_of_2_14(path).replace("dense_1", "dense_7"))
    with pytest.raises(UsageError, match=r"odd\.keras files its weights .* save it again as \.h5"):
        models.load(str(tmp_path / "odd.keras"))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_spectral_normalization(suffix, tmp_path, monkeypatch):
    # tf_keras makes this layer only where `tf.keras` is Keras 2.
    monkeypatch.setattr(tf.keras.layers, "InputSpec", layers.InputSpec)
    wrapped = layers.SpectralNormalization(layers.Conv2D(3, 3, activation="hard_sigmoid"), power_iterations=2)
    old = model_of(lambda x: layers.Dense(2)(wrapped(x - 0.5)))
    old.save(tmp_path / f"old{suffix}")
    monkeypatch.undo()
    new = models.load(str(tmp_path / f"old{suffix}")).model
    assert_same(old, new)
    (layer,) = [layer for layer in new.layers if isinstance(layer, keras.layers.SpectralNormalization)]
    assert layer.power_iterations == 2
    np.testing.assert_array_equal(np.asarray(layer.vector_u), np.asarray(wrapped.vector_u))


def dice(labels, outputs):
    return 1.0 - labels * outputs


def test_how_a_model_was_compiled_does_not_matter(tmp_path):
    old = model_of(lambda x: layers.Conv2D(3, 1)(x))
    for loss in (dice, tf_keras.losses.mean_squared_error):
        old.compile("adam", loss=loss, metrics=[dice])
        for suffix in (".keras", ".h5"):
            old.save(tmp_path / f"old{suffix}")
            assert_same(old, models.load(str(tmp_path / f"old{suffix}")).model)


@pytest.mark.parametrize("version", [2, 3])
def test_a_file_under_the_suffix_of_the_other_format(version, tmp_path):
    library = tf_keras if version == 2 else keras
    model = library.Sequential([library.layers.Input((4,)), library.layers.Dense(3)])
    for suffix, other in ((".h5", ".keras"), (".keras", ".h5"), (".keras", ".hdf5")):
        model.save(tmp_path / f"a{suffix}")
        shutil.move(tmp_path / f"a{suffix}", tmp_path / f"b{other}")
        loaded = models.load(str(tmp_path / f"b{other}")).model
        images = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
        np.testing.assert_allclose(np.asarray(loaded(images)), np.asarray(model(images)), atol=1e-6)


def test_what_is_no_model_file_is_refused_whatever_its_suffix(tmp_path):
    for suffix in (".keras", ".h5"):
        (tmp_path / f"text{suffix}").write_text("no model")
        with pytest.raises(UsageError, match=f"is no {suffix} file, or a damaged one"):
            models.load(str(tmp_path / f"text{suffix}"))


def steep(seed):
    """A model that magnifies rounding: BatchNormalization divides by small deviations, twelve times."""
    random = np.random.default_rng(seed)
    inputs = x = tf_keras.Input((16, 16, 3))
    for _ in range(12):
        x = layers.Conv2D(16, 3, padding="same")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    model = tf_keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_variance.assign(random.uniform(0.005, 0.015, 16))
    return model


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_no_difference(seed):
    tf_keras.utils.set_random_seed(seed)
    old = steep(seed)
    new = models.from_tf_keras(old)
    for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_real_difference_in_a_steep_model_is_one(monkeypatch):
    monkeypatch.setitem(operations.OPERATIONS, "nn.relu", lambda features: keras.ops.relu(features) + 0.3)
    old = steep(0)
    inputs = tf_keras.Input((16, 16, 3))
    with pytest.raises(UsageError, match="computes something else"):
        models.from_tf_keras(tf_keras.Model(inputs, old(tf.nn.relu(inputs))))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_half_precision_is_compared_in_float32(suffix, tmp_path):
    half = tf_keras.mixed_precision.Policy("mixed_float16")
    inputs = x = tf_keras.Input((12, 12, 3))
    for width in (16, 32):
        x = layers.Conv2D(width, 3, activation="relu", dtype=half)(x)
    x = layers.BatchNormalization(dtype=half)(x)
    old = tf_keras.Model(inputs, layers.Dense(4, dtype="float32")(layers.GlobalAveragePooling2D(dtype=half)(x)))
    randomized(old)
    assert {layer.dtype_policy.compute_dtype for layer in models.from_tf_keras(old).layers} == {"float16", "float32"}
    old.save(tmp_path / f"half{suffix}")
    loaded = models.load(str(tmp_path / f"half{suffix}")).model
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    for a, b in zip(old.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
