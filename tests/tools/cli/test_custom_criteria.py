"""`--method` takes a criterion that the file of `--custom_objects` registers."""

import copy
import sys

import pytest

from dcp_tf.errors import UsageError
from dcp_tf.pruning import METHODS
from dcp_tf.tools import compare, prune
from dcp_tf.tools.cli import method_specs, pruning_flags

CODE = """
import dcp_tf

@dcp_tf.register_importance
class LastChannels(dcp_tf.Criterion):
    name = "last_channels"

    def score_channels(self, context, groups):
        return {group.name: range(group.size) for group in groups}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The file; what it registers is forgotten at the end."""
    path = tmp_path / "criterion_of_a_test.py"
    path.write_text(CODE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(METHODS)
    yield path
    METHODS.clear()
    METHODS.update(before)


def parsed(program, *flags):
    values = copy.deepcopy(program.PROGRAM.flags)
    values([program.__name__, *flags])
    return values


def test_a_program_takes_it_by_name(file):
    flags = parsed(prune, "--method=last_channels", "--rate=0.25", f"--custom_objects={file}")
    method = pruning_flags.read_method(flags)
    assert (method.name, method.rate) == ("last_channels", 0.25)
    again = parsed(prune, "--method=last_channels", f"--custom_objects={file}")
    assert type(pruning_flags.read_method(again)) is type(method) is METHODS["last_channels"]


def test_a_comparison_takes_it_with_options(file):
    flags = parsed(compare, f"--custom_objects={file}")
    plain, updated = method_specs.read_variants(["last_channels", "last_channels:update"], flags)
    assert (plain.method.update, updated.method.update) == (False, True)


def test_without_its_file_the_name_is_unknown(file):
    for flags in ([], [f"--custom_objects={file.with_name('other.py')}"]):
        with pytest.raises(UsageError, match=r"unknown method 'last_channels'; choose among dcp, |no Python file"):
            pruning_flags.read_method(parsed(prune, "--method=last_channels", *flags))
