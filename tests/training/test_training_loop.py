"""What fit promises, on small models: the arithmetic of a step, what moves and what does not, and its errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.errors import RunError, UsageError
from dcp_tf.training import (
    Distillation,
    History,
    TrainConfig,
    classification_loss,
    fit,
    seed_everything,
    soft_targets,
)

LOGITS = classification_loss("logits")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 8, 8, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 40).astype("int32")


def plain(epochs=1, **settings):
    """A constant rate and nothing else, unless said."""
    defaults = {"schedule": "step", "boundaries": (), "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return TrainConfig(epochs=epochs, **{**defaults, **settings})


def batches(images=IMAGES, labels=LABELS, size=16):
    arrays = images if labels is None else (images, labels)
    return lambda epoch: tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def convolutional(*, dropout=0.0, heads=1, seed=0):
    """Convolution, BatchNormalization, PReLU, depthwise convolution, and one head or two."""
    seed_everything(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.PReLU(shared_axes=(1, 2), name="act")(x)
    early = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    final = keras.layers.Dense(3, name="final")(x)
    outputs = [final] if heads == 1 else [keras.layers.Dense(3, name="early")(early), final]
    return keras.Model(inputs, outputs)


def linear(features=5, classes=3):
    """A single fully connected layer, for which NumPy can do the same step."""
    seed_everything(1)
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(classes, bias_initializer="normal")])


def values(model):
    return {v.path: v.numpy() for v in model.weights}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("clip_norm", [0, 0.05])
def test_steps_equal_sgd_in_numpy(nesterov, clip_norm):
    x, y = RNG.normal(size=(32, 5)).astype("float32"), RNG.integers(0, 3, 32)
    model = linear()
    w, b = (v.astype("float64") for v in model.get_weights())
    config = plain(3, momentum=0.9, nesterov=nesterov, weight_decay=0.05, clip_norm=clip_norm)
    fit(model, batches(x, y, 8), [LOGITS], config)

    velocity = [np.zeros_like(w), np.zeros_like(b)]
    for _ in range(3):
        for start in range(0, 32, 8):
            xs, ys = x[start : start + 8], y[start : start + 8]
            scores = np.exp(xs @ w + b)
            wrong = (scores / scores.sum(-1, keepdims=True) - np.eye(3)[ys]) / 8
            gradients = [xs.T @ wrong, wrong.sum(0)]
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            scale = min(1.0, clip_norm / norm) if clip_norm else 1.0
            gradients = [gradients[0] * scale + 0.05 * w, gradients[1] * scale]
            for i, g in enumerate(gradients):
                velocity[i] = 0.9 * velocity[i] - 0.1 * g
                change = 0.9 * velocity[i] - 0.1 * g if nesterov else velocity[i]
                w, b = (w + change, b) if i == 0 else (w, b + change)
    np.testing.assert_allclose(model.get_weights()[0], w, atol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], b, atol=1e-5)


def test_gradients_are_limited_where_no_batch_normalization_keeps_them_in_bounds():
    x, y = 100 * RNG.normal(size=(8, 6, 5)).astype("float32"), RNG.integers(0, 3, 8)

    def step(*middle, **settings):
        model = keras.Sequential([keras.Input((6, 5)), *middle, keras.layers.GlobalMaxPooling1D()])
        model.add(keras.layers.Dense(3))
        before = [v.numpy() for v in model.trainable_variables]
        fit(model, batches(x, y, 8), [LOGITS], plain(**settings))
        changes = [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
        return np.sqrt(sum((change**2).sum() for change in changes)) / 0.1

    layers = keras.layers
    normalized = [layers.Conv1D(4, 3), layers.BatchNormalization(gamma_initializer=keras.initializers.Constant(9))]
    for unsteady in (
        [layers.Conv1D(4, 3), layers.Conv1D(4, 3)],
        [layers.BatchNormalization(), layers.LayerNormalization(gamma_initializer=keras.initializers.Constant(99))],
    ):
        assert step(*unsteady) == pytest.approx(1, rel=1e-3)
        assert step(*unsteady, clip_norm=0) > 2
    assert step(*normalized) > 2
    assert step(*normalized, clip_norm=1) == pytest.approx(1, rel=1e-3)


def test_a_loss_may_ask_for_a_limit_of_the_gradient_that_the_training_may_change():
    x, y = 100 * RNG.normal(size=(8, 5)).astype("float32"), RNG.integers(0, 3, 8)

    class Limited:
        clip_norm = 0.5
        distance = LOGITS.distance

        def __call__(self, labels, outputs):
            return LOGITS(labels, outputs)

    def step(loss, **settings):
        model = linear()
        before = model.get_weights()
        fit(model, batches(x, y, 8), [loss], plain(**settings), teacher=teacher if loss is taught else None)
        return np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(model.get_weights(), before, strict=True))) / 0.1

    teacher = soft_targets(linear(), "logits")
    taught = Distillation(Limited(), 0.25)
    free = step(LOGITS, clip_norm=0)
    assert free > 10
    assert step(Limited()) == pytest.approx(0.5, rel=1e-3)
    assert step(taught) == pytest.approx(0.5, rel=1e-3)
    assert step(Limited(), clip_norm=0) == pytest.approx(free, rel=1e-3)
    assert step(Limited(), clip_norm=3) == step(LOGITS, clip_norm=3) == pytest.approx(3, rel=1e-3)


def test_weight_decay_shrinks_kernels_only():
    model = convolutional()
    before = values(model)
    no_loss = lambda labels, outputs: 0.0 * tf.reduce_sum(outputs)  # noqa: E731
    history = fit(model, batches(), [no_loss], plain(weight_decay=0.5))
    after = values(model)
    for path, value in before.items():
        if path.endswith("/kernel"):
            np.testing.assert_allclose(after[path], value * (1 - 0.1 * 0.5) ** 3, rtol=1e-5)
        elif "moving" not in path:
            np.testing.assert_array_equal(after[path], value)
    assert "top1" not in history[0]


def test_layers_own_penalties_are_part_of_the_loss():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))])
    before = model.get_weights()[0]
    no_loss = lambda labels, outputs: 0.0 * tf.reduce_sum(outputs)  # noqa: E731
    history = fit(model, batches(np.zeros((8, 5), "float32"), LABELS[:8], 8), [no_loss], plain(clip_norm=0))
    assert history[0]["loss"] == pytest.approx(0.5 * (before**2).sum(), rel=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], before * (1 - 0.1), rtol=1e-5)


def test_masked_weights_are_and_stay_exactly_zero():
    model = convolutional()
    kernel, gamma = model.get_layer("conv").kernel, model.get_layer("norm").gamma
    mask = RNG.integers(0, 2, kernel.shape)
    before = kernel.numpy()
    masks = {kernel.path: mask, id(gamma): np.array([1, 0, 1, 0, 1, 1])}
    fit(model, batches(), [LOGITS], plain(2, momentum=0.9, weight_decay=0.01), masks=masks)
    assert np.count_nonzero(kernel.numpy()[mask == 0]) == 0
    assert np.count_nonzero(gamma.numpy()[[1, 3]]) == 0
    assert np.all(kernel.numpy()[mask == 1] != before[mask == 1])


def test_masked_weights_do_not_count_when_gradients_are_clipped():
    x, y = RNG.normal(size=(8, 5)).astype("float32"), LABELS[:8]
    x[:, 0] *= 1000  # whose gradient would take all of the norm
    mask = np.ones((5, 3))
    mask[0] = 0
    model = linear()
    model.layers[0].kernel.assign(model.layers[0].kernel * mask)
    before = model.get_weights()[0]
    fit(model, batches(x, y, 8), [LOGITS], plain(clip_norm=0.1), masks={model.layers[0].kernel.path: mask})
    assert np.linalg.norm(model.get_weights()[0] - before) > 0.005


def test_untrainable_layers_do_not_move():
    model = convolutional()
    for name in ("conv", "norm"):
        model.get_layer(name).trainable = False
    before = values(model)
    fit(model, batches(), [LOGITS], plain(2, momentum=0.9, weight_decay=0.01))
    moved = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert moved == {"act/alpha", "depthwise/kernel", "depthwise/bias", "final/kernel", "final/bias"}


def test_frozen_batch_norm_stays_and_is_released_again():
    model = convolutional()
    before = values(model)
    fit(model, batches(), [LOGITS], plain(), frozen_batch_norm=True)
    after = values(model)
    assert all(np.array_equal(after[path], value) for path, value in before.items() if path.startswith("norm/"))
    assert not np.array_equal(after["conv/kernel"], before["conv/kernel"])
    assert model.get_layer("norm").trainable
    fit(model, batches(), [LOGITS], plain())
    assert not any(np.array_equal(values(model)[path], after[path]) for path in after if path.startswith("norm/"))


def test_running_statistics_follow_the_momentum_of_the_run_which_is_then_undone():
    def moved(momentum):
        model = convolutional()
        norm = model.get_layer("norm")
        fit(model, batches(size=40), [LOGITS], plain(batch_norm_momentum=momentum))
        assert norm.momentum == 0.99
        return norm.moving_mean.numpy()

    np.testing.assert_allclose(moved(0.05), 95 * moved(None), rtol=1e-4, atol=1e-6)


def test_running_statistics_of_a_short_training_are_those_of_its_last_weights():
    model = convolutional()
    norm = model.get_layer("norm")
    norm.moving_mean.assign(norm.moving_mean + 1000.0)  # of weights that are gone
    fit(model, batches(size=8), [LOGITS], plain(2))
    assert np.abs(norm.moving_mean.numpy()).max() < 1.0


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before():
    def trained(seed):
        model = convolutional(dropout=0.5)
        model(IMAGES, training=True)  # moves Dropout's random state, and the moving means
        tf.random.uniform((3,))
        return values(model), fit(model, batches(), [LOGITS], plain(2, seed=seed)), values(model)

    (start_a, history_a, a), (start_b, history_b, b), (_, _, other) = trained(5), trained(5), trained(6)
    assert same(start_a, start_b)
    assert same(a, b)
    assert not same(a, other)
    assert [r["loss"] for r in history_a] == [r["loss"] for r in history_b]


def test_soft_labels_train_as_whole_numbers_do():
    hard, soft = convolutional(), convolutional()
    fit(hard, batches(), [LOGITS], plain(2))
    fit(soft, batches(labels=np.eye(3, dtype="float32")[LABELS]), [LOGITS], plain(2))
    assert same(values(hard), values(soft))


def test_head_losses_are_weighted():
    both, weighted, final_only = (convolutional(heads=2) for _ in range(3))
    history = fit(both, batches(), [LOGITS, LOGITS], plain(), loss_weights=[0.25, 1.0])[0]
    assert history["loss"] == pytest.approx(0.25 * history["losses"][0] + history["losses"][1], rel=1e-5)
    weigh = lambda labels, outputs: 0.25 * LOGITS(labels, outputs)  # noqa: E731
    fit(weighted, batches(), [weigh, LOGITS], plain())
    for path, value in values(both).items():
        np.testing.assert_allclose(values(weighted)[path], value, atol=1e-6)
    before = values(final_only)
    fit(final_only, batches(), [LOGITS, LOGITS], plain(), loss_weights=[0.0, 1.0])
    assert np.array_equal(values(final_only)["early/kernel"], before["early/kernel"])


def test_an_output_that_no_loss_reaches_is_left_alone():
    model = convolutional(heads=2)
    before = values(model)
    fit(model, batches(), [lambda labels, outputs: tf.constant(0.0), LOGITS], plain(weight_decay=0.1))
    assert np.array_equal(values(model)["early/kernel"], before["early/kernel"])


def test_images_alone_learn_from_a_teacher():
    teacher, taught, told = convolutional(seed=3), convolutional(), convolutional()
    targets = soft_targets(teacher, "logits")
    before = values(teacher)
    fit(taught, batches(labels=None), [LOGITS], plain(), teacher=targets)
    fit(told, batches(labels=targets(IMAGES).numpy()), [LOGITS], plain())
    assert same(values(teacher), before)
    for path, value in values(told).items():
        np.testing.assert_allclose(values(taught)[path], value, atol=1e-6)


def test_distillation_brings_the_student_to_its_teacher():
    teacher, student = convolutional(seed=3), convolutional()
    teacher.get_layer("final").kernel.assign(4 * teacher.get_layer("final").kernel)
    distil = Distillation(LOGITS, weight=1.0, temperature=2.0)
    config = plain(15, learning_rate=0.2, momentum=0.9)
    history = fit(student, batches(), [distil], config, teacher=soft_targets(teacher, "logits"))
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_a_toy_problem_is_learned(kind):
    seed_everything(0)
    images = np.zeros((96, 8, 8, 1), "float32")
    labels = np.arange(96) % 3
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] = 1.0
    images += np.random.default_rng(0).normal(size=images.shape, scale=0.3)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    activation = None if kind == "logits" else kind
    model = keras.Model(inputs, keras.layers.Dense(3, activation=activation)(x))
    history = fit(model, batches(images.astype("float32"), labels, 32), [classification_loss(kind)], TrainConfig(8))
    assert history[-1]["top1"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"]


def test_means_count_every_sample_once():
    model = linear()
    x, y = RNG.normal(size=(21, 5)).astype("float32"), RNG.integers(0, 3, 21)
    expected_loss, expected_top1 = float(LOGITS(y, model(x))), float(np.mean(model(x).numpy().argmax(-1) == y))
    record = fit(model, batches(x, y, 8), [LOGITS], plain(learning_rate=1e-12))[0]  # the last batch holds 5
    assert record["loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert record["top1"] == pytest.approx(expected_top1)


def test_the_step_is_compiled_once_for_batches_of_any_length():
    traces = []

    def counting(labels, outputs):
        traces.append(outputs.shape)
        return LOGITS(labels, outputs)

    fit(convolutional(), batches(), [counting], TrainConfig(3))  # batches of 16, 16 and 8
    assert len(traces) == 1


def test_history_and_validation():
    calls = []

    def validation():
        calls.append(1)
        return {"validation_top1": np.float32(len(calls) / 10)}

    history = fit(convolutional(), batches(), [LOGITS], TrainConfig(3), validation=validation)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert [record["validation_top1"] for record in history] == pytest.approx([0.1, 0.2, 0.3])
    rates = [record["learning_rate"] for record in history]
    assert rates == sorted(rates, reverse=True)
    assert all(record["seconds"] > 0 for record in history)
    assert History.from_json(history.to_json()) == history


def test_a_line_per_epoch_is_printed(capsys):
    fit(convolutional(), batches(), [LOGITS], TrainConfig(2), phase="auxiliary heads")
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["auxiliary heads 1/2", "auxiliary heads 2/2"]
    assert all(word in lines[0] for word in ("loss", "top1", "lr"))


def test_scalars_are_written_for_tensorboard(tmp_path):
    history = fit(convolutional(), batches(), [LOGITS], plain(2), log_dir=tmp_path, phase="fine-tuning")
    records = tf.data.TFRecordDataset([str(path) for path in tmp_path.iterdir()])
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in records]
    found = {(e.step, v.tag): tf.make_ndarray(v.tensor).item() for e in events for v in e.summary.value}
    for record in history:
        assert found[record["epoch"], "fine-tuning/loss"] == pytest.approx(record["loss"], rel=1e-6)
        assert found[record["epoch"], "fine-tuning/top1"] == pytest.approx(record["top1"], rel=1e-6)


def test_split_objects_are_asked_for_shuffled_augmented_batches():
    asked = []

    class Split:
        def batches(self, batch_size, **arguments):
            asked.append((batch_size, arguments))
            return batches(size=batch_size)(0)

    fit(convolutional(), Split(), [LOGITS], plain(2, batch_size=20, seed=7), augment=False)
    same_for_all = {"shuffle": True, "augment": False, "seed": 7}
    assert asked == [(20, {**same_for_all, "epoch": 0}), (20, {**same_for_all, "epoch": 1})]


def test_zero_epochs_change_nothing():
    model = convolutional()
    before = values(model)
    assert fit(model, batches(), [LOGITS], TrainConfig(0)) == []
    assert same(values(model), before)


def test_a_data_set_of_unknown_length_trains():
    unknown = lambda epoch: batches()(epoch).filter(lambda *_: True)  # noqa: E731
    history = fit(convolutional(), unknown, [LOGITS], TrainConfig(2, learning_rate=0.1))
    assert history[0]["learning_rate"] == pytest.approx(0.1 * (1 + np.cos(np.pi / 4)) / 2)


def test_nan_stops_with_epoch_step_and_what_to_lower():
    images = IMAGES.copy()
    images[20] = np.nan
    with pytest.raises(RunError) as caught:
        fit(convolutional(), batches(images), [LOGITS], plain(), phase="fine-tuning", lower="--finetune_lr")
    assert str(caught.value) == "the loss became NaN in fine-tuning (epoch 1, step 2); lower --finetune_lr (now 0.1)"


def test_weights_spoiled_by_the_last_step_are_noticed():
    with pytest.raises(RunError, match="became NaN in fine-tuning"):
        fit(linear(), batches(np.full((8, 5), 1e30, "float32"), LABELS[:8], 8), [LOGITS], plain(learning_rate=1e30))


def test_a_long_epoch_stops_soon_after_nan():
    taken = []

    def endless(epoch):
        def images():
            for index in range(1000):
                taken.append(index)
                yield np.full((1, 5), np.nan, "float32"), np.zeros(1, "int32")

        spec = (tf.TensorSpec((None, 5), tf.float32), tf.TensorSpec((None,), tf.int32))
        return tf.data.Dataset.from_generator(images, output_signature=spec)

    with pytest.raises(RunError, match="step 1"):
        fit(linear(), endless, [LOGITS], plain())
    assert len(taken) < 300


def shapeless(epoch):
    return tf.data.Dataset.from_generator(lambda: iter([(IMAGES, LABELS)]), output_types=(tf.float32, tf.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": [LOGITS, LOGITS]}, "one loss per output"),
        ({"loss_weights": [1.0, 2.0]}, "one weight per loss"),
        ({"split_or_batches": batches(labels=LABELS + 1)}, r"labels in 0\.\.2"),
        ({"split_or_batches": batches(labels=None)}, "no labels"),
        ({"split_or_batches": lambda epoch: batches()(epoch).take(0)}, "empty"),
        ({"split_or_batches": lambda epoch: batches()(epoch).repeat()}, "never ends"),
        ({"split_or_batches": lambda epoch: batches()(epoch).map(lambda x, y: (x, y, y))}, "tuples of 3"),
        ({"split_or_batches": IMAGES}, "ndarray"),
        ({"split_or_batches": shapeless}, "shapes are unknown"),
        ({"masks": {"nowhere/kernel": np.ones(3)}}, "nowhere/kernel"),
        ({"masks": {"conv/kernel": np.ones(3)}}, "shape"),
        ({"masks": {"conv/bias": np.full(6, 0.5)}}, "0 and 1"),
        ({"losses": [Distillation(LOGITS)]}, "needs a teacher"),
        ({"teacher": soft_targets(convolutional(), "logits")}, "no loss is a Distillation"),
        ({"losses": [lambda labels, outputs: tf.constant(1.0)]}, "no trainable weight"),
    ],
)
def test_wrong_input_gets_one_clear_line(change, message):
    arguments = {"split_or_batches": batches(), "losses": [LOGITS], "config": plain(), **change}
    with pytest.raises(UsageError, match=message) as caught:
        fit(convolutional(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_model_with_nothing_to_train_is_refused():
    model = convolutional()
    model.trainable = False
    with pytest.raises(UsageError, match="no trainable weights"):
        fit(model, batches(), [LOGITS], plain())
