"""The tables of inspect_model in a log: at most 80 characters, names in one piece, every figure there."""

from dcp_tf.tools import inspect_model
from dcp_tf.tools.cli import narrow_tables

GROUP = {
    "name": "g" * 50,
    "size": 1024,
    "producers": ["first_producer_of_the_group", "another"],
    "consumers": [f"reader_number_{n}" for n in range(9)],
    "residual": True,
    "pinned_because": None,
    "params_share": 0.123,
    "macs_share": None,
}


def test_lines_fit_80_characters_and_keep_names_in_one_piece():
    pinned = {**GROUP, "name": "head", "pinned_because": "the layer takes statistics over its channels " * 4}
    lines = narrow_tables.group_lines([GROUP, pinned], {"head": 512})
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for said in ("g" * 50, "1024 of 1024", "512 of 1024", "12.3%", "residual", "first_producer_of_the_group", "6 more"):
        assert said in text


def test_layers_show_open_sizes_and_costs():
    lines = narrow_tables.layer_lines(
        [{"name": "conv", "kind": "Conv2D", "outputs": [[None, 8, 4]], "params": 12345, "macs": 10**12}]
    )
    assert max(map(len, lines)) <= 80
    assert "12,345" in lines[1]
    assert "1,000,000,000,000" in lines[1]
    assert "Conv2D: ? x 8 x 4" in lines[2]


def test_a_rate_shows_every_group_with_what_it_keeps(capsys, monkeypatch):
    for columns in ("80", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        assert inspect_model.run(["--model=zoo:preresnet8", "--rate=0.25", "--round_to=1", "--layers"]) == 0
        out = capsys.readouterr().out
        assert "stage2_block1_conv1" in out
        assert "24 of 32" in out
        assert "64 of 64" in out  # residual streams stay whole
        assert max(map(len, out.splitlines())) <= int(columns)
