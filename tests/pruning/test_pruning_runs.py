"""Whole runs of `prune`: equal seeds, stops and resumes, memory, data in every form, and that selection pays."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import BARE, NONE

import dcp_tf
from dcp_tf import data, progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation import accuracy
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import AdaptDCP
from dcp_tf.pruning.run_state import RunState
from dcp_tf.training import TrainConfig

AUXILIARY = TrainConfig(epochs=2, batch_size=16, learning_rate=0.01)
FINETUNING = TrainConfig(epochs=2, batch_size=16, learning_rate=0.01)


def block(x, filters, name):
    x = keras.layers.Conv2D(filters, 3, padding="same", name=name)(x)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.BatchNormalization(name=f"{name}_norm")(x))


def joined():
    """`inner` is read before the auxiliary loss at `join`, `stem` before and behind it, `conv` and `last` behind it."""
    keras.utils.set_random_seed(4)
    image = keras.Input((8, 8, 1), name="image")
    x = block(image, 6, "stem")
    x = keras.layers.Concatenate(name="join")([x, block(block(x, 4, "inner"), 4, "conv")])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(block(x, 4, "last"))
    return keras.Model(image, keras.layers.Dense(10, name="out")(keras.layers.Dropout(0.1, name="drop")(x)))


def chain(ending="logits"):
    """Two groups, one place for an auxiliary loss."""
    keras.utils.set_random_seed(4)
    image = keras.Input((8, 8, 1), name="image")
    x = block(block(image, 6, "first"), 4, "second")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    activation = None if ending == "logits" else ending
    return keras.Model(image, keras.layers.Dense(10, activation=activation, name="out")(x))


def small(rate=0.5, kind=dcp_tf.DCP, **settings):
    given = {"selection": "exact", "selection_samples": 32, "selection_batch": 16, "auxiliary_losses": 1, "per_step": 8}
    return kind(rate=rate, **{"recover": 0, **given, **settings})


@pytest.fixture(scope="module")
def some(digits):
    (images, labels), _ = digits
    return images[:48], labels[:48]


def weights(model):
    return [v.numpy() for v in model.variables]


def same_result(a, b):
    first, second = ([(g.name, g.kept, g.history) for g in result.plan.groups] for result in (a, b))
    pairs = zip(weights(a.model), weights(b.model), strict=True)
    return first == second and all(np.array_equal(x, y) for x, y in pairs)


def run(some, method=None, **settings):
    given = {"auxiliary": AUXILIARY, "finetuning": FINETUNING, "looks_at_baseline": False, **settings}
    return dcp_tf.prune(joined(), some, method or small(auxiliary_layers=("join",), per_step=2), **given)


@pytest.fixture(scope="module")
def whole(some):
    return run(some)


def test_same_seed_same_run(some, whole):
    assert same_result(run(some), whole)


def test_another_seed_draws_other_things(some):
    first, second = (dcp_tf.prune(chain(), some, small(per_step=1), **BARE, seed=seed) for seed in (0, 1))
    assert not same_result(first, second)


def test_the_model_stays_as_it_is(some):
    model = chain()
    before = weights(model)
    result = dcp_tf.prune(model, some, small(), auxiliary=AUXILIARY, finetuning=FINETUNING)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))
    graph = ChannelGraph(result.model)
    assert [graph.group(g.name).size for g in result.plan.groups] == [len(g.kept) for g in result.plan.groups]
    assert {g.name: len(g.kept) for g in result.plan.groups} == {"first": 3, "second": 2}
    assert [phase["name"] for phase in result.history] == ["auxiliary", "selection", "fine-tuning"]


class Stopped(Exception):
    pass


def stop_at(monkeypatch, line):
    """Lets the run end when it says a line that begins so; None: never. Returns what it says."""
    lines = []

    def say(said):
        lines.append(said)
        if line is not None and said.startswith(line):
            raise Stopped

    monkeypatch.setattr(progress, "say", say)
    return lines


STOPS = {
    "once": (False, ["auxiliary classifiers on held-out", "selected 3/4", "fine-tuning 1/2"]),
    "per stage": (True, ["stage 2 1/2", "selected 3/4"]),
}


@pytest.mark.parametrize("variant", ["once", pytest.param("per stage", marks=pytest.mark.slow)])
def test_a_run_stopped_again_and_again_gives_what_an_undisturbed_run_gives(variant, some, whole, tmp_path, monkeypatch):
    per_stage, stops = STOPS[variant]
    method = small(auxiliary_layers=("join",), per_step=2, per_stage=per_stage)
    settings = {"finetuning": NONE} if per_stage else {}
    expected = run(some, method, **settings) if per_stage else whole
    for number, line in enumerate([*stops, None]):
        lines = stop_at(monkeypatch, line)
        given = {**settings, "state_dir": tmp_path / "state", "resume": number > 0}
        with pytest.raises(Stopped) if line else contextlib.nullcontext():
            assert same_result(run(some, method, **given), expected)
        if number and stops[number - 1].startswith("selected"):
            first = next(said for said in lines if said.startswith("selected"))
            assert first.startswith(stops[number - 1])  # groups that were kept are not selected again


def test_resuming_with_other_settings_is_refused_and_changes_nothing(some, tmp_path):
    RunState(tmp_path / "state", {"rate": 0.5}, resume=False)
    with pytest.raises(UsageError, match=r"rate 0.5 -> 0.3"):
        RunState(tmp_path / "state", {"rate": 0.3}, resume=True)
    RunState(tmp_path / "state", {"rate": 0.5}, resume=True)


def test_a_new_run_forgets_the_old_one(tmp_path):
    variable = keras.Variable([1.0, 2.0])
    state = RunState(tmp_path / "state", {}, resume=False)
    state.save_selection([], [variable])
    RunState(tmp_path / "state", {}, resume=False)
    assert not (tmp_path / "state" / "selection.npz").exists()


@pytest.mark.parametrize("damage", [b"", b"no archive at all", None], ids=["empty", "other", "cut"])
def test_a_damaged_state_is_one_clear_line(tmp_path, damage):
    variable = keras.Variable(np.arange(500, dtype="float32"))
    state = RunState(tmp_path / "state", {}, resume=False)
    state.save_selection([], [variable])
    path = tmp_path / "state" / "selection.npz"
    path.write_bytes(path.read_bytes()[:900] if damage is None else damage)
    with pytest.raises(RunError, match="damaged"):
        state.load_selection([variable])


def test_without_a_folder_nothing_is_kept():
    state = RunState(None, {}, resume=True)
    state.save_selection([], [])
    assert state.load_selection([]) == []
    assert state.training("auxiliary") is None


@pytest.mark.slow
def test_cached_or_computed_again_the_selection_is_the_same(some):
    """On a net whose stages walk over the same layers twice: stale inputs would show."""
    cached, computed = (
        run(some, small(auxiliary_layers=("join",), per_step=2, cache_gib=gib), **BARE) for gib in (2.0, 0)
    )
    assert cached.plan.channels == computed.plan.channels
    for a, b in zip(weights(cached.model), weights(computed.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_groups_run_stage_by_stage_and_shallow_to_deep(whole):
    assert [g.name for g in whole.plan.groups] == ["inner", "stem", "conv", "last"]


# Data in every form


def plain(some, model, **settings):
    return dcp_tf.prune(model, some, small(), **BARE, **settings)


def test_arrays_splits_and_pipelines_give_the_same_plan(some):
    pipeline = tf.data.Dataset.from_tensor_slices(some).batch(10)
    # All images in one batch: then their order, which a pipeline keeps to itself, does not matter.
    method = small(selection_samples=48, selection_batch=48)
    arrays, split, piped = (
        dcp_tf.prune(chain(), form, method, **BARE) for form in (some, data.as_split(some), pipeline)
    )
    assert same_result(arrays, split)
    assert arrays.plan.channels == piped.plan.channels


@pytest.mark.parametrize("form", ["array", "pipeline"])
def test_labels_can_be_left_out(some, form):
    model, training = chain("softmax"), (AUXILIARY if form == "array" else NONE)
    images = some[0] if form == "array" else tf.data.Dataset.from_tensor_slices(some[0]).batch(16)
    result = dcp_tf.prune(model, images, small(), auxiliary=training, finetuning=training)
    assert result.model.count_params() < model.count_params()
    targets = model(some[0][:32]).numpy()
    entropy = -(targets * np.log(targets)).sum(-1).mean()
    losses = [group.history["discrimination"][-1] for group in result.plan.groups]
    assert losses[-1] > entropy - 0.05  # a cross-entropy with soft targets is never below their entropy


@pytest.mark.parametrize("ending", ["softmax", "sigmoid"])
def test_models_that_end_in_probabilities_are_pruned(some, ending):
    result = dcp_tf.prune(chain(ending), some, small(), auxiliary=AUXILIARY, finetuning=NONE)
    outputs = result.model(some[0][:4]).numpy()
    assert ((outputs >= 0) & (outputs <= 1)).all()
    assert np.isfinite([g.history["loss"][-1] for g in result.plan.groups]).all()


def test_a_model_with_no_place_for_a_head_is_pruned_with_its_own_loss(some):
    keras.utils.set_random_seed(0)
    conv = keras.layers.Conv2D(6, 3, name="only")
    model = keras.Sequential([keras.Input((8, 8, 1)), conv, keras.layers.Flatten(), keras.layers.Dense(10)])
    result = dcp_tf.prune(model, some, small(auxiliary_losses=3), auxiliary=AUXILIARY, finetuning=NONE)
    assert result.plan.channels.keys() == {"only"}
    assert len(result.plan.channels["only"]) == 3


def test_nested_models_are_pruned_inside(some):
    keras.utils.set_random_seed(0)
    inner_image = keras.Input((8, 8, 1))
    body = keras.Model(inner_image, block(block(inner_image, 6, "first"), 6, "second"), name="body")
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(body(image))))
    result = plain(some, model)
    assert {name: len(kept) for name, kept in result.plan.channels.items()} == {"body/first": 3, "body/second": 3}
    assert result.model(some[0][:2]).shape == (2, 10)


@pytest.mark.parametrize(("reconstruction", "discrimination"), [(1.0, 0.0), (0.0, 1.0)])
def test_either_loss_selects_alone(some, reconstruction, discrimination):
    method = small(reconstruction=reconstruction, discrimination=discrimination)
    result = dcp_tf.prune(chain(), some, method, **BARE)
    for group in result.plan.groups:
        assert any(group.history["reconstruction"]) == bool(reconstruction)
        assert any(group.history["discrimination"]) == bool(discrimination)


def test_adaptive_selection_holds_its_cap(some):
    result = dcp_tf.prune(chain(), some, small(0.3, AdaptDCP, epsilon=0.02, per_step=1), **BARE)
    for group in result.plan.groups:
        loss = np.array(group.history["loss"])
        changes = np.abs(np.diff(loss)) / loss[0]
        assert len(group.kept) == group.history["kept"][-1] <= np.ceil(0.7 * group.size)
        assert (changes[:-1] > 0.02).all()


@pytest.mark.parametrize(
    "settings", [{"rate": 0.0}, {"rate": 1.0}, {"round_to": 0}, {"per_step": 0}, {"cache_gib": -1}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError, match="received"):
        dcp_tf.DCP(**settings)


# That it pays


def test_dcp_beats_chance_before_fine_tuning(digits, trained):
    train, test = digits
    images = data.as_split(train)

    def top1(method, seed=0):
        auxiliary = TrainConfig(epochs=1, learning_rate=0.01)
        result = dcp_tf.prune(trained, images, method, auxiliary=auxiliary, finetuning=NONE, seed=seed)
        return accuracy(result.model, data.as_split(test).batches(256), outputs_kind="logits")["top1"]

    by_chance = np.mean([top1(dcp_tf.Random(rate=0.5), seed) for seed in range(3)])
    by_dcp = top1(dcp_tf.DCP(rate=0.5, per_step=4, selection_samples=512))
    print(f"top-1 before fine-tuning: DCP {by_dcp:.3f}, random {by_chance:.3f}")
    assert by_dcp > by_chance + 0.1


def test_channels_under_layer_normalization_go_only_when_asked(some):
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, name="a")(x)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.Conv2D(6, 3, activation="relu", name="b")(x)
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))
    kept = []
    for ignore in (False, True):
        method = small(ignore_statistics=ignore)
        result = dcp_tf.prune(model, some, method, **BARE)
        kept.append({g.name: len(g.kept) for g in result.plan.groups})
        assert count_params(result.plan.apply(model)) == count_params(result.model)
    assert kept == [{"b": 3}, {"a": 4, "b": 3}]


def count_params(model):
    return sum(int(np.prod(w.shape)) for w in model.weights)
