"""Whole runs that prune kernels: what they keep, zeros that stay, channels that go, stops, targets and plans."""

import contextlib
import dataclasses
import json
import math
import shutil

import keras
import numpy as np
import pytest
from pruning_nets import BARE, NONE
from test_pruning_runs import AUXILIARY, FINETUNING, Stopped, chain, joined, small, stop_at, weights

import dcp_tf
from dcp_tf import data, progress
from dcp_tf.errors import UsageError
from dcp_tf.evaluation import accuracy
from dcp_tf.graph import ChannelGraph, count_cost, kernel_sparsity, nominal_macs, rebuild
from dcp_tf.pruning import DCPDKP, DKP, AdaptDKP, KernelPlan, PruningPlan, Target
from dcp_tf.pruning.context import prepare
from dcp_tf.pruning.dcp.algorithm1 import select_channels
from dcp_tf.training import TrainConfig

METHODS = {
    "dkp": lambda **s: small(0.6, DKP, **s),
    "dcp_dkp": lambda **s: small(0.5, DCPDKP, kernel_rate=0.4, **s),
    "adapt_dkp": lambda **s: small(0.3, AdaptDKP, epsilon=1e-3, **s),
}


@pytest.fixture(scope="module")
def some(digits):
    (images, labels), _ = digits
    return images[:48], labels[:48]


def run(some, method, make=joined, **settings):
    return dcp_tf.prune(make(), some, method, **BARE | settings)


def nonzero(model):
    """Layer -> which kernels have any weight, over the last two axes."""
    records = ChannelGraph(model).records.values()
    kernels = {r.path: r.operation.kernel.numpy() for r in records if hasattr(r.operation, "kernel")}
    return {path: (kernel != 0).any(tuple(range(kernel.ndim - 2))) for path, kernel in kernels.items()}


def planned(plan, model):
    """Layer -> which kernels of the smaller model the plan keeps."""
    graph = ChannelGraph(model)
    kept, records = plan.kept(graph), {r.path: r for r in graph.records.values()}
    found = {}
    for layer in plan.kernels:
        by_axis = records[layer.layer].weights[layer.weight]
        first = len(records[layer.layer].operation.weights[layer.weight].shape) - 2
        found[layer.layer] = kept.take(layer.matrix(), {axis - first: by_axis[axis] for axis in by_axis})
    return found


def assert_zero_as_planned(plan, original, model):
    found = nonzero(model)
    for layer, expected in planned(plan, original).items():
        np.testing.assert_array_equal(found[layer], expected, err_msg=layer)


@pytest.mark.parametrize(("rate", "selection"), [(0.3, "exact"), (0.62, "fast")])
def test_dkp_keeps_exactly_its_share_of_each_layer(rate, selection, some):
    result = run(some, small(rate, DKP, selection=selection))
    assert [k.layer for k in result.plan.kernels] == ["inner", "conv", "last"]
    for layer in result.plan.kernels:
        size = math.prod(layer.shape)
        assert layer.history["kept"][-1] == size - math.floor(rate * size)
        assert layer.kept_count <= layer.history["kept"][-1]  # less where a whole channel went
        assert "added" not in layer.history
    assert_zero_as_planned(result.plan, joined(), result.model)


@pytest.mark.parametrize("selection", ["fast", pytest.param("exact", marks=pytest.mark.slow)])
def test_dcp_dkp_takes_its_share_of_the_kernels_that_channels_leave(selection, some):
    result = run(some, METHODS["dcp_dkp"](selection=selection))
    before = {"inner": 6 * 4, "conv": 4 * 4, "last": 10 * 4}
    left = {"inner": 3 * 2, "conv": 2 * 2, "last": 5 * 2}
    for layer in result.plan.kernels:
        assert math.prod(layer.shape) == before[layer.layer]
        assert layer.history["kept"][-1] == left[layer.layer] - math.floor(0.4 * left[layer.layer])
    assert_zero_as_planned(result.plan, joined(), result.model)
    assert all(len(g.kept) <= g.size / 2 for g in result.plan.groups)


@pytest.mark.parametrize("selection", ["exact", "fast"])
def test_adapt_dkp_holds_its_cap_and_keeps_more_for_a_smaller_epsilon(selection, some):
    kept = []
    for epsilon in (0.3, 0.0):
        result = run(some, small(0.3, AdaptDKP, epsilon=epsilon, selection=selection, per_step=1), chain)
        for layer in result.plan.kernels:
            assert layer.history["kept"][-1] <= math.ceil(round(0.7 * math.prod(layer.shape), 9))
        kept.append(sum(layer.history["kept"][-1] for layer in result.plan.kernels))
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


@pytest.mark.parametrize(("name", "selection"), [("dkp", "exact"), ("dcp_dkp", "fast"), ("adapt_dkp", "exact")])
def test_rebuilt_equals_masked(name, selection, some, rng):
    model, split, method = joined(), data.as_split(some), METHODS[name](selection=selection)
    for variable in model.weights:  # statistics and biases that matter
        if "kernel" not in variable.path:
            variable.assign(variable + rng.uniform(0.1, 0.9, variable.shape))
    graph, _, groups, kernels = select_channels(prepare(model, split, method, auxiliary=NONE))
    plan = PruningPlan(graph.fingerprint(), tuple(groups), kernels=tuple(kernels))
    rebuilt = rebuild(graph, plan.kept(graph))
    expected = graph.trace.model(some[0]).numpy()
    np.testing.assert_allclose(rebuilt(some[0]).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert_zero_as_planned(plan, model, rebuilt)


@pytest.mark.parametrize(
    ("name", "per_stage"),
    [
        ("dkp", True),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("dkp", False), ("dcp_dkp", True), ("adapt_dkp", False))),
    ],
)
def test_zeros_stay_zeros_through_all_training_and_saving(name, per_stage, some, tmp_path):
    method = METHODS[name](auxiliary_layers=("join",), per_stage=per_stage, selection_passes=1)
    result = run(some, method, auxiliary=AUXILIARY, finetuning=FINETUNING)
    assert_zero_as_planned(result.plan, joined(), result.model)
    result.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kernel_sparsity(loaded) == kernel_sparsity(result.model) != []
    trained = {phase["name"] for phase in result.history}
    assert "fine-tuning" in trained
    assert any(name.startswith("stage") for name in trained) == per_stage


def test_layers_whose_kernels_are_all_gone_are_held_too():
    """Masks come from the plan, not from the values."""
    model = joined()
    empty = KernelPlan.of("last", 0, np.zeros((10, 4), bool), {})
    plan = PruningPlan(ChannelGraph(model).fingerprint(), (), kernels=(empty,))
    masks = plan.kernel_masks(ChannelGraph(model), ChannelGraph(model))
    assert list(masks) == [id(model.get_layer("last").kernel)]
    assert not masks[id(model.get_layer("last").kernel)].any()


def test_channels_that_no_kernel_reads_go_for_good(some):
    """At a high rate whole channels lose all of their kernels."""
    result = run(some, small(0.9, DKP))
    assert sum(len(g.kept) for g in result.plan.groups) < sum(g.size for g in result.plan.groups)
    for name, kernels in nonzero(result.model).items():
        readers = {"inner": "stem", "conv": "inner"}
        if name in readers and kernels.shape[0] > 1:
            assert kernels.any(1).all(), f"{name} reads no kernel of some channel of {readers[name]}"
    assert result.model.count_params() < joined().count_params()


# Stops


def same(a, b):
    pairs = zip(weights(a.model), weights(b.model), strict=True)
    return a.plan == b.plan and all(np.array_equal(x, y) for x, y in pairs)


STOPS = {
    "dkp": ("exact", ["selected 2/3", "fine-tuning 1/2"]),
    "dcp_dkp": ("fast", ["selected 4/7", "selected 7/7"]),
}


@pytest.mark.parametrize("name", ["dcp_dkp", pytest.param("dkp", marks=pytest.mark.slow)])
def test_a_run_stopped_again_and_again_gives_the_same(name, some, tmp_path, monkeypatch):
    selection, stops = STOPS[name]
    method = METHODS[name](auxiliary_layers=("join",), selection=selection, recover=None)
    training = {"auxiliary": AUXILIARY, "finetuning": FINETUNING}
    whole_state, state = tmp_path / "whole", tmp_path / "state"

    def say(said):
        if said.startswith(stops[0]):  # what would be found if the process were killed now
            shutil.copytree(whole_state, state)

    monkeypatch.setattr(progress, "say", say)
    whole = run(some, method, **training, state_dir=whole_state)
    for before, line in zip(stops, [*stops[1:], None], strict=True):
        lines = stop_at(monkeypatch, line)
        with pytest.raises(Stopped) if line else contextlib.nullcontext():
            result = run(some, method, **training, state_dir=state, resume=True)
            assert same(result, whole)
        if before.startswith("selected") and line and line.startswith("selected"):
            assert next(said for said in lines if said.startswith("selected")).startswith(before)


@pytest.mark.slow
def test_per_stage_runs_stopped_in_the_middle_give_the_same(some, tmp_path, monkeypatch):
    method = METHODS["dkp"](auxiliary_layers=("join",), per_stage=True)
    whole = run(some, method, auxiliary=AUXILIARY)
    for number, line in enumerate(["stage 1 1/2", "selected 2/3", "stage 2 1/2", "selected 3/3", None]):
        stop_at(monkeypatch, line)
        with pytest.raises(Stopped) if line else contextlib.nullcontext():
            result = run(some, method, auxiliary=AUXILIARY, state_dir=tmp_path / "state", resume=number > 0)
            assert same(result, whole)


# Targets


def nominal_params(model):
    zeros = sum(9 * int((~kernels).sum()) for name, kernels in nonzero(model).items() if name != "out")
    return count_cost(model).params - zeros


MEASURES = {"macs": nominal_macs, "params": nominal_params}


@pytest.mark.parametrize(
    ("name", "measure"),
    [("dkp", "params"), ("dcp_dkp", "macs"), pytest.param("adapt_dkp", "macs", marks=pytest.mark.slow)],
)
def test_targets_are_never_exceeded(name, measure, some):
    share = 20 if name == "dcp_dkp" else 52  # its channels alone leave 30 % or so
    limit = int(share / 100 * getattr(count_cost(joined()), measure))
    result = run(some, METHODS[name](target=Target(measure, f"{share}%"), selection="fast"))
    spent = MEASURES[measure](result.model)
    assert spent <= limit
    if name == "dkp" and all(len(g.kept) == g.size for g in result.plan.groups):
        costs = {c.path: c for c in count_cost(joined()).layers}
        step = {"macs": lambda k: costs[k.layer].macs / math.prod(k.shape), "params": lambda k: 9}[measure]
        assert spent >= limit - sum(step(k) for k in result.plan.kernels)


# The plan


def test_the_plan_comes_back_from_json_and_gives_the_same_zeros_on_the_original(some, tmp_path):
    result = run(some, METHODS["dcp_dkp"](selection="fast"), finetuning=FINETUNING)
    result.plan.save(tmp_path / "plan.json")
    plan = PruningPlan.load(tmp_path / "plan.json")
    assert json.dumps(plan.to_json()) == json.dumps(result.plan.to_json())
    assert [k.matrix().tolist() for k in plan.kernels] == [k.matrix().tolist() for k in result.plan.kernels]
    model = joined()
    before = weights(model)
    again = plan.apply(model)
    assert [w.shape for w in again.weights] == [w.shape for w in result.model.weights]
    for name, kernels in nonzero(result.model).items():
        np.testing.assert_array_equal(nonzero(again)[name], kernels)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))


DAMAGE = {
    "no base64": {"kept": "???"},
    "cut": {"kept": ""},
    "too long": {"kept": "AAAAAAAAAAAAAAAAAAAAAAAA"},
    "a number": {"kept": 7},
    "another shape": {"shape": [2, 3]},
    "no shape": {"shape": 4},
    "negative shape": {"shape": [-4, -6]},
    "another layer": {"layer": "nowhere"},
    "another weight": {"weight": 9},
    "shape of another layer": {"shape": [4, 6]},
}


@pytest.fixture(scope="module")
def a_plan(some):
    return json.dumps(run(some, METHODS["dkp"](selection="fast")).plan.to_json())


@pytest.mark.parametrize("which", DAMAGE)
def test_a_damaged_plan_is_one_clear_line(which, a_plan):
    value = json.loads(a_plan)
    value["kernels"][0] |= DAMAGE[which]
    with pytest.raises(UsageError, match="plan") as error:
        PruningPlan.from_json(value).apply(joined())
    assert "\n" not in str(error.value)


# That it pays


@pytest.mark.slow
def test_dkp_beats_kernels_drawn_by_chance(digits, trained):
    train, test = digits
    auxiliary = TrainConfig(epochs=1, learning_rate=0.01)
    method = DKP(rate=0.6, selection_samples=512)
    result = dcp_tf.prune(trained, data.as_split(train), method, auxiliary=auxiliary, finetuning=NONE)
    rng = np.random.default_rng(0)
    drawn = [
        KernelPlan.of(k.layer, 0, rng.permuted(k.matrix().ravel()).reshape(k.shape), {}) for k in result.plan.kernels
    ]
    by_chance = dataclasses.replace(result.plan, kernels=tuple(drawn), groups=()).apply(trained)

    def top1(model):
        return accuracy(model, data.as_split(test).batches(256), outputs_kind="logits")["top1"]

    assert top1(result.model) > top1(by_chance) + 0.1
