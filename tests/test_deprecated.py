"""Old public names still work, and warn with the new one."""

import pytest

from dcp_tf import data, graph, tflite

RENAMED = [
    (data, "DatasetSplit", "TfDataSplit"),
    (data, "PlainSplit", "ArraySplit"),
    (data, "Readable", "DataSplit"),
    (data, "Split", "ImageSplit"),
    (data, "load_plain", "load_arrays"),
    (data, "plain_split", "make_array_split"),
    (graph, "group_shares", "group_fractions"),
    (graph, "shrinkable_share", "shrinkable_fraction"),
    (tflite, "require", "check_tolerance"),
]


@pytest.mark.parametrize(("module", "old", "new"), RENAMED)
def test_an_old_name_is_the_new_thing_and_warns(module, old, new):
    with pytest.warns(DeprecationWarning, match=rf"{module.__name__}\.{new}$") as warnings:
        assert getattr(module, old) is getattr(module, new)
    assert warnings[0].filename == __file__


@pytest.mark.parametrize("module", [data, graph, tflite])
def test_other_names_stay_unknown(module):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018
