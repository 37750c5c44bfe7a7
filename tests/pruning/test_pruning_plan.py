"""The plan: through JSON and back, for one model only, edited by hand, never half-written."""

import json

import keras
import numpy as np
import pytest
from pruning_nets import NETS, build, images

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import GroupPlan, PruningPlan


@pytest.fixture
def model():
    return build(NETS["several_channels"])


def plan_for(model, kept=(0, 2, 4), **others):
    graph = ChannelGraph(model)
    group = graph.group("make")
    history = {"kept": [0, 3], "loss": [2.5, 1.25], "added": [[], [4, 0, 2]]}
    groups = (GroupPlan("make", group.size, kept, group.consumers, history),)
    return PruningPlan(graph.fingerprint(), groups, "dcp", {"rate": 0.4, "seed": 3, **others})


def test_a_plan_survives_json(model, tmp_path):
    plan = plan_for(model)
    assert PruningPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert PruningPlan.load(plan.save(tmp_path / "plan.json")) == plan


def test_a_loaded_plan_makes_the_same_model(model, tmp_path):
    plan = plan_for(model)
    x, _ = images(4)
    again = PruningPlan.load(plan.save(tmp_path / "plan.json"))
    np.testing.assert_array_equal(plan.apply(model)(x), again.apply(ChannelGraph(model))(x))


def test_the_model_is_smaller_by_what_the_plan_says(model):
    small = plan_for(model).apply(model)
    gone = 2
    assert model.get_layer("make").kernel.shape[-1] - small.get_layer("make").kernel.shape[-1] == gone
    per_channel = 3 * 3 * 3 + 1 + 4 + 3 * 3 * 4  # filter, bias, BatchNormalization, slice of the reader
    assert model.count_params() - small.count_params() == gone * per_channel


def test_a_plan_fits_one_architecture_whatever_its_weights(model):
    plan = plan_for(model)
    assert plan.apply(build(NETS["several_channels"], seed=5)).count_params() < model.count_params()
    with pytest.raises(UsageError, match="fingerprint"):
        plan.apply(build(NETS["depthwise"]))


def test_a_plan_applied_twice_is_refused(model):
    plan = plan_for(model)
    with pytest.raises(UsageError, match="applied to it before"):
        plan.apply(plan.apply(model))


@pytest.mark.parametrize(
    ("name", "kept", "words"),
    [
        ("no_such_group", [0], "no channel group 'no_such_group'"),
        ("make", [], "would keep no channel"),
        ("make", [0, 5], r"channels 0..4, received \[0, 5\]"),
        ("make", [-1, 2], r"channels 0..4, received \[-1, 2\]"),
        ("make", [1, 2, 3, 4, 5], r"channels 0..4, received \[1, 5\]"),
        ("logits", [0], "cannot be removed: it is an output"),
    ],
)
def test_a_plan_edited_wrongly_names_the_group(model, name, kept, words):
    value = json.loads(json.dumps(plan_for(model).to_json()))
    sizes = {group.name: group.size for group in ChannelGraph(model).groups}
    value["groups"][0] |= {"name": name, "kept": kept, "size": sizes.get(name, 5)}
    with pytest.raises(UsageError, match=words):
        PruningPlan.from_json(value).apply(model)


def test_a_plan_that_contradicts_itself_or_the_model_is_refused(model):
    value = plan_for(model).to_json()
    group = value["groups"][0]
    for changed, words in (
        ({"groups": [group, group]}, "names the group 'make' twice"),
        ({"groups": [group | {"size": 6}]}, "'make' has 6 channels, the model's has 5"),
        ({"settings": None}, "no pruning plan"),
    ):
        with pytest.raises(UsageError, match=words):
            PruningPlan.from_json(value | changed).apply(model)


def test_a_plan_edited_to_keep_fewer_applies(model):
    value = json.loads(json.dumps(plan_for(model).to_json()))
    value["groups"][0]["kept"] = [4, 0]
    small = PruningPlan.from_json(value).apply(model)
    np.testing.assert_array_equal(small.get_layer("make").kernel, model.get_layer("make").kernel.numpy()[..., [0, 4]])


def test_a_plan_that_keeps_everything_changes_nothing(model):
    x, _ = images(4)
    np.testing.assert_array_equal(plan_for(model, tuple(range(5))).apply(model)(x), model(x))


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '"plan"', "null", '{"version": 1}', '{"version": 1, "fingerprint": "a", "groups": [{"name": "x"}]}'],
)
def test_what_is_no_plan_is_refused_by_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"other\.json is no pruning plan"):
        PruningPlan.load(path)


def test_another_version_is_refused(model, tmp_path):
    value = plan_for(model).to_json() | {"version": 99}
    with pytest.raises(UsageError, match="version 99"):
        PruningPlan.from_json(value)
    with pytest.raises(UsageError, match="no file"):
        PruningPlan.load(tmp_path / "missing.json")


def test_a_plan_that_cannot_be_written_leaves_the_old_one(model, tmp_path):
    plan = plan_for(model)
    path = plan.save(tmp_path / "plan.json")
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        plan_for(model, model=keras.layers.ReLU()).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("kept", [[0, 0, 2], [0, 1.0], [0, True], [0, None], ["0"], [0, [1]], [10**30], "012"])
def test_only_whole_channel_numbers_each_once_are_a_plan(model, kept):
    value = json.loads(json.dumps(plan_for(model).to_json()))
    value["groups"][0]["kept"] = kept
    with pytest.raises(UsageError, match=r"group 'make' must keep channel numbers|no pruning plan"):
        PruningPlan.from_json(value)


@pytest.mark.parametrize("changed", [{"size": 5.0}, {"size": True}, {"size": "5"}, {"size": -5}, {"name": 3}])
def test_sizes_and_names_of_other_types_are_no_plan(model, changed):
    value = json.loads(json.dumps(plan_for(model).to_json()))
    value["groups"][0] |= changed
    with pytest.raises(UsageError, match="no pruning plan"):
        PruningPlan.from_json(value)


def test_a_file_of_brackets_is_one_line(tmp_path):
    (tmp_path / "plan.json").write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(UsageError, match=r"plan\.json is no readable JSON file"):
        PruningPlan.load(tmp_path / "plan.json")
