"""A run leaves its flags in flags.txt, and --flagfile repeats it."""

import json

import pytest
from tool_inputs import SHORT, kept_channels, residual_model, write_images

from dcp_tf.tools import prune, report
from dcp_tf.tools.cli import run_flags
from dcp_tf.tools.cli.program import Program

QUICK = (*SHORT, "--method=l1", "--finetune_epochs=0")


def test_a_run_is_repeated_by_its_own_flags(tmp_path, capsys):
    folder = tmp_path / "#1, my photos é"
    folder.mkdir()
    residual_model().save(folder / "a, b.keras")
    write_images(folder / "four.npz")
    first, second = folder / "first", folder / "second"
    given = [
        *(*QUICK, f"--model={folder / 'a, b.keras'}", f"--dataset=npz:{folder / 'four.npz'}", "--rate=30%"),
        *("--exclude=wide,in.*de", "--prune_residual", "--seed=5", "--overwrite", f"--output_dir={first}"),
    ]
    assert prune.run(given) == 0
    text = (first / "flags.txt").read_text("utf-8")
    assert f"\n--model={folder / 'a, b.keras'}\n" in text
    assert "--overwrite" not in text
    assert f"dcp-tf prune --flagfile={first / 'flags.txt'}" in text.splitlines()[0]
    assert prune.run([f"--flagfile={first / 'flags.txt'}"]) == 2  # the run is finished
    assert prune.run([f"--flagfile={first / 'flags.txt'}", f"--output_dir={second}"]) == 0
    assert (second / "flags.txt").read_text("utf-8") == text.replace(str(first), str(second))
    settings = [json.loads((run / "summary.json").read_text())["settings"] for run in (first, second)]
    changed = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert changed == {"output_dir", "overwrite"}
    assert kept_channels(first) == kept_channels(second) != {}


def test_what_no_file_can_hold_is_a_comment(tmp_path):
    program = Program("some", "Does something.")
    program.section("All")
    program.path("model", None, "A model.")
    program.list("names", [], "Names.")
    program.paths("paths", [], "Paths.")
    program.integer("seed", 3, "A seed.")
    program.boolean("resume", False, "Goes on.")
    program.boolean("check", True, "A switch.")
    for model in ("two\nlines", " begins with a space", "no \udce9 text"):
        given = [f"--model={model}", '--names="a,b",c', '--paths="x y,z",w', "--nocheck"]
        program.run(lambda flags: run_flags.record_flags(program, flags, tmp_path), given)
        lines = (tmp_path / "flags.txt").read_text("utf-8").splitlines()[2:]
        assert lines[0].startswith("# --model has characters") or model.startswith(" ")
        seen = []
        program.run(lambda flags, seen=seen: seen.append(flags), [f"--flagfile={tmp_path / 'flags.txt'}"])
        (flags,) = seen
        assert (flags.names, flags.paths, flags.seed, flags.check) == (["a,b", "c"], ["x y,z", "w"], 3, False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe\x00", "holds no text"),
        (b"--nothing=3\n", "Unknown command line flag 'nothing'"),
        (b"# a remark\n\n--output_dir=x\nextra\n", "unexpected argument 'extra'"),
    ],
)
def test_a_file_of_flags_that_cannot_be_used_is_one_line(content, words, tmp_path, capsys):
    path = tmp_path / "flags.txt"
    if content is not None:
        path.write_bytes(content)
    assert report.run([f"--flagfile={path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
