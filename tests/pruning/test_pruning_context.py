"""A run traces each model once, binds the objective once, and resolves widths once."""

import collections

import numpy as np
import pruning_nets as nets
import pytest

import dcp_tf
from dcp_tf import data
from dcp_tf.graph.trace import Trace
from dcp_tf.pruning import METHODS, KernelPlan, PruningPlan, context, prepare, prune_prepared
from dcp_tf.pruning.dcp import algorithm1
from dcp_tf.training import Classification, TrainConfig

ONE = TrainConfig(epochs=1, batch_size=8)
NONE = TrainConfig(epochs=0)
FEW = {"auxiliary_layers": ("read",), "selection_batch": 5, "selection_samples": 14, "recover": 0.001}


def given_plan():
    """A plan that removes a channel and a kernel."""
    plan = dcp_tf.prune(nets.build(nets.several_channels), split(), dcp_tf.L1(rate=0.2), finetuning=NONE).plan
    kernels = KernelPlan.of("read", 0, np.eye(5, 4) == 0, {})
    return PruningPlan(plan.fingerprint, plan.groups, plan.method, plan.settings, (kernels,))


def split():
    return data.make_array_split(*nets.images())


# How many models there are: the baseline, the result, a working copy, and the baseline as auxiliary losses trained it.
RUNS = {
    "random": (lambda: METHODS["random"](rate=0.4), 2),
    "l1:update": (lambda: dcp_tf.L1(rate=0.4, update=True, **FEW), 3),
    "dcp": (lambda: dcp_tf.DCP(rate=0.4, **FEW), 3),
    "dcp:auxiliary_trains=all": (lambda: dcp_tf.DCP(rate=0.4, auxiliary_trains="all", **FEW), 4),
    "dcp:allocation=global": (lambda: dcp_tf.DCP(rate=0.4, allocation="global", **FEW), 3),
    "dkp": (lambda: dcp_tf.DKP(target=dcp_tf.Target("macs", "70%"), **FEW), 3),
    "width_multiplier": (lambda: METHODS["width_multiplier"](rate=0.4, auxiliary_layers=("read",)), 2),
    "plan": (given_plan, 3),
}


@pytest.fixture
def traced(monkeypatch):
    """The models that are traced; the list keeps them, so that no two have the same id."""
    models, trace = [], Trace.__init__

    def traces(self, model, *args, **kwargs):
        models.append(model)
        trace(self, model, *args, **kwargs)

    monkeypatch.setattr(Trace, "__init__", traces)
    return models


@pytest.fixture
def calls(monkeypatch):
    """How often objectives are bound, and widths and layers of kernels computed."""
    counts = collections.Counter()

    def counted(name, function):
        def call(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Classification, "bind", counted("bind", Classification.bind))
    monkeypatch.setattr(context, "choose_widths", counted("widths", context.choose_widths))
    monkeypatch.setattr(context, "kernel_units", counted("kernels", context.kernel_units))
    monkeypatch.setattr(algorithm1, "kernel_units", counted("kernels of the copy", algorithm1.kernel_units))
    return counts


@pytest.mark.parametrize("name", RUNS)
def test_a_run_resolves_everything_once(name, traced, calls):
    method, models = RUNS[name][0](), RUNS[name][1]
    model, images = nets.build(nets.several_channels), split()
    traced.clear(), calls.clear()
    dcp_tf.prune(model, images, method, validation_data=images, auxiliary=ONE, finetuning=ONE)
    assert max(collections.Counter(map(id, traced)).values()) == 1
    assert len(traced) == models
    assert max(calls.values()) == 1
    assert calls["bind"] == calls["widths"] == 1


def test_other_runs_of_a_model_resolve_only_what_differs(traced, calls):
    model, images = nets.build(nets.several_channels), split()
    prepared = prepare(model, images, dcp_tf.L1(rate=0.4), finetuning=NONE)
    for changes in ({}, {"seed": 1}, {"method": dcp_tf.L1(rate=0.4)}, {"train_data": images}):
        other = prepared.rebind(**changes)
        assert (other.graph, other.widths) == (prepared.graph, prepared.widths)
        assert other.history is not prepared.history
    assert other.seed == 0
    assert prepared.rebind(seed=1).finetuning.seed == 1
    assert calls["bind"] == calls["widths"] == 1
    assert prepared.rebind(dcp_tf.L1(rate=0.2)).widths == {"make": 4, "read": 4}
    fewer = prepared.rebind(train_data=images.take(np.arange(8)))
    assert (fewer.data.size, fewer.widths) == (8, prepared.widths)
    assert calls["bind"] == calls["widths"] == 2
    assert traced == [model]


def test_a_prepared_run_gives_what_prune_gives():
    model, images, method = nets.build(nets.several_channels), split(), dcp_tf.L2(rate=0.4)
    prepared = prepare(model, images, dcp_tf.L1(rate=0.2), finetuning=ONE).rebind(method, seed=3)
    results = [dcp_tf.prune(model, images, method, finetuning=ONE, seed=3), prune_prepared(prepared)]
    first, second = (result.model.get_weights() for result in results)
    assert results[0].plan == results[1].plan
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_prepare_writes_nothing_and_changes_no_weight(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nets.build(nets.several_channels)
    before = [weight.numpy() for weight in model.weights]
    prepared = prepare(model, split(), dcp_tf.DCP(rate=0.4))
    assert prepared.widths == {"make": 3, "read": 3}
    assert prepared.history == []
    assert not list(tmp_path.iterdir())
    assert all((a == b.numpy()).all() for a, b in zip(before, model.weights, strict=True))
