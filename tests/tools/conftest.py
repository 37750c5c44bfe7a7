import dataclasses
import pathlib
import shutil

import pytest
from tool_inputs import (
    SHORT,
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


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """`inputs.NAME` is the flag of a model file, `inputs.data(NAME)` that of a data set."""
    import keras

    folder = tmp_path_factory.mktemp("inputs")
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
    return Inputs(folder)


@pytest.fixture(scope="session")
def whole_process(inputs, tmp_path_factory):
    """One whole run of `prune` as a user starts it: what it said, and `folder`, which tests only read."""
    folder = tmp_path_factory.mktemp("whole_run") / "out"
    done = run_process(
        *("-m", "dcp_tf.tools.prune", inputs.residual, inputs.data(), f"--output_dir={folder}"),
        *(*SHORT, "--quantization=float32,int8", "--seed=3", "--reload_check"),
    )
    assert done.returncode == 0, done.stderr
    done.folder = folder
    return done


@pytest.fixture(scope="session")
def whole_run(whole_process):
    """The folder of that run."""
    return whole_process.folder


@pytest.fixture
def copied_run(whole_run, tmp_path):
    """A copy of the whole run that a test may change."""
    return pathlib.Path(shutil.copytree(whole_run, tmp_path / "copy"))


@pytest.fixture(autouse=True, scope="session")
def quick_finetune():
    """A process that only compares takes as long as all else that `finetune` does here; tests of it ask for it."""
    from dcp_tf.tools import finetune

    finetune.PROGRAM.flags.set_default("reload_check", False)
