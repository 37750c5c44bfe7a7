import dataclasses
import json
import pathlib
import shutil
import types

import pytest
from tool_inputs import (
    WHOLE,
    nested_model,
    plain_model,
    residual_model,
    run_process,
    sequential_model,
    unprunable_model,
    write_images,
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    folder: pathlib.Path

    def __getattr__(self, name):
        return f"--model={self.folder / name}.keras"

    def data(self, name="four"):
        return f"--dataset=npz:{self.folder / name}.npz"


def make_inputs(folder):
    import keras

    write_images(folder / "four.npz")
    write_images(folder / "two.npz", classes=2)
    write_images(folder / "larger.npz", shape=(16, 16, 3), size=96)
    write_images(folder / "gray.npz", shape=(8, 8, 1), size=96)
    write_images(folder / "deep.npz", shape=(8, 8, 4), size=96)
    keras.utils.set_random_seed(1)
    made = {
        "residual": residual_model(),
        "plain": plain_model(),
        "open": plain_model((None, None, 3)),
        "sequential": sequential_model(),
        "nested": nested_model(),
        "unprunable": unprunable_model(),
    }
    for name, model in made.items():
        model.save(folder / f"{name}.keras")


@pytest.fixture(scope="session")
def inputs(made_once):
    """`inputs.NAME` is the flag of a model file, `inputs.data(NAME)` that of a data set."""
    return Inputs(made_once("inputs", make_inputs))


@pytest.fixture(scope="session")
def whole_process(inputs, made_once):
    """One whole run of `prune` as a user starts it: what it said, and `folder`, which tests only read."""

    def make(folder):
        done = run_process(
            *("-m", "dcp_tf.tools.prune", inputs.residual, inputs.data(), f"--output_dir={folder / 'out'}"),
            *(*WHOLE, "--quantization=float32,int8", "--reload_check"),
        )
        assert done.returncode == 0, done.stderr
        (folder / "said.json").write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}))

    folder = made_once("whole_run", make)
    said = json.loads((folder / "said.json").read_text())
    return types.SimpleNamespace(folder=folder / "out", **said)


@pytest.fixture(scope="session")
def whole_run(whole_process):
    """The folder of that run."""
    return whole_process.folder


@pytest.fixture
def copied_run(whole_run, tmp_path):
    """A copy of the whole run that a test may change."""
    return pathlib.Path(shutil.copytree(whole_run, tmp_path / "copy"))


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """The recovery takes a third of a short run, a process that only compares more; tests of them ask for them."""
    from dcp_tf.tools import compare, finetune, prune, quickstart

    short = [(program, "recover", 0.0, None) for program in (compare, prune, quickstart)]
    short += [(program, "reload_check", False, True) for program in (finetune, prune)]
    for program, flag, value, _ in short:
        program.PROGRAM.flags.set_default(flag, value)
    yield
    for program, flag, _, default in short:
        program.PROGRAM.flags.set_default(flag, default)
