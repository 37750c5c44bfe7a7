"""inspect_model: what pruning would leave, the papers' scope, the sweep and the picture."""

import json

import keras
import numpy as np
import pytest

from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.models.custom_objects import import_custom_objects
from dcp_tf.tools import inspect_model
from dcp_tf.tools.app import sweep


def printed(capsys, *flags):
    assert inspect_model.run([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("network", "rate", "params", "flops"), [("resnet18", 0.3, 28.05, 27.49), ("preresnet56_cifar", 0.5, 49.67, 49.78)]
)
def test_the_papers_scope_gives_the_papers_reductions(network, rate, params, flops, capsys):
    found = printed(capsys, f"--model=zoo:{network}", f"--rate={rate}", "--paper_scope")
    assert round(found["params_reduction_percent"], 2) == params
    assert round(found["flops_reduction_percent"], 2) == flops
    assert found["params"] == pytest.approx(found["baseline_params"] * (1 - params / 100), rel=1e-3)


def test_a_target_is_met_and_what_is_reachable_is_listed(capsys):
    found = printed(capsys, "--model=zoo:preresnet8", "--target_macs=60%", "--round_to=4")
    assert found["macs"] <= 0.6 * found["baseline_macs"]
    assert all(width % 4 == 0 for width in found["widths"].values())
    assert [row["rate"] for row in found["reachable"]][-1] == 1.0
    assert inspect_model.run(["--model=zoo:preresnet8", "--target_params=60%"]) == 0
    assert "what is reachable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target_macs=0.1%"], "cannot be reached"),
        (["--target_macs=60%", "--target_params=60%"], "one target"),
        (["--rate=0.5", "--target_macs=60%"], "not both"),
        (["--rate=1.5"], "--rate must be above 0 and below 1"),
        (["--target_bytes=many"], "received 'many'"),
    ],
)
def test_what_cannot_be_done_is_one_line(flags, said, capsys):
    assert inspect_model.run(["--model=zoo:preresnet8", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_paper_scope_is_for_the_papers_networks(capsys):
    assert inspect_model.run(["--model=keras:MobileNet", "--rate=0.3", "--paper_scope"]) == 2
    assert "zoo:NAME" in capsys.readouterr().err


def test_the_sweep_checks_networks_by_name(capsys):
    (row,) = printed(capsys, "--sweep", "--only=^MobileNetV2$")
    assert row["failure"] is None
    assert row["error"] <= 1e-4
    assert row["shrinkable"] >= 0.9
    assert inspect_model.run(["--sweep", "--only=NoSuchNet"]) == 2


@pytest.mark.slow
def test_all_of_keras_applications_can_be_pruned(capsys):
    rows = printed(capsys, "--sweep")
    assert len(rows) == 40
    assert [row["network"] for row in rows if row["failure"]] == []


@pytest.mark.slow
def test_networks_of_keras_hub_can_be_pruned(capsys):
    pytest.importorskip("keras_hub")
    rows = printed(capsys, "--sweep=keras_hub")
    assert len(rows) == 8
    for row in rows:
        assert row["failure"] is None, row
        assert row["tflite_error"] < 1e-3 or row["precision"] == "float64"
        assert row["shrinkable"] > 0.99 or row["network"] == "ViT"
        assert bool(row["pinned"]) == (row["network"] == "ViT")


def test_a_random_plan_of_a_sweep_keeps_as_many_channels_of_each_head():
    x = keras.Input((5, 6))
    graph = ChannelGraph(keras.Model(x, keras.layers.MultiHeadAttention(3, 8)(x, x)))
    kept = graph.kept(sweep.random_plan(graph, 0.3, 0))  # raises an error otherwise
    assert count_cost(graph, kept).params < count_cost(graph).params


def test_a_sweep_names_its_library(capsys, monkeypatch):
    assert inspect_model.run(["--sweep=torchvision"]) == 2
    assert "one of <keras.applications|keras_hub>" in capsys.readouterr().err
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    assert inspect_model.run(["--sweep=keras_hub"]) == 2
    assert "pip install 'dcp_tf[hub]'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_groups_are_drawn(suffix, tmp_path, capsys):
    path = tmp_path / f"groups.{suffix}"
    assert inspect_model.run(["--model=zoo:preresnet8", f"--plot={path}"]) == 0
    assert str(path) in capsys.readouterr().err
    assert path.stat().st_size > 5000


def test_a_plot_of_another_kind_is_refused_before_the_model_is_read(tmp_path, capsys):
    assert inspect_model.run(["--model=nowhere.keras", f"--plot={tmp_path}/groups.txt"]) == 2
    assert ".png, .svg, .pdf" in capsys.readouterr().err


_CODE = """
import keras
from keras import layers, ops

@keras.saving.register_keras_serializable("test_inspect_model")
class Block(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(8, 3, padding="same", name="conv")
        self.project = layers.Conv2D(4, 1, name="project")

    def build(self, shape):
        self.conv.build(shape)
        self.project.build((*shape[:-1], 8))

    def call(self, x):
        return x + self.project(ops.relu(self.conv(x)))

@keras.saving.register_keras_serializable("test_inspect_model")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.head = layers.Dense(3, name="head")

    def call(self, x):
        return self.head(ops.mean(self.block(x), axis=(1, 2)))
"""


def test_files_of_subclassed_models_and_of_layers_made_of_layers_are_opened(tmp_path, capsys):
    code = tmp_path / "own_blocks.py"
    code.write_text(_CODE)
    objects = import_custom_objects(str(code))
    subclassed = objects["Net"]()
    subclassed(np.ones((1, 8, 8, 4), "float32"))
    subclassed.save(tmp_path / "subclassed.keras")
    inputs = keras.Input((8, 8, 4))
    keras.Model(inputs, objects["Block"](name="block")(inputs)).save(tmp_path / "functional.keras")

    def groups(name, *flags):
        report = printed(capsys, f"--model={tmp_path / name}.keras", f"--custom_objects={code}", *flags)
        return {group["name"]: group["pinned_because"] for group in report["groups"]}

    assert groups("subclassed")["block/conv"] is None
    assert groups("functional", "--open_layers")["block/conv"] is None
    assert inspect_model.run([f"--model={tmp_path / 'functional'}.keras", f"--custom_objects={code}"]) == 0
    assert "made of layers (Block); --open_layers opens them" in capsys.readouterr().err
