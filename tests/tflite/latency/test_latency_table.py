import itertools
import json
import pathlib

import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers, ops

from dcp_tf import tflite
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost, rebuild
from dcp_tf.tflite.latency import timers
from dcp_tf.tflite.latency.latency_table import LatencyTable, measure_latency_table
from dcp_tf.tflite.latency.layer_files import LayerFiles, convert_for_timing, layers_of


class MacTimer:
    """A machine on which a multiply-accumulate takes a microsecond, and an inference 0.1 ms more."""

    machine = "a machine of the test"

    def __init__(self):
        self.measured = []

    def measure(self, contents):
        macs = {name: tflite.count_macs(file_of(content)) for name, content in contents.items()}
        self.measured += macs
        return {name: count / 1e3 + 0.1 for name, count in macs.items()}


def file_of(content):
    return tflite.TFLiteFile(content, tflite.Quantization.FLOAT32)


def kept_widths(graph, share):
    return {group.name: max(1, round(share * group.size)) for group in graph.prunable(residual=True)}


def macs_at(graph, widths):
    kept = graph.kept({name: range(width) for name, width in widths.items()})
    return tflite.count_macs(file_of(convert_for_timing(rebuild(graph, kept), "float32")))


def macs_of(graph):
    return {layer.path for layer in count_cost(graph).layers if layer.macs}


def concatenated():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([layers.Conv2D(8, 3, padding="same")(x), layers.Conv2D(16, 1)(x)])
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2)(x)
    return nets.settle(keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x))))


@pytest.mark.parametrize(
    "make", [nets.mobile, nets.residual, pytest.param(nets.vgg_like, marks=pytest.mark.slow), concatenated]
)
def test_latencies_that_are_linear_in_the_channels_are_predicted_exactly(make):
    graph = ChannelGraph(make())
    table = measure_latency_table(graph, levels=(0.5,), round_to=1, residual=True, timer=MacTimer())
    assert table.factor == pytest.approx(1)
    for share in (1.0, 0.75, 0.5, 0.25):
        widths = kept_widths(graph, share)
        assert table.predict(widths) == pytest.approx(macs_at(graph, widths) / 1e3 + 0.1, rel=1e-6)
    assert len(graph.blocks) == (make in (nets.mobile, nets.residual))
    for block in graph.blocks:
        without = {**kept_widths(graph, 0.5), block.name: 0}
        layers_inside = sum(graph.trace.calls[i].path in macs_of(graph) for i in block.calls)
        expected = macs_at(graph, without) / 1e3 + 0.1
        assert table.predict(without) == pytest.approx(expected - 0.1 * layers_inside)  # a file of its own costs 0.1


def test_groups_are_independent():
    graph = ChannelGraph(nets.vgg_like())
    table = measure_latency_table(graph, levels=(0.5,), round_to=1, timer=MacTimer())
    sizes = {group.name: group.size for group in graph.prunable()}
    for name, size in sizes.items():
        widths = sizes | {name: size // 2}
        assert table.predict({name: size // 2}) == pytest.approx(macs_at(graph, widths) / 1e3 + 0.1)
    assert table.predict({}) == table.baseline_ms


def test_equal_layers_are_measured_once_and_files_hold_one_layer():
    x = inputs = keras.Input((8, 8, 8))
    for _ in range(4):
        x = layers.Conv2D(8, 3, padding="same")(x)
    graph, timer = ChannelGraph(keras.Model(inputs, layers.GlobalAveragePooling2D()(x))), MacTimer()
    table = measure_latency_table(graph, levels=(0.5,), round_to=1, timer=timer)
    # Two whole models; then widths 4 and 8 of what is read and made, alike for all four layers.
    assert len(timer.measured) == 2 + 4
    assert {layer.ms.shape for layer in table.measurements.layers} <= {(2,), (2, 2)}


def test_layer_files_are_the_layers_at_their_widths():
    graph = ChannelGraph(nets.mobile())
    groups = graph.prunable(residual=True)
    makers = LayerFiles(graph, "float32")
    widths = {group.name: group.size // 2 for group in groups}
    wanted = {}
    for layer in layers_of(graph, groups):
        at = {name: widths[name] for axis in layer.axes for name in axis.per_channel}
        wanted[makers.key(layer, at)] = (layer, at)
    total = sum(tflite.count_macs(file_of(content)) for _, content in makers.make(wanted))
    reused = len(layers_of(graph, groups)) - len(wanted)
    assert reused == 0
    assert total == macs_at(graph, widths)


def test_tables_survive_saving_and_are_not_measured_twice(tmp_path):
    graph, path = ChannelGraph(nets.vgg_like()), tmp_path / "latency_table.json"
    first = measure_latency_table(graph, levels=(0.5,), timer=MacTimer(), cache=path, round_to=4)
    again = MacTimer()
    second = measure_latency_table(graph, levels=(0.5,), timer=again, cache=path, round_to=4)
    assert again.measured == []
    loaded = LatencyTable.load(path, graph)
    widths = kept_widths(graph, 0.6)
    assert first.predict(widths) == second.predict(widths) == loaded.predict(widths)
    assert json.loads(path.read_text())["anchors"][0]["predicted_ms"] == first.baseline_ms
    other = MacTimer()
    measure_latency_table(graph, levels=(0.5,), timer=other, cache=path, round_to=2)
    assert other.measured  # another question


def test_wrong_use_is_one_clear_line(tmp_path):
    graph = ChannelGraph(nets.vgg_like())
    table = measure_latency_table(graph, levels=(0.5,), timer=MacTimer())
    name = graph.prunable()[0].name
    for widths, words in (({"nobody": 3}, "'nobody' is not in the latency table"), ({name: 0}, "1 to 8 channels")):
        with pytest.raises(UsageError, match=words):
            table.predict(widths)
    path = table.save(tmp_path / "table.json")
    with pytest.raises(UsageError, match="measured for another model"):
        LatencyTable.load(path, ChannelGraph(nets.residual()))
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UsageError, match="not a latency table"):
        LatencyTable.load(tmp_path / "broken.json", graph)
    with pytest.raises(UsageError, match="levels"):
        measure_latency_table(graph, levels=(1.5,), timer=MacTimer())
    single = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(UsageError, match="no channels to prune"):
        measure_latency_table(single, timer=MacTimer())


def by_hand(x):
    query, key, value = (layers.Reshape((6, 4, 8))(layers.Dense(32)(x)) for _ in range(3))
    scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", query, key))
    return layers.Dense(10)(layers.Reshape((6, 32))(ops.einsum("bhqk,bkhd->bqhd", scores, value)))


@pytest.mark.parametrize("attend", [lambda x: layers.MultiHeadAttention(4, 8)(x, x), by_hand], ids=["layer", "by_hand"])
def test_heads_and_what_lies_in_them_are_predicted(attend):
    x = inputs = keras.Input((6, 5))
    x = attend(layers.Dense(12, activation="relu", name="first")(x))
    graph = ChannelGraph(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.ReLU()(x)))))
    table = measure_latency_table(graph, levels=(0.5,), round_to=1, timer=MacTimer())
    assert table.factor == pytest.approx(1)
    (heads,) = (group.name for group in graph.prunable() if group.are_heads)
    pairs, values = (next(g.name for g in graph.prunable() if g.head is not None and g.silenced == s) for s in (1, 0))
    for widths in ({heads: 3}, {pairs: 12}, {heads: 1, values: 20}, {heads: 2, pairs: 8, values: 28, "first": 5}):
        macs = tflite.count_macs(file_of(convert_for_timing(rebuild(graph, graph.at_widths(widths)), "float32")))
        assert table.predict(widths) == pytest.approx(macs / 1e3 + 0.1, rel=1e-6)


def test_int8_files_are_integers():
    graph = ChannelGraph(nets.vgg_like())
    kinds = []

    class Timer(MacTimer):
        def measure(self, contents):
            kinds.extend(tflite.inspect(file_of(content)).float_operations for content in contents.values())
            return super().measure(contents)

    measure_latency_table(graph, levels=(0.5,), quantization="int8", timer=Timer())
    assert len(kinds) > 4
    assert all(floats == [] for floats in kinds)


def test_this_machine_is_measured():
    x = inputs = keras.Input((24, 24, 16))
    for _ in range(3):
        x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    with timers.HostTimer(runs=5) as timer:
        table = measure_latency_table(model, levels=(0.5,), timer=timer)
    names = table.measurements.groups
    assert 0 < table.predict(dict.fromkeys(names, 32)) < 0.8 * table.baseline_ms
    narrower = [table.predict(dict.fromkeys(names, width)) for width in (64, 48, 32)]
    assert all(a > b for a, b in itertools.pairwise(narrower))
    assert pathlib.Path("/proc/cpuinfo").exists() is False or "core" in table.measurements.machine
    assert np.isfinite(table.factor)
