"""A pruned model's file: as many MACs as counted from the graph, no operation that the original's file has not."""

import collections

import numpy as np
import pytest
import tflite_models as nets

from dcp_tf import models, tflite
from dcp_tf.graph import ChannelGraph, count_cost, rebuild

NAMES = ("preresnet8", "mobilenet_v2_small", "resnet20")


def halved(graph):
    return graph.kept({g.name: range((g.size + 1) // 2) for g in graph.prunable(residual=True)})


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *nets.quick("preresnet8", "mobilenet_v2_small", among=NAMES, beside="float32"),
        *nets.quick("mobilenet_v2_small", among=NAMES, beside="int8"),
    ],
)
def test_both_counters_agree_and_no_operation_is_added(name, mode):
    graph = ChannelGraph(models.build(name, (32, 32, 3), 10))
    kept = halved(graph)
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    settings = {"representative_data": images} if mode == "int8" else {}
    full, small = (tflite.convert(model, mode, **settings) for model in (graph.trace.model, rebuild(graph, kept)))
    assert tflite.count_macs(full) == count_cost(graph).macs
    assert tflite.count_macs(small) == count_cost(graph, kept).macs
    before, after = (collections.Counter(tflite.inspect(file).operations) for file in (full, small))
    assert not after - before
