"""Emulated Arm cores: what they tell about themselves, and what is said where they cannot be emulated."""

import json

import pytest

from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import ARM_CORE, ARM_CORES
from dcp_tf.tflite.arm import setup
from dcp_tf.tflite.arm.cores import CORES, find_core, write_core_files
from dcp_tf.tflite.arm.environment import ArmEnvironment, default_folder


def test_the_cores_that_the_help_names_are_those_that_exist():
    assert list(CORES) == list(ARM_CORES)
    assert find_core(ARM_CORE).name == ARM_CORE
    with pytest.raises(UsageError, match=r"cortex-a76.*'cortex-m4'"):
        find_core("cortex-m4")


@pytest.mark.parametrize("name", CORES)
def test_a_core_tells_xnnpack_its_part_and_features(tmp_path, name):
    write_core_files(CORES[name], tmp_path)
    told = dict(line.split("\t: ") for line in (tmp_path / "proc/cpuinfo").read_text().splitlines())
    assert int(told["CPU part"], 16) == CORES[name].part
    assert ("asimddp" in told["Features"]) == (name not in ("cortex-a53", "cortex-a72"))
    assert (tmp_path / "sys/devices/system/cpu/present").read_text() == "0\n"


def test_without_setup_one_line_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "dcp_tf" / "arm"
    with pytest.raises(UsageError, match="dcp-tf setup arm"):
        ArmEnvironment.find()


def test_what_was_set_up_for_another_interpreter_is_refused(tmp_path):
    (tmp_path / "about.json").write_text(json.dumps({"ai_edge_litert": "0.1", "python": "python3.11"}))
    with pytest.raises(UsageError, match=r"0.1.*--overwrite"):
        ArmEnvironment.find(tmp_path)


def test_a_machine_that_cannot_emulate_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(setup.platform, "machine", lambda: "ppc64le")
    with pytest.raises(UsageError, match="64-bit x86 Linux"):
        setup.set_up(tmp_path / "arm")
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup.sys, "platform", "linux")
    monkeypatch.setattr(setup.shutil, "which", lambda program: None if program == "cc" else "/usr/bin/it")
    with pytest.raises(UsageError, match=r"cc is missing: install the package gcc"):
        setup.set_up(tmp_path / "arm")
    assert not (tmp_path / "arm").exists()
