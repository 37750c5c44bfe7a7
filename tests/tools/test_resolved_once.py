"""The programs resolve a run once: what they checked at the start is what they prune."""

import collections

import pytest
from tool_inputs import SHORT

from dcp_tf.graph.trace import Trace
from dcp_tf.tools import compare, prune
from dcp_tf.training import Classification

QUICK = ("--method=l1", "--rate=0.5", "--finetune_epochs=0")
TO_A_LATENCY = ("--method=l1", "--target_latency=80%", *SHORT, "--quantization=float32")
# The baseline is traced once more where files are made, whose multiplications are compared with its.
RUNS = {
    "prune without the augmentation": (prune, (*QUICK, "--quantization=", "--noreload_check"), 1),
    "prune to a latency": (prune, TO_A_LATENCY, 2),
    "compare": (compare, ("--methods=l1,random,l1:update", "--seeds=2", "--selection_samples=64", *QUICK[1:]), 1),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if "augmentation" in n else pytest.mark.slow) for n in RUNS])
def test_the_baseline_is_traced_once(name, inputs, tmp_path, monkeypatch):
    program, more, traces = RUNS[name]
    traced, trace, calls, bind = [], Trace.__init__, collections.Counter(), Classification.bind
    monkeypatch.setattr(Trace, "__init__", lambda self, model, *args: traced.append(model) or trace(self, model, *args))
    monkeypatch.setattr(Classification, "bind", lambda *args: calls.update(["bind"]) or bind(*args))
    program.run([inputs.residual, inputs.data(), f"--output_dir={tmp_path / 'run'}", "--round_to=1", *more])
    assert [id(model) for model in traced].count(id(traced[0])) == traces
    assert calls["bind"] == 2  # by what reads the flags, and by `prepare`
