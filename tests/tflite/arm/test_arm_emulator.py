"""TFLite files on an emulated Arm core give what they give here; counts of instructions repeat exactly."""

import functools
import json

import keras
import numpy as np
import pytest

from dcp_tf import tflite
from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.tflite.arm import emulator as arm_emulator
from dcp_tf.tflite.arm import instructions
from dcp_tf.tflite.arm.emulator import Emulator
from dcp_tf.tflite.arm.environment import ArmEnvironment
from dcp_tf.tflite.arm.runner import ArmRunner
from dcp_tf.tflite.verify.elsewhere import check_on_arm
from dcp_tf.tools import benchmark, prune


def is_set_up() -> bool:
    try:
        return bool(ArmEnvironment.find())
    except UsageError:
        return False


pytestmark = pytest.mark.skipif(not is_set_up(), reason="run `dcp-tf setup arm` first")


def convolution(filters):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [keras.Input((16, 16, 16)), layers.Conv2D(filters, 3, padding="same", activation="relu")]
    return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(5)])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((6, 16, 16, 16), np.float32)


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm")
    made = {}
    for filters in (16, 24, 32):
        for mode in ("float32", "int8"):
            data = images if mode == "int8" else None
            file = tflite.convert(convolution(filters), quantization=mode, representative_data=data)
            made[f"{mode} {filters}"] = folder / f"{mode}_{filters}.tflite"
            file.save(made[f"{mode} {filters}"])
    return made


class Shared(Emulator):
    """A core that stays when it is not used any more. To start one takes seconds."""

    def __exit__(self, *exception):
        pass


@pytest.fixture(scope="module")
def shared():
    """The function that starts a core, once for all tests that ask for it."""
    start = functools.cache(Shared)
    started = []

    def find(core=ARM_CORE, seed=0):
        started.append(start(core, seed))
        return started[-1]

    yield find
    for emulator in set(started):
        Emulator.__exit__(emulator)


@pytest.fixture
def in_one_process(shared, monkeypatch):
    """Whatever starts a core is given one that runs."""
    for module in (arm_emulator, instructions):
        monkeypatch.setattr(module, "Emulator", shared)


def test_outputs_equal_those_of_this_machine(files, images, shared):
    emulator = shared("cortex-a53")
    runner = ArmRunner(files["int8 32"], emulator)
    assert runner.difference(images) == 0
    assert np.ptp(runner.predict(images)) > 0
    spread = np.std(tflite.Runner(files["float32 32"]).predict(images))
    assert ArmRunner(files["float32 32"], emulator).difference(images) < 1e-4 * spread


def test_a_file_that_is_none_is_refused(tmp_path, in_one_process):
    (tmp_path / "none.tflite").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"not a TFLite|cannot be run"):
        tflite.count_instructions({"none": tmp_path / "none.tflite"})


def test_counts_repeat_exactly_and_follow_the_width_of_the_kernels(files):
    first, second = (tflite.count_instructions(files).counts for _ in range(2))
    assert first == second
    assert first["float32 16"] < 0.8 * first["float32 24"] < 0.8 * first["float32 32"]
    # int8 kernels work on 16 channels: 24 cost as much as 32.
    assert first["int8 24"] > 0.95 * first["int8 32"]
    assert first["int8 16"] < 0.7 * first["int8 32"]


def test_a_core_without_dot_products_needs_more_instructions_for_int8(files, in_one_process, capsys):
    name = "int8 32"
    old, new = (tflite.count_instructions({name: files[name]}, core=core) for core in ("cortex-a53", "cortex-a76"))
    assert old.counts[name] > 2 * new.counts[name]
    new.summary()
    assert name in capsys.readouterr().out
    with tflite.InstructionTimer("cortex-a53") as timer:
        millions = timer.measure({name: files[name].read_bytes()})
    assert millions[name] == pytest.approx(old.counts[name] / 1e6, rel=0.01)


def test_parity_on_arm_is_that_of_the_kernels_of_arm(images, in_one_process):
    model = convolution(32)
    file = tflite.convert(model, quantization="int8", representative_data=images)
    record = check_on_arm(file, model, images)
    assert record["host_difference"] == 0
    assert record["samples"] == len(images)
    assert "cortex-a76" in record["machine"]


def test_the_program_writes_what_it_counts(files, tmp_path, capsys, in_one_process):
    models = ",".join(map(str, (files["int8 32"], files["int8 16"])))
    assert benchmark.run([f"--models={models}", "--device=arm", "--profile", f"--output_dir={tmp_path}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "not time" in printed
    assert "M instructions in all: CONV_2D" in printed
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert record["unit"] == "instructions"
    assert record["candidates"]["int8_16.tflite"]["ratio"] > 1.4
    for candidate in record["candidates"].values():
        alone = sum(operation["instructions"] for operation in candidate["operations"])
        assert 0.9 < alone / candidate["instructions"] < 1.3  # each file begins and ends once more
    assert benchmark.run([f"--models={models}", "--device=arm", "--runs=5"]) == 2
    assert "--runs has no effect" in capsys.readouterr().err
    assert benchmark.run([f"--models={models}", "--device=arm", "--cpu=cortex-m4"]) == 2
    assert "--cpu must be one of" in capsys.readouterr().err


def test_a_target_in_instructions_is_met_and_files_are_compared_on_arm(tmp_path, in_one_process):
    import tool_inputs

    model = tmp_path / "model.keras"
    tool_inputs.plain_model((16, 16, 3), 4).save(model)
    data = tool_inputs.write_images(tmp_path / "images.npz", (16, 16, 3))
    short = [*tool_inputs.SHORT, "--finetune_epochs=0", "--quantization=int8", "--method=l1"]
    target = ["--target_latency=90%", "--latency_device=arm", "--latency_quantization=int8", "--check_on=arm"]
    folder = tmp_path / "out"
    assert prune.run([f"--model={model}", f"--dataset=npz:{data}", f"--output_dir={folder}", *short, *target]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["target_latency"]["met"] is True
    assert 0 < summary["target_latency"]["measured"] <= 0.9
    assert summary["target_latency"]["unit"] == "M instructions"
    table = json.loads((folder / "latency_table.json").read_text())
    assert table["unit"] == "M instructions"
    assert summary["tflite"]["pruned_int8.tflite"]["arm"]["host_difference"] == 0
