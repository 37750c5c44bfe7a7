"""The whole contract on random graphs that mix all operations."""

import keras
import pytest
from equivalence import check
from hypothesis import given, note, settings
from hypothesis import strategies as st
from random_graphs import BINARY, JOIN, UNARY, random_model

from dcp_tf.graph import ChannelGraph

# Channels also lie in constants and in the ranges of slices, which permuting the weights leaves as they are.
FIXED_ORDER = {"GetItem", "Split", "Cumsum", "Flip"}


def run(data, max_steps):
    model = random_model(data.draw, max_steps)
    seed, rate = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.2, 0.5, 0.95]))
    graph = ChannelGraph(model)
    note(f"seed {seed}, rate {rate}, {[(c.path, type(c.operation).__name__, c.inputs) for c in graph.trace.calls]}")
    constants = any("ndarray" in type(a).__name__ for c in graph.trace.calls for a in c.arguments)
    fixed = constants or any(type(c.operation).__name__ in FIXED_ORDER for c in graph.trace.calls)
    free = bool(graph.prunable(residual=True))
    check(model, rate=rate, seed=seed, shrinks=free, permutation=not fixed, configs=not constants, save=seed % 4 == 0)


@settings(max_examples=15)
@given(st.data())
def test_random_graphs(data):
    run(data, max_steps=7)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.data())
def test_many_random_graphs(data):
    keras.backend.clear_session()
    run(data, max_steps=12)


def test_the_strategy_mixes_everything():
    assert len(UNARY) + len(BINARY) + len(JOIN) >= 40
