import pytest


@pytest.fixture(autouse=True)
def short_recovery(monkeypatch):
    """Of the weights after surgery; `tests/pruning/recovery` has it whole."""
    monkeypatch.setattr("dcp_tf.pruning.recovery.block_outputs._LEAST_STEPS", 12)
