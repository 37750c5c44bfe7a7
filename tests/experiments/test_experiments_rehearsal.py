"""Every experiment starts, runs some steps and finishes, on mock data of the right form and shrunken images."""

import json
import pathlib
import sys

import numpy as np
import pytest

from dcp_tf.experiments import EXPERIMENTS
from dcp_tf.tools import prune

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "data"))

# One step of each training and of the selection. The rates are low, because untrained networks explode otherwise.
TINY = (
    *("--epochs_scale=0.0001", "--max_steps_per_epoch=1", "--batch_size=4", "--quantization="),
    "--noreload_check",
    *("--selection_samples=8", "--selection_batch=4", "--selection_lr=1e-4", "--cache_gib=0.5", "--cache_disk_gib=0"),
    *("--aux_lr=1e-3", "--finetune_lr=1e-3", "--override=baseline.learning_rate=1e-3"),
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    from tfds_mock_sets import write_mock_set

    root = tmp_path_factory.mktemp("tfds")
    write_mock_set(root, "imagenet2012", {"train": 24, "validation": 8})
    write_mock_set(root, "cifar10", {"train": 24, "test": 8})
    return root


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder of folders: three people with twelve images each, of which two or more are for testing."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for person in "abc":
        (root / person).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (112, 112, 3), np.uint8)
            Image.fromarray(pixels).save(root / person / f"{number}.png")
    return root


def rehearse(name, folder, *arguments):
    steps = ["--per_step=64"] if "per_step" in EXPERIMENTS[name]().flags else []
    assert prune.run([f"--experiment={name}", f"--output_dir={folder}", *TINY, *steps, *arguments]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["pruned"]["macs"] < summary["baseline"]["macs"]
    phases = [phase["name"] for phase in summary["phases"]]
    assert phases[0] == "training"
    assert "fine-tuning" in phases
    assert (folder / "report.html").exists()
    return summary


@pytest.mark.parametrize(("name", "mean"), [("cifar10", 0.4914), ("cifar100", 0.5071)])
def test_networks_of_the_zoo_see_each_set_normalized_by_its_own_colors(name, mean, tmp_path):
    from tfds_mock_sets import write_mock_set

    from dcp_tf.tools.app import train_network

    write_mock_set(tmp_path, name, {"train": 4, "test": 2})
    model_and_data = train_network.build("zoo:preresnet8", f"tfds:{name}", 0, data_dir=str(tmp_path))
    assert model_and_data.normalization == name
    assert model_and_data.dataset.train.normalization.mean[0] == mean


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("imagenet")])
def test_imagenet(name, sets, tmp_path):
    rehearse(name, tmp_path, f"--data_dir={sets}", "--image_size=64")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("cifar10")])
def test_cifar10(name, sets, tmp_path):
    rehearse(name, tmp_path, f"--data_dir={sets}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("faces")])
def test_faces(name, people, tmp_path):
    rehearse(name, tmp_path, f"--dataset=faces:{people}")
