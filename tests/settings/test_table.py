"""Tables of settings: one check for types, choices and ranges; errors that programs print with their flags."""

import dataclasses
import pickle

import numpy as np
import pytest

from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.table import Settings, documented, same_setting, setting
from dcp_tf.settings.training import TrainConfig
from dcp_tf.tools import prune, train  # noqa: F401  (their flags)
from dcp_tf.tools.cli.flags_from_settings import read
from dcp_tf.tools.cli.program import explain, name_flags
from dcp_tf.tools.cli.training_flags import PHASES


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Table(Settings):
    """An example."""

    share: float = setting(0.5, "A share, see {count}.", above=0, below=1)
    count: int | None = setting(None, "A count.", lower=2, upper=9, hint="; {share}=0.1 is another way")
    names: tuple[str, ...] = setting(("a",), "Names.", choices=("a", "b"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Other(Table):
    count: int | None = same_setting(Table, "count", 4)


@pytest.mark.parametrize(
    ("values", "line", "names"),
    [
        ({"share": 1}, "share must be above 0 and below 1, received 1", ("share",)),
        ({"share": float("nan")}, "share must be above 0 and below 1, received nan", ("share",)),
        (
            {"count": 1},
            "count must be 2 to 9; share=0.1 is another way, received 1",
            ("count", "share"),
        ),
        ({"names": ["a", "c"]}, "names must be one of a, b, received ('a', 'c')", ("names",)),
        ({"count": "2"}, "count must be a whole number or None, received '2'", ()),
    ],
)
def test_a_wrong_value_is_named(values, line, names):
    for table in (Table, Other):
        with pytest.raises(UsageError) as caught:
            table(**values)
        assert (str(caught.value), caught.value.settings) == (line, names)


def test_right_values_become_plain_ones():
    table = Table(share=np.float32(0.25), count=np.int64(9), names="b")
    assert table == Table(share=0.25, count=9, names=("b",))
    assert (Table().count, Other().count) == (None, 4)


def test_help_lists_the_fields():
    assert "    share: A share, see `count`.\n    count: A count." in Table.__doc__


@pytest.mark.parametrize(
    ("line", "names", "with_flags"),
    [
        ("residual streams need prune_residual=True", ["prune_residual"], "residual streams need --prune_residual"),
        ("lower auxiliary.learning_rate (now 1)", ["auxiliary.learning_rate"], "lower --aux_lr (now 1)"),
        ("score=paper needs selection='exact'", ["score", "selection"], "--score=paper needs --selection=exact"),
        ("the loss needs loss=mse", ["loss"], "the loss needs --loss=mse"),
        ("give an input size", ["image_size"], "give an input size (--image_size)"),
        ("give data_dir, or tfds build --data_dir=DIR", ["data_dir"], "give --data_dir, or tfds build --data_dir=DIR"),
        ("momentum must be 0 or more", ["momentum"], "momentum must be 0 or more"),  # no flag sets it
    ],
)
def test_programs_print_flags_in_place_of_settings(line, names, with_flags):
    assert name_flags(line, names) == with_flags
    for kind, code in ((UsageError, 2), (RunError, 1)):
        error = pickle.loads(pickle.dumps(kind(line, names)))  # as from another process
        assert explain(error) == (with_flags, code)


@pytest.mark.parametrize(("phase", "flag"), [("auxiliary", "aux_lr"), ("finetuning", "finetune_lr")])
def test_a_training_is_refused_by_the_flags_of_its_phase(phase, flag):
    with pytest.raises(UsageError, match=rf"^--{flag} must be above 0; --{flag[:-3]}_epochs=0 leaves the training out"):
        read({flag: 0.0}, *PHASES[phase])
    assert read({flag: 0.5}, *PHASES[phase]) == dataclasses.replace(PHASES[phase][0], learning_rate=0.5)
    assert read({"max_steps_per_epoch": 3}, TrainConfig, epochs=1).steps_per_epoch == 3
