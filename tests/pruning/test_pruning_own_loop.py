"""What `prune` gives back goes straight into a user's own `fit`: compiled as it was, removed kernels held at zero."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dcp_tf

L1 = dcp_tf.L1(rate=0.5, round_to=1)


def network(ending="logits"):
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 1), name="image")
    x = image
    for name, filters in (("first", 8), ("second", 12)):
        x = keras.layers.ReLU()(keras.layers.Conv2D(filters, 3, padding="same", name=name)(x))
    return image, keras.layers.Dense(10, name=ending)(keras.layers.GlobalAveragePooling2D()(x))


def compiled(kind=keras.Model, **settings):
    model = kind(*network())
    given = {"optimizer": keras.optimizers.Adam(0.01), "loss": CROSS_ENTROPY, "metrics": ["accuracy"], **settings}
    model.compile(**given)
    return model


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def some(digits):
    return tuple(part[:512] for part in digits[0])


def pruned(model, some, method=L1, **settings):
    return dcp_tf.prune(model, some, method, **{"finetuning": None, "looks_at_baseline": False, **settings})


def test_the_result_is_compiled_as_the_original_and_learns_at_once(some):
    schedule = keras.optimizers.schedules.CosineDecay(0.03, 1000)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.002, clipnorm=3.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    recall = keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")
    model = compiled(optimizer=optimizer, weighted_metrics=[recall], run_eagerly=False, steps_per_execution=2)
    model.fit(*some, epochs=1, verbose=0)
    small = pruned(model, some).model
    assert small.get_compile_config() == model.get_compile_config()
    assert small.optimizer is not model.optimizer
    assert int(small.optimizer.iterations) == 0 < int(model.optimizer.iterations)
    assert small.optimizer._exclude_from_weight_decay_pattern.pattern == "bias"
    history = small.fit(*some, epochs=4, verbose=0, class_weight={n: 1.0 + (n == 3) for n in range(10)}).history
    assert history["loss"][-1] < history["loss"][0]
    assert {"accuracy", "top3"} <= history.keys()
    assert recall.result() != small.get_metrics_result()["top3"]  # of its own state


@pytest.mark.parametrize("finetuning", [None, dcp_tf.TrainConfig(epochs=0), dcp_tf.TrainConfig(epochs=1)])
def test_it_is_compiled_after_each_fine_tuning_where_the_original_was(some, finetuning):
    small = pruned(compiled(), some, finetuning=finetuning).model
    assert isinstance(small.optimizer, keras.optimizers.Adam)
    assert not pruned(keras.Model(*network()), some, finetuning=finetuning).model.compiled


def test_a_metric_that_cannot_be_made_again_is_left_out_in_a_line(some, capsys):
    class Odd(keras.metrics.Mean):
        def __init__(self, what):
            super().__init__(name="odd")

    assert len(pruned(compiled(metrics=["accuracy", Odd(1)]), some).model._compile_metrics._user_metrics) == 2
    assert "metric 'odd' cannot be recreated" in capsys.readouterr().err


class OwnStep(keras.Model):
    steps = 0

    def train_step(self, data):
        OwnStep.steps += 1
        return super().train_step(data)


class OwnSequential(keras.Sequential):
    def train_step(self, data):
        OwnStep.steps += 1
        return super().train_step(data)


class OwnArguments(OwnStep):
    def __init__(self, inputs, outputs, name=None):
        super().__init__(inputs, outputs, name=name)


def test_a_model_with_its_own_train_step_is_taken_or_a_line_says_why_not(some, capsys):
    small = pruned(compiled(OwnStep), some).model
    before = OwnStep.steps
    small.fit(*some, verbose=0)
    assert type(small) is OwnStep
    assert OwnStep.steps > before
    layers = [keras.layers.Conv2D(8, 3, name="a"), keras.layers.Conv2D(8, 3, name="b"), keras.layers.Flatten()]
    model = OwnSequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(10)])
    model.compile("adam", CROSS_ENTROPY)
    before, small = OwnStep.steps, pruned(model, some).model
    again = pruned(small, some).model
    again.fit(*some, verbose=0)
    assert type(small) is type(again) is OwnSequential
    assert again.count_params() < small.count_params() < model.count_params()
    assert OwnStep.steps > before
    assert not pruned(compiled(OwnArguments), some).model.compiled
    assert (
        "OwnArguments has its own train_step, and the smaller model is a plain keras.Model" in capsys.readouterr().err
    )


class OwnCompile(OwnStep):
    def compile(self, optimizer, what):
        super().compile(optimizer, CROSS_ENTROPY)


class OwnConfig(OwnCompile):
    def get_compile_config(self):
        return {"optimizer": "adam", "what": 1}

    def compile_from_config(self, config):
        self.compile(**config)


def test_a_compile_of_ones_own_is_called_where_it_says_how(some, capsys):
    for kind in (OwnCompile, OwnConfig):
        model = kind(*network())
        model.compile("adam", what=1)
        small = pruned(model, some).model
        assert type(small) is kind
        assert small.compiled == (kind is OwnConfig)
        assert ("call it on the smaller model" in capsys.readouterr().err) == (kind is OwnCompile)


def test_a_model_of_a_strategy_is_taken(some):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = compiled()
    small = pruned(model, some).model
    small.fit(*some, verbose=0)
    with (
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
        pytest.raises(dcp_tf.UsageError, match="outside of strategy"),
    ):
        pruned(model, some)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", keras.optimizers.AdamW(0.01, use_ema=True, weight_decay=0.1)])
def test_removed_kernels_stay_exactly_zero_in_a_fit_of_ones_own(some, optimizer):
    model = compiled(optimizer=optimizer, steps_per_execution=3)
    result = pruned(model, some, dcp_tf.DKP(rate=0.5, discrimination=0))
    zeros = {v.path: v.numpy() == 0 for v in result.model.trainable_variables if "kernel" in v.path}
    zeros = {path: zero for path, zero in zeros.items() if zero.any()}
    assert sum(zero.sum() for zero in zeros.values()) > 100
    before = result.model.get_weights()
    result.model.fit(*some, verbose=0)  # compiles a step without masks
    result.model.set_weights(before)
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            [np.abs(v.numpy()[zeros[v.path]]).max() for v in result.model.trainable_variables if v.path in zeros]
        )
    )
    result.model.fit(*some, verbose=0, callbacks=[result.masks_callback(), look])
    assert not np.any(seen)
    assert all(not v.numpy()[zeros[v.path]].any() for v in result.model.trainable_variables if v.path in zeros)
    assert all(v.constraint is None for v in result.model.weights)
    assert any(not np.array_equal(a, b) for a, b in zip(before, result.model.get_weights(), strict=True))
    result.model.fit(*some, verbose=0)  # without the callback they move again
    assert any(v.numpy()[zeros[v.path]].any() for v in result.model.trainable_variables if v.path in zeros)


def test_verbose_0_prints_nothing_and_summaries_print_tables(some, capfd):
    images, labels = some
    quick = dcp_tf.TrainConfig(epochs=1)
    method = dcp_tf.DCPDKP(rate=0.5, round_to=1)
    settings = {"validation_data": (images[:99], labels[:99]), "auxiliary": quick, "finetuning": quick}
    result = dcp_tf.prune(compiled(), some, method, verbose=0, **settings)
    assert capfd.readouterr() == ("", "")
    graph = dcp_tf.ChannelGraph(result.model)
    for value in (result, result.plan, graph, dcp_tf.count_cost(graph)):
        value.summary()
        assert value._repr_html_().count("</table>") == len(value._tables())
    kept, losses = result.plot().axes
    assert [t.get_text() for t in kept.get_yticklabels()] == ["first", "second", "second (kernels)"]
    assert len(losses.lines) == 3
    assert result.plot()._repr_png_().startswith(b"\x89PNG")
    assert "first  [4]" in [text.get_text() for text in graph.plot().axes[0].texts]
    text, _ = capfd.readouterr()
    for expected in (
        "first       4   8  second",
        "plan of dcp_dkp",
        "fine-tuning",
        "read by",
        "no: it is an output",
        "all",
    ):
        assert expected in text
    assert "None" not in text
    with pytest.raises(dcp_tf.UsageError, match="verbose must be 0"):
        dcp_tf.prune(compiled(), some, L1, verbose="loud")
    with pytest.raises(dcp_tf.UsageError, match="prune has no argument 'finetunning'; did you mean 'finetuning'"):
        dcp_tf.prune(compiled(), some, L1, finetunning=None)
    with pytest.raises(dcp_tf.UsageError, match="prune cannot be called so: missing a required argument: 'method'"):
        dcp_tf.prune(compiled(), some)
