"""Old public names still work, and warn with the new one."""

import pytest

from dcp_tf import data

RENAMED = {
    "DatasetSplit": "TfDataSplit",
    "PlainSplit": "ArraySplit",
    "Readable": "DataSplit",
    "Split": "ImageSplit",
    "load_plain": "load_arrays",
    "plain_split": "make_array_split",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_the_new_thing_and_warns(old, new):
    with pytest.warns(DeprecationWarning, match=rf"dcp_tf\.data\.{new}$"):
        assert getattr(data, old) is getattr(data, new)


def test_other_names_stay_unknown():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        data.nothing  # noqa: B018
