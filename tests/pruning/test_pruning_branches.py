"""Models with several inputs and outputs: surgery, plans, and the selection with every method."""

import contextlib
import shutil

import hypothesis
import keras
import numpy as np
import pytest
from branching_nets import branching_net, drawn_net
from hypothesis import given, settings
from hypothesis import strategies as st

import dcp_tf
from dcp_tf import progress
from dcp_tf.graph import ChannelGraph, masked, rebuild
from dcp_tf.models.signature import flat as flat_values
from dcp_tf.models.signature import with_flat_signature
from dcp_tf.pruning import GroupPlan, PruningPlan
from dcp_tf.pruning.problem.stages import StageLoss, channel_unit, in_stages
from dcp_tf.settings.training import TrainConfig

hypothesis.settings.load_profile("pruning")

SHORT = TrainConfig(epochs=1, batch_size=16, learning_rate=0.01)
FEW = {"selection_samples": 24, "auxiliary_losses": 1, "recover": 0}
METHODS = {
    "dcp": dcp_tf.DCP(rate=0.4, **FEW),
    "dcp global": dcp_tf.DCP(target=dcp_tf.Target("macs", "60%"), allocation="global", **FEW | {"recover": None}),
    "dcp exact": dcp_tf.DCP(rate=0.4, selection="exact", per_step=3, **FEW),
    "adapt_dcp": dcp_tf.AdaptDCP(epsilon=0.05, **FEW),
    "dkp": dcp_tf.DKP(rate=0.4, **FEW),
    "dcp_dkp": dcp_tf.DCPDKP(rate=0.3, **FEW),
    "adapt_dkp": dcp_tf.AdaptDKP(epsilon=0.05, **FEW),
    "l1": dcp_tf.L1(rate=0.4),
    "l2": dcp_tf.L2(rate=0.4, allocation="global"),
    "fpgm": dcp_tf.FPGM(rate=0.4),
    "bn_scale": dcp_tf.BNScale(rate=0.4, exclude=(".*_hidden",)),
    "taylor": dcp_tf.Taylor(target=dcp_tf.Target("params", "70%"), selection_samples=24),
    "apoz": dcp_tf.APoZ(rate=0.4, selection_samples=24),
    "random updated": dcp_tf.Random(rate=0.4, update=True, **FEW),
    "thinet": dcp_tf.ThiNet(rate=0.4, selection_samples=24),
    "lasso": dcp_tf.Lasso(rate=0.4, selection_samples=24),
    "width_multiplier": dcp_tf.WidthMultiplier(rate=0.4),
    "width_multiplier+": dcp_tf.WidthMultiplier(rate=0.4, auxiliary_losses=1),
}
QUICK = ("taylor",)


def drawn_plan(graph, rng):
    """A plan that keeps random channels of some groups."""
    plans = []
    for group in graph.prunable(residual=True):
        if rng.random() < 0.7:
            kept = np.flatnonzero(rng.random(group.size) < 0.6)
            plans.append(GroupPlan(group.name, group.size, tuple(kept.tolist()) or (0,)))
    return PruningPlan(graph.fingerprint(), tuple(plans))


def outputs_of(model, inputs):
    return [np.asarray(x) for x in keras.tree.flatten(model(inputs, training=False))]


def close(first, second):
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(first, second, strict=True))


def weights(model):
    return [v.numpy() for v in model.variables]


def prune(net, method, **arguments):
    given = {"finetuning": None, "auxiliary": SHORT, "looks_at_baseline": False, "objective": net.objective}
    return dcp_tf.prune(net.model, net.data, method, **given | arguments)


def same_result(a, b):
    pairs = zip(weights(a.model), weights(b.model), strict=True)
    return a.plan.groups == b.plan.groups and all(np.array_equal(x, y) for x, y in pairs)


def check_form(net, result):
    """The result is nested as the model is, its plan applies to the model itself, and channels are gone."""
    keras.tree.assert_same_structure(result.model._outputs_struct, net.model._outputs_struct)
    keras.tree.assert_same_structure(result.model._inputs_struct, net.model._inputs_struct)
    applied = result.plan.apply(net.model)
    assert [v.shape for v in applied.variables] == [v.shape for v in result.model.variables]
    assert [x.shape for x in outputs_of(result.model, net.nested_inputs)] == [
        x.shape for x in outputs_of(net.model, net.nested_inputs)
    ]


@settings(max_examples=10)
@given(st.data())
def test_rebuilt_equals_masked_whatever_the_inputs_and_outputs(data):
    net = drawn_net(data.draw, images=4)
    graph, flat = ChannelGraph(net.model), ChannelGraph(with_flat_signature(net.model))
    plan = drawn_plan(graph, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert flat.fingerprint() == plan.fingerprint
    small = plan.apply(net.model)
    keras.tree.assert_same_structure(small._outputs_struct, net.model._outputs_struct)
    keras.tree.assert_same_structure(small._inputs_struct, net.model._inputs_struct)
    outputs = outputs_of(small, net.nested_inputs)
    assert close(outputs, outputs_of(masked(graph, plan.kept(graph)), net.nested_inputs))
    assert close(outputs, outputs_of(rebuild(flat, plan.kept(flat)), flat_values(net.nested_inputs)))


@settings(max_examples=2)
@given(st.data())
def test_equal_seeds_give_equal_plans_and_what_is_not_reached_stays(data):
    net = drawn_net(data.draw)
    branches = [name for name, kind in net.kinds.items() if kind != "feature"]
    chosen = data.draw(st.sampled_from(branches))
    before, inputs = weights(net.model), net.nested_inputs
    method = dcp_tf.DCP(rate=0.5, **FEW, exclude=(f"(?!{chosen}_block_conv).*",))
    first, second = (prune(net, method, auxiliary=TrainConfig(epochs=0), seed=1) for _ in range(2))
    assert same_result(first, second)
    check_form(net, first)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(net.model), strict=True))
    pairs = zip(outputs_of(net.model, inputs), outputs_of(first.model, inputs), strict=True)
    same = [np.array_equal(a, b) for a, b in pairs]
    order = [net.name_of(tensor) for tensor in net.model.outputs]
    assert dict(zip(order, same, strict=True)) == {name: name != chosen for name in net.kinds}


@settings(max_examples=30)
@given(st.data())
@pytest.mark.slow
def test_many_random_nets_are_pruned(data):
    keras.backend.clear_session()
    net = drawn_net(data.draw)
    method = METHODS[data.draw(st.sampled_from(sorted(set(METHODS) - {"bn_scale"})))]
    with contextlib.suppress(dcp_tf.RunError):  # an adaptive method may find everything necessary
        check_form(net, prune(net, method, finetuning=SHORT))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in METHODS])
def test_every_method_prunes_three_inputs_and_four_outputs(name):
    net = branching_net(["classes", "map", "numbers", "feature"], [1, 2, 2, 1], 3, "dict")
    result = prune(net, METHODS[name], finetuning=SHORT, validation_data=net.data)
    check_form(net, result)
    assert np.isfinite(result.before_finetuning["loss"])
    assert any(len(g.kept) < g.size for g in result.plan.groups) or result.plan.kernels


def test_stages_take_what_their_losses_follow_and_the_last_the_rest():
    net = branching_net(["classes", "map"], [0, 2], 1, "tuple")
    graph = ChannelGraph(net.model)
    trace = graph.trace
    by_path = {call.path: call.outputs[0] for call in trace.calls}
    heads = [StageLoss((by_path[p],), None, None) for p in ("trunk0_relu", "trunk1_relu")]
    final = StageLoss(tuple(trace.outputs), None, None)
    units = [channel_unit(graph, group) for group in graph.prunable()]
    stages = in_stages(graph, units, [*heads, final])
    # The stem is read by the branch of the classes too, which no head follows.
    assert [{unit.name for unit in stage.units} for stage in stages] == [
        set(),
        {"trunk0_conv"},
        {"stem_conv", "classes0_block_conv", "trunk1_conv", "map1_block_conv"},
    ]


@pytest.fixture(scope="module")
def pictured():
    """An image and metadata to classes and boxes."""
    return branching_net(["classes", "numbers"], [1, 2], 2, "dict", images=40)


def test_a_killed_run_of_two_inputs_and_outputs_resumes_to_the_same_end(pictured, tmp_path, monkeypatch):
    given = {"finetuning": TrainConfig(epochs=2, batch_size=16, learning_rate=0.01), "validation_data": pictured.data}

    def say(said, *_, **__):
        if said.startswith("fine-tuning 1/2"):  # what would be found if the process were killed now
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    monkeypatch.setattr(progress, "say", say)
    expected = prune(pictured, METHODS["dcp global"], state_dir=tmp_path / "whole", **given)
    assert "distillation" in expected.history[-1]
    monkeypatch.setattr(progress, "say", lambda said, *_, **__: lines.append(said))
    lines = []
    resumed = prune(pictured, METHODS["dcp global"], state_dir=tmp_path / "killed", resume=True, **given)
    assert same_result(resumed, expected)
    assert not [line for line in lines if line.startswith("selected")]


def test_labels_that_are_missing_of_an_output_are_the_models_own(pictured):
    inputs, labels = pictured.data
    answers = dict(zip(pictured.kinds, flat_values(pictured.model(inputs, training=False)), strict=True))
    partly = {"classes0": labels["classes0"]}
    complete = {**partly, "numbers1": np.asarray(answers["numbers1"])}
    results = [
        dcp_tf.prune(pictured.model, (inputs, given), METHODS["taylor"], objective=pictured.objective, finetuning=None)
        for given in (partly, complete)
    ]
    assert same_result(*results)


def test_sample_weights_count_in_the_selection(pictured):
    inputs, labels = pictured.data
    first = np.arange(40) < 20
    half = keras.tree.map_structure(lambda x: x[first], (inputs, labels))
    zeros = (inputs, labels, first.astype("float32"))
    method = dcp_tf.Taylor(rate=0.5, selection_samples=40, selection_batch=40)
    given = {"objective": pictured.objective, "finetuning": None, "looks_at_baseline": False}
    weighted, alone, plain = (
        dcp_tf.prune(pictured.model, data, method, **given).plan.channels for data in (zeros, half, (inputs, labels))
    )
    assert weighted == alone != plain


def test_compiled_losses_prune_as_the_same_losses_given_by_hand():
    net = branching_net(["classes", "numbers", "map"], [1, 2, 1], 1, "dict")
    for name in ("numbers1", "map2"):
        net.labels[name] *= 0.5  # a `Regression` divides by standard deviations above 1
    weights_of_losses = {"classes0": 1.0, "numbers1": 3.0, "map2": 0.5}
    by_hand = prune(net, METHODS["dcp"], loss_weights=weights_of_losses)
    classes = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"classes0": classes, "numbers1": "mse", "map2": keras.losses.MeanSquaredError()}
    net.model.compile("sgd", losses, loss_weights=weights_of_losses)
    compiled = prune(net, METHODS["dcp"], objective=None)
    assert same_result(by_hand, compiled)
    assert not same_result(
        by_hand, prune(net, METHODS["dcp"], loss_weights={"numbers1": 30.0}, objective=net.objective)
    )


def test_words_beside_an_image_are_numbers_of_an_embedding():
    keras.utils.set_random_seed(0)
    words, image = keras.Input((7,), dtype="int32", name="words"), keras.Input((8, 8, 3), name="image")
    text = keras.layers.Conv1D(6, 3, activation="relu", name="text")(keras.layers.Embedding(20, 8)(words))
    seen = keras.layers.Conv2D(6, 3, activation="relu", name="first")(image)
    seen = keras.layers.Conv2D(6, 3, activation="relu", name="second")(seen)
    pools = [keras.layers.GlobalAveragePooling1D()(text), keras.layers.GlobalAveragePooling2D()(seen)]
    both = keras.layers.Dense(8, activation="relu", name="both")(keras.layers.Concatenate()(pools))
    outputs = [keras.layers.Dense(3, name="classes")(both), keras.layers.Dense(2, name="numbers")(pools[1])]
    model = keras.Model({"words": words, "image": image}, outputs)
    rng = np.random.default_rng(0)
    inputs = {"words": rng.integers(0, 20, (24, 7)), "image": rng.normal(size=(24, 8, 8, 3)).astype("float32")}
    labels = (rng.integers(0, 3, 24), rng.normal(size=(24, 2)).astype("float32"))
    given = {"objective": ["softmax", "mse"], "finetuning": None, "auxiliary": SHORT, "looks_at_baseline": False}
    result = dcp_tf.prune(model, (inputs, labels), METHODS["dcp_dkp"], **given)
    assert result.plan.kernels
    assert sum(len(g.kept) < g.size for g in result.plan.groups) > 2
    assert [tuple(x.shape) for x in result.model(inputs)] == [(24, 3), (24, 2)]
