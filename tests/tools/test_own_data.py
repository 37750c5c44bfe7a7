"""A function of the user's gives a program the same data as a file, and data that are taken as they are."""

import json

import numpy as np
from tool_inputs import write_images

from dcp_tf.tools import evaluate

CODE = """
import numpy as np

def both():
    arrays = np.load({path!r})
    return [(arrays["x_" + part], arrays["y_" + part]) for part in ("train", "test")]

def batches():
    import tensorflow as tf
    return [tf.data.Dataset.from_tensor_slices(arrays).batch(7) for arrays in both()]
"""


def figures(capsys, *flags):
    assert evaluate.run([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_function_measures_as_the_file_does(inputs, tmp_path, capsys):
    path = tmp_path / "loader.py"
    path.write_text(CODE.format(path=str(write_images(tmp_path / "a.npz", size=64))))
    of_file = figures(capsys, inputs.residual, f"--dataset=npz:{tmp_path}/a.npz")
    for name in ("both", "batches"):
        assert figures(capsys, inputs.residual, f"--dataset=python:{path}:{name}") == of_file


def test_what_a_function_gives_is_one_line_where_it_does_not_fit(inputs, tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text(CODE.format(path=str(write_images(tmp_path / "b.npz", shape=(16, 16, 3), size=32))))
    for flags, words in (
        ([], "shape (16, 16, 3), the model takes (8, 8, 3)"),
        (["--normalization=unit"], "leave out normalization"),
    ):
        assert evaluate.run([inputs.residual, f"--dataset=python:{path}:both", *flags]) == 2
        assert words in capsys.readouterr().err


def test_labels_by_name_reach_the_one_output(inputs, tmp_path, capsys):
    arrays = dict(np.load(write_images(tmp_path / "c.npz", size=64)))
    of_file = figures(capsys, inputs.residual, f"--dataset=npz:{tmp_path}/c.npz")
    named = {f"{key}/classes" if key[0] == "y" else key: array for key, array in arrays.items()}
    np.savez(tmp_path / "d.npz", **named)
    assert figures(capsys, inputs.residual, f"--dataset=npz:{tmp_path}/d.npz") == of_file
