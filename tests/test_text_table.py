"""Tables of plain text."""

import html.parser

from dcp_tf.text_table import ShownAsTables, Table, print_tables, reduction, settings_line, text_table


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


class Shown(ShownAsTables):
    def _tables(self):
        rows = [("<b>&amp;\"'</b>", 1234567), ("conv", None)]
        return [Table("<i>costs</i>", ("layer", "MACs"), rows, ["<u>end</u>"], [0.25, None])]


def test_a_notebook_gets_the_table_as_html_that_escapes_every_name(capsys):
    texts, tags = [], set()
    parser = html.parser.HTMLParser()
    parser.handle_data = texts.append
    parser.handle_starttag = lambda tag, attributes: tags.add(tag)
    page = Shown()._repr_html_()
    parser.feed(page)
    assert tags == {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert "".join(texts) == "<i>costs</i>layerMACs<b>&amp;\"'</b>1,234,567conv-<u>end</u>"
    assert "width:25.0%" in page
    print_tables(Shown()._tables(), print)
    assert "1,234,567" in capsys.readouterr().out
