"""Training over two replicas equals training on one device: in one process, and as two workers on loopback."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from dcp_tf.errors import UsageError
from dcp_tf.training import distributed, make_strategy
from dcp_tf.training.distribution import STRATEGIES, current_strategy, worker_number

HERE = pathlib.Path(__file__).resolve()
CHECKOUT = HERE.parents[2]

TWO_DEVICES = """
import sys
sys.path[:0] = [{tests!r}, {tools!r}]
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""

EQUAL_TRAINING = (
    TWO_DEVICES
    + """
import keras
from training_nets import IMAGES, LABELS, LOGITS, batches, convolutional, plain, values
from dcp_tf.data import make_array_split
from dcp_tf.training import Distillation, distributed, fit, make_strategy, soft_targets
strategy = make_strategy("mirrored")
assert strategy.num_replicas_in_sync == 2
mask = {{"conv/kernel": (np.random.default_rng(5).random((3, 3, 3, 6)) < 0.5).astype(int)}}
teacher = soft_targets(convolutional(seed=3), "logits")
cases = [
    (dict(momentum=0.9, weight_decay=0.01, clip_norm=0.01, label_smoothing=0.1, bn_sparsity=1e-3, ema=0.9),
     dict(masks=mask)),
    (dict(momentum=0.9), dict(teacher=teacher, distil=True)),
    (dict(momentum=0.9, held_out=10, batch_size=15), dict(keep_best=True)),
    (dict(momentum=0.9, learning_rate=0.01, weight_decay=0.1, optimizer=keras.optimizers.AdamW(epsilon=1e-3)),
     dict(masks=mask, callbacks=True)),
]


class Shrinks(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        self.model.get_layer("final").kernel.assign(self.model.get_layer("final").kernel * (1 - 0.1 * logs["loss"]))


def watching():
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)
    return [Shrinks(), stopping, keras.callbacks.ReduceLROnPlateau("loss", min_delta=9, patience=1)]


for settings, arguments in cases:
    losses = [Distillation(LOGITS, 0.5)] if arguments.pop("distil", False) else [LOGITS]
    found = []
    for each in (None, strategy):
        model = convolutional()
        with distributed(each):  # batches of 15, 15 and 10: uneven shares
            data = make_array_split(IMAGES, LABELS) if "keep_best" in arguments else batches(size=15)
            more = dict(arguments, callbacks=watching()) if "callbacks" in arguments else arguments
            history = fit(model, data, losses, plain(2, **settings), **more)
        found.append((values(model), history))
    (one, told), (two, told_by_two) = found
    assert (told.held_out or {{}}).get("kept_epoch") == (told_by_two.held_out or {{}}).get("kept_epoch")
    for path, value in one.items():
        np.testing.assert_allclose(two[path], value, atol=2e-6, err_msg=path)
    np.testing.assert_allclose(told_by_two[-1]["loss"], told[-1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(told_by_two[-1]["top1"], told[-1]["top1"], rtol=1e-5)

import keras
from dcp_tf.training.distribution import Replicas
values = np.random.default_rng(0).normal(5, 3, (8, 6)).astype("float32")
norm = keras.layers.Normalization()
norm.adapt(values)
image = keras.Input((6,))
front = keras.layers.Pipeline([norm, keras.layers.Rescaling(2.0)])
bins = keras.layers.Discretization(num_bins=4)
bins.adapt(values)
made = keras.layers.Concatenate()([front(image), keras.ops.cast(bins(image), "float32")])
model = keras.Model(image, keras.layers.Dense(3)(made))
np.testing.assert_allclose(Replicas(model, strategy).model(values), model(values), rtol=1e-5)
print("equal")
"""
)

PRUNED_BY_TWO = (
    TWO_DEVICES
    + """
from dcp_tf.tools import prune
sys.exit(prune.run(sys.argv[1:]))
"""
)

RESUMED = (
    TWO_DEVICES
    + """
import pathlib, tempfile
from test_training_checkpoint import LOGITS, Stop, TrainConfig, TrainState, batches, fit, network, same, stop_in_epoch
from dcp_tf.training import distributed, make_strategy
with distributed(make_strategy("mirrored")):
    whole, resumed, config = network(), network(seed=9), TrainConfig(3, batch_size=16, ema=0.9)
    state = TrainState(pathlib.Path(tempfile.mkdtemp()) / "state.npz")
    fit(whole, batches, [LOGITS], config)
    try:
        fit(network(), batches, [LOGITS], config, validation=stop_in_epoch(2), checkpoint=state)
    except Stop:
        fit(resumed, batches, [LOGITS], config, checkpoint=state)
for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
print("equal")
"""
)


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS_"))}
    return {**clean, "PYTHONPATH": str(CHECKOUT), "TF_CPP_MIN_LOG_LEVEL": "3", **more}


def start(code, *arguments, **more):
    code = code.format(tests=str(HERE.parent), tools=str(HERE.parents[1] / "tools"))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return said


def pruning(folder, tmp_path):
    """The arguments of a short run of `prune` on a small residual model, which is written where it is missing."""
    sys.path.insert(0, str(HERE.parents[1] / "tools"))
    from tool_inputs import SHORT, residual_model, write_images

    model, images = tmp_path / "residual.keras", tmp_path / "four.npz"
    if not model.exists():
        import keras

        keras.utils.set_random_seed(1)
        residual_model().save(model)
        write_images(images)
    return [f"--model={model}", f"--dataset=npz:{images}", f"--output_dir={folder}", *SHORT, "--seed=3"]


def kept(folder):
    plan = json.loads((folder / "plan.json").read_text())
    return {group["name"]: group["kept"] for group in plan["groups"]}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_one_device_is_no_strategy():
    assert make_strategy("one") is None
    assert worker_number(None) == 0


def test_the_innermost_strategy_counts_and_ends():
    outer, inner = object(), object()
    with distributed(outer):
        with distributed(inner):
            assert current_strategy() is inner
        assert current_strategy() is outer
    assert current_strategy() is None


def test_flags_offer_every_strategy():
    from dcp_tf.tools.cli import experiment_flags

    assert experiment_flags.STRATEGIES == STRATEGIES


@pytest.mark.parametrize(("name", "message"), [("multi_worker", "TF_CONFIG="), ("all", "unknown strategy")])
def test_a_strategy_that_cannot_be_gets_one_clear_line(name, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match=message):
        make_strategy(name)


def test_two_replicas_train_as_one_device_does():
    assert finish(start(EQUAL_TRAINING)).rstrip().endswith("equal")


@pytest.mark.slow
def test_a_stopped_run_under_a_strategy_goes_on_to_the_same_weights():
    assert finish(start(RESUMED)).rstrip().endswith("equal")


@pytest.mark.slow
def test_two_replicas_end_in_the_plan_of_one_device(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(PRUNED_BY_TWO, *pruning(one, tmp_path)))
    assert "2 replicas" in finish(start(PRUNED_BY_TWO, *pruning(two, tmp_path), "--strategy=mirrored"))
    assert kept(two) == kept(one)


@pytest.mark.slow
def test_two_workers_end_in_the_plan_of_one_process(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    program = "import sys\nfrom dcp_tf.tools import prune\nsys.exit(prune.run(sys.argv[1:]))"
    finish(start(program, *pruning(one, tmp_path)))
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    configs = [json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": i}}) for i in (0, 1)]
    arguments = [*pruning(two, tmp_path), "--strategy=multi_worker"]
    processes = [start(program, *arguments, TF_CONFIG=config) for config in configs]
    assert all("2 replicas" in finish(process) for process in processes)
    assert kept(two) == kept(one)
    assert kept(two / "worker_1") == kept(one)
