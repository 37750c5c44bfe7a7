"""The whole contract on random graphs that mix all operations."""

import keras
import pytest
from declared_groups import groups_of, image
from equivalence import check
from hypothesis import given, note, settings
from hypothesis import strategies as st
from random_graphs import BINARY, JOIN, UNARY, declared, random_graph

from dcp_tf.graph import ChannelGraph

# Channels also lie in constants and in the ranges of slices, which permuting the weights leaves as they are.
FIXED_ORDER = {"GetItem", "Split", "Cumsum", "Flip"}


def run(data, max_steps):
    model, groups = random_graph(data.draw, max_steps)
    seed, rate = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.2, 0.5, 0.95]))
    graph = ChannelGraph(model)
    note(f"seed {seed}, rate {rate}, {[(c.path, type(c.operation).__name__, c.inputs) for c in graph.trace.calls]}")
    constants = any("ndarray" in type(a).__name__ for c in graph.trace.calls for a in c.arguments)
    fixed = constants or any(type(c.operation).__name__ in FIXED_ORDER for c in graph.trace.calls)
    assert groups_of(graph) == groups
    check(
        model,
        rate=rate,
        seed=seed,
        shrinks=bool(groups),
        permutation=not fixed,
        configs=not constants,
        save=seed % 4 == 0,
    )


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


@settings(max_examples=40)
@given(st.data())
def test_the_groups_of_random_graphs_are_the_declared_ones(data):
    model, groups = random_graph(data.draw, max_steps=9)
    graph = ChannelGraph(model)
    note([(c.path, type(c.operation).__name__, c.inputs) for c in graph.trace.calls])
    assert groups_of(graph) == groups


@pytest.mark.parametrize("kind", [*UNARY, *BINARY, *JOIN])
@settings(max_examples=3)
@given(st.data())
def test_the_groups_of_every_kind_alone_are_the_declared_ones(kind, data):
    x = image()
    first = x.read(keras.layers.Conv2D(4, 3, padding="same")(x.tensor))
    second = first.read(keras.layers.Conv2D(4, 3, padding="same")(first.tensor))
    y = UNARY[kind](data.draw, first) if kind in UNARY else (BINARY | JOIN)[kind](first, second)
    graph = ChannelGraph(keras.Model(x.tensor, keras.layers.Dense(2)(keras.layers.Flatten()(y.tensor))))
    assert groups_of(graph) == declared(y)
