"""A criterion of a user's own is known by name, and chooses."""

import ast
import doctest
import pathlib
import re

import numpy as np
import pruning_nets as nets
import pytest

import dcp_tf
from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.pruning import METHODS
from dcp_tf.training import TrainConfig

NONE = TrainConfig(epochs=0)


@pytest.fixture(autouse=True)
def table():
    """The table of methods as it was before."""
    before = dict(METHODS)
    yield METHODS
    METHODS.clear()
    METHODS.update(before)


def test_the_documented_example_runs_and_chooses(table):
    example = doctest.DocTestParser().get_examples(dcp_tf.register_importance.__doc__)
    model, split = nets.build(nets.residual), data.make_array_split(*nets.images())
    names = {"np": np, "dcp_tf": dcp_tf, "model": model, "train_data": split}
    for part in example:
        exec(part.source.replace("(rate=0.5)", "(rate=0.5, prune_residual=True), finetuning=None"), names)
    assert len([line for part in example for line in part.source.splitlines() if line.strip()]) <= 12
    assert table["largest_weight"] is names["LargestWeight"]
    largest = np.max([abs(model.get_layer(n).kernel.numpy()).max((0, 1, 2)) for n in ("make", "back1", "back2")], 0)
    assert names["result"].plan.channels["make"] == tuple(sorted(np.argsort(-largest)[:3].tolist()))
    assert names["result"].plan.method == "largest_weight"


def test_the_guide_has_the_same_example():
    example = doctest.DocTestParser().get_examples(dcp_tf.register_importance.__doc__)
    guide = (pathlib.Path(__file__).parents[3] / "docs" / "guides" / "custom_layers.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(?:import .*\n)*\s*(@dcp_tf.register_importance.*?)```", guide, re.DOTALL)
    written, documented = (ast.parse(text).body[0] for text in (block, example[0].source))
    assert ast.dump(written) == ast.dump(documented)


def test_fields_are_settings_that_the_plan_tells(table):
    @dcp_tf.register_importance
    class EveryNth(dcp_tf.Criterion):
        name = "every_nth"
        step: int = 2

        def score_channels(self, context, groups):
            return {g.name: (np.arange(g.size) % self.step == 0) + context.seed for g in groups}

    split = data.make_array_split(*nets.images())
    plan = dcp_tf.prune(nets.build(nets.several_channels), split, EveryNth(rate=0.4, step=3), finetuning=NONE).plan
    assert plan.channels["make"] == (0, 1, 3)
    assert plan.settings["step"] == 3
    assert table["every_nth"](step=4) == EveryNth(step=4)


def test_too_few_scores_are_refused_in_one_line():
    @dcp_tf.register_importance
    class TooFew(dcp_tf.Criterion):
        name = "too_few"

        def score_channels(self, context, groups):
            return {group.name: range(group.size - (group.name == "read")) for group in groups}

    split = data.make_array_split(*nets.images())
    with pytest.raises(UsageError, match=r"too_few must score each of the 4 channels of 'read'.*\(3,\)"):
        dcp_tf.prune(nets.build(nets.several_channels), split, TooFew(rate=0.4), finetuning=NONE)


def test_what_is_no_criterion_is_refused_in_one_line():
    class Unnamed(dcp_tf.Criterion):
        pass

    for wrong in (Unnamed, lambda context, groups: {}, dict):
        with pytest.raises(UsageError, match=r"a subclass of dcp_tf.Criterion with a name"):
            dcp_tf.register_importance(wrong)

    class Other(dcp_tf.Criterion):
        name = "l1"

    with pytest.raises(UsageError, match=re.escape("'l1' belongs to dcp_tf.pruning.importance.filters.L1")):
        dcp_tf.register_importance(Other)


@pytest.mark.parametrize("name", ["L1", "L2", "FPGM", "BNScale", "Taylor", "APoZ", "Random", "ThiNet", "Lasso"])
def test_criteria_are_public(name):
    criterion = getattr(dcp_tf, name)
    assert METHODS[criterion.name] is criterion
    assert METHODS["width_multiplier"] is dcp_tf.WidthMultiplier
