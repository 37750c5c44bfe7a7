"""Tables of plain text."""

from dcp_tf.text_table import reduction, settings_line, text_table


def test_a_table_aligns_numbers_on_the_right_and_has_no_trailing_spaces():
    lines = text_table(
        "costs", ("layer", "MACs", "note"), [("conv", 1234567, "a"), ("dense", None, "")], ["end"]
    ).split("\n")
    assert lines == [
        "costs",
        "layer       MACs  note",
        "-----  ---------  ----",
        "conv   1,234,567  a",
        "dense          -",
        "end",
    ]


def test_settings_that_nobody_stated_are_left_out():
    assert settings_line({"rate": 0.5, "target": None, "exclude": (), "prune_residual": False}) == (
        "rate=0.5, prune_residual=False"
    )


def test_a_reduction_has_its_sign():
    assert (reduction(100, 48), reduction(100, None), reduction(0, 5)) == ("-52.0%", "-", "-")
