"""`Pruner`: rounds of pruning around a user's own training, one plan for all, mistakes in one line."""

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)
LABELS = np.arange(192) % 3
IMAGES = (RNG.random((192, 8, 8, 1)) + np.eye(8)[None, :, :, None] * LABELS[:, None, None, None]).astype("float32")


def network():
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(16, 3, padding="same", name="stem")(image)
    for name in ("first", "second"):
        y = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name=f"{name}_in")(x)
        x = keras.layers.Add()([x, keras.layers.Conv2D(16, 3, padding="same", name=f"{name}_out")(y)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax", name="answer")(x), name="residual_net")
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def model():
    trained = network()
    trained.fit(IMAGES, LABELS, epochs=4, verbose=0)
    return trained


def equal(first, second):
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(first.variables, second.variables, strict=True))


def test_rounds_with_training_in_between_end_in_one_plan_for_the_original(model, capfd):
    before = model.get_weights()
    full = dcp_tf.count_cost(model).macs
    pruner = dcp_tf.Pruner(model, macs="70%", round_to=1, auxiliary_losses=1, verbose=0)
    assert pruner.model is model
    small = pruner.prune((IMAGES, LABELS), auxiliary=dcp_tf.TrainConfig(epochs=1))
    halfway = dcp_tf.count_cost(small).macs
    assert 0.6 * full < halfway <= 0.7 * full
    assert small.get_compile_config() == model.get_compile_config()
    history = small.fit(IMAGES, LABELS, epochs=4, verbose=0, class_weight={0: 1.0, 1: 2.0, 2: 1.0}).history
    assert history["loss"][-1] < history["loss"][0]
    trained = small.get_weights()
    smaller = pruner.step((IMAGES, LABELS), macs="80%", auxiliary=dcp_tf.TrainConfig(epochs=1))
    assert dcp_tf.count_cost(smaller).macs <= 0.8 * halfway
    assert pruner.result.model is smaller is pruner.model
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(trained, small.get_weights(), strict=True))
    again = pruner.plan.apply(model)
    assert [v.shape for v in again.variables] == [v.shape for v in smaller.variables]
    smaller.fit(IMAGES, LABELS, verbose=0)
    assert capfd.readouterr() == ("", "")


def test_a_round_is_prune_on_the_result_and_seeds_count(model):
    pruner = dcp_tf.Pruner(model, "l1", rate=0.25, round_to=1, verbose=0)
    small = pruner.prune((IMAGES, LABELS))
    plain = dcp_tf.prune(model, (IMAGES, LABELS), dcp_tf.L1(rate=0.25, round_to=1), finetuning=None, verbose=0)
    assert equal(small, plain.model)
    smaller = pruner.step((IMAGES, LABELS))  # the rate of before
    assert equal(
        smaller,
        dcp_tf.prune(plain.model, (IMAGES, LABELS), dcp_tf.L1(rate=0.25, round_to=1), verbose=0, finetuning=None).model,
    )
    assert equal(pruner.plan.apply(model), smaller)
    assert equal(pruner.prune((IMAGES, LABELS)), small)  # from the start again


def test_rounds_of_kernels_hold_what_all_rounds_removed(model):
    pruner = dcp_tf.Pruner(model, "dkp", rate=0.3, discrimination=0, selection_samples=64, verbose=0)
    small = pruner.prune((IMAGES, LABELS))
    small.fit(IMAGES, LABELS, verbose=0, callbacks=[pruner.masks_callback()])
    smaller = pruner.step((IMAGES, LABELS), rate=0.5)
    dcp_tf.distiller(smaller, teacher=model).fit(IMAGES, LABELS, verbose=0, callbacks=[pruner.masks_callback()])
    masks = pruner.result.masks
    for weight in smaller.weights:
        if id(weight) in masks:
            assert not weight.numpy()[masks[id(weight)] == 0].any()
            assert weight.numpy()[masks[id(weight)] == 1].all()
    assert len(masks) == len(pruner.plan.kernels) > 3
    assert all(plan.kept_count <= 0.5 * plan.shape[0] * plan.shape[1] + 1 for plan in pruner.plan.kernels)
    pruner._method = dcp_tf.L1(rate=0.5)
    with pytest.raises(UsageError, match="has removed kernels, which l1 would fill again"):
        pruner.step((IMAGES, LABELS))


def test_the_summary_needs_no_data_and_predicts_the_widths(model, capsys):
    pruner = dcp_tf.Pruner(model, dcp_tf.L1(exclude=("second_in",)), rate="50%", round_to=1)
    pruner.summary()
    text = capsys.readouterr().out
    for line in ("residual_net: l1", "first_in         12      6  first_out", "excluded", "pinned: "):
        assert line in text
    assert "a residual stream: prune_residual=True prunes it" in text
    pruner.prune((IMAGES, LABELS), verbose=0)
    pruner.summary()
    now = dcp_tf.count_cost(pruner.model).macs
    assert f"{now:,}" in capsys.readouterr().out
    dcp_tf.Pruner(model, "dkp", rate=0.4).summary()
    assert "40% of each layer's kernels become zero" in capsys.readouterr().out
    open_sizes = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(8, 3), keras.layers.Conv2D(2, 3)])
    dcp_tf.Pruner(open_sizes, rate=0.5, round_to=1).summary()
    assert "conv" in capsys.readouterr().out
    dcp_tf.Pruner(model, macs=10).summary()
    assert "cannot be pruned so: the target of 10 macs cannot be reached" in capsys.readouterr().out


def test_a_file_is_as_small_as_asked(model):
    from dcp_tf import tflite

    full = len(tflite.convert(model).content)
    pruner = dcp_tf.Pruner(model, "l1", file="float32:70%", round_to=1, verbose=0)
    assert len(tflite.convert(pruner.prune((IMAGES, LABELS))).content) <= 0.7 * full
    small = dcp_tf.Pruner(model, "l1", file="12KB", round_to=1, verbose=0).prune((IMAGES, LABELS))
    file = tflite.convert(small, "int8", representative_data=IMAGES[:8])
    assert 9_000 < len(file.content) <= 12_000


def test_a_file_takes_as_little_ram_as_asked():
    from dcp_tf import tflite
    from dcp_tf.tflite.conversion.file_ram import ram_of

    convolutions = [keras.layers.Conv2D(width, 3, activation="relu") for width in (16, 24, 8)]
    flat = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *convolutions, *flat])
    full = ram_of(tflite.convert(model, "int8", representative_data=IMAGES[:8]))
    small = dcp_tf.Pruner(model, "l1", ram="70%", round_to=1, verbose=0).prune((IMAGES, LABELS))
    assert 0.5 * full < ram_of(tflite.convert(small, "int8", representative_data=IMAGES[:8])) <= 0.7 * full


def test_several_inputs_and_outputs_go_the_same_way():
    keras.utils.set_random_seed(1)
    image, numbers = keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="numbers")
    x = keras.layers.Conv2D(8, 3, activation="relu", name="seen")(image)
    x = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(x), keras.layers.Dense(6, name="read")(numbers)]
    )
    outputs = {"classes": keras.layers.Dense(3, name="classes")(x), "box": keras.layers.Dense(2, name="box")(x)}
    pair = keras.Model({"image": image, "numbers": numbers}, outputs)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pair.compile("adam", {"classes": cross_entropy, "box": "mse"}, {"classes": 1.0, "box": 2.0})
    inputs = {"image": IMAGES, "numbers": RNG.random((192, 3), dtype="float32")}
    labels = {"classes": LABELS, "box": inputs["numbers"][:, :2]}
    pruner = dcp_tf.Pruner(pair, "l1", rate=0.25, round_to=1, verbose=0)
    pruner.prune((inputs, labels))
    small = pruner.step((inputs, labels))
    assert small.get_compile_config() == pair.get_compile_config()
    assert equal(pruner.plan.apply(pair), small)
    before = small.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"]
    dcp_tf.distiller(small, teacher=pair).fit(inputs, labels, epochs=3, verbose=0)
    assert small.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"] < before


@pytest.mark.slow
def test_a_latency_is_measured_once_a_round(model, capfd):
    pruner = dcp_tf.Pruner(model, "l1", latency="90%", round_to=1)
    pruner.summary()
    assert "the float32 file takes" in capfd.readouterr().err
    small = pruner.prune((IMAGES, LABELS))
    assert "the float32 file takes" not in capfd.readouterr().err
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 0.5, "macs": "50%"}, "give one of rate and macs"),
        ({"macs": "fifty"}, "target for macs must be a positive number or a share"),
        ({"macs": 0.5}, "write a share as macs='50%'"),
        ({"macs": [1]}, "macs must be a number or a text"),
        ({"rate": "half"}, "rate must be a share"),
        ({"rate": 1.5}, "rate must be"),
        ({"method": "dpc"}, "unknown method 'dpc'; did you mean 'dcp'"),
        ({"method": 3}, "method must be a name"),
        ({"round_two": 8}, "dcp has no setting 'round_two'; did you mean 'round_to'"),
        ({"round_to": "eight"}, "round_to must be"),
        ({"file": "ten"}, "file takes a share such as"),
        ({"ram": "ten"}, "ram takes a share such as"),
        ({"file": "int9:60%"}, "unknown kind of file 'int9'; did you mean 'int8'"),
        ({"latency": "soon"}, "target for latency must be a positive number of ms"),
        ({"method": "dkp", "latency": "60%"}, "dkp removes kernels"),
        ({"model": 3}, "expected a Keras 3 model"),
    ],
)
def test_a_mistake_is_one_line(model, arguments, words):
    with pytest.raises(UsageError, match=words) as error:
        dcp_tf.Pruner(**{"model": model, **arguments})
    assert "\n" not in str(error.value)


def test_mistakes_of_a_round_are_one_line(model):
    pruner = dcp_tf.Pruner(model, rate=0.5)
    with pytest.raises(UsageError, match="call prune"):
        pruner.step((IMAGES, LABELS))
    with pytest.raises(UsageError, match="call prune"):
        pruner.masks_callback()
    with pytest.raises(UsageError, match="no option 'validation'; did you mean 'validation_data'"):
        pruner.prune((IMAGES, LABELS), validation=(IMAGES, LABELS))
