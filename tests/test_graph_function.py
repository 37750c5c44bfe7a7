"""Compiled functions of many objects are no reason for TensorFlow to warn a user of retracing."""

import logging
import pathlib
import re

import pytest
import tensorflow as tf

from dcp_tf.graph_function import graph_function

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Doubled:
    def __init__(self, compile_):
        self.call = compile_(self.compute)

    def compute(self, x):
        return 2 * x


def warnings_of(compile_, caplog):
    tf.get_logger().addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING, "tensorflow"):
            assert [int(Doubled(compile_).call(tf.constant(n))) for n in range(6)] == [0, 2, 4, 6, 8, 10]
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    return [record.getMessage() for record in caplog.records if "retracing" in record.getMessage()]


def test_one_trace_of_each_object_is_no_retracing(caplog):
    assert not warnings_of(graph_function, caplog)
    assert warnings_of(tf.function, caplog)  # without it TensorFlow warns


@pytest.mark.parametrize("folder", ["dcp_tf", "tflite"])
def test_nothing_else_is_compiled(folder):
    for file in (ROOT / folder).rglob("*.py"):
        uses = re.findall(r"tf\.function\b.*", file.read_text("utf-8"))
        assert file.name == "graph_function.py" or all("get_concrete_function" in use for use in uses), (file, uses)
