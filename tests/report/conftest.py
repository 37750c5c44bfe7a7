"""A run's records, small and invented, for the tests of the report."""

import json

import pytest

BENCHMARK = {
    "threads": 3,
    "delegate": "XNNPACK",
    "runs": 50,
    "warmup": 10,
    "device": "a desk lamp",
    "results": {"pruned_extra.tflite": {"median_ms": 7.77, "p10_ms": 7.7, "p90_ms": 7.9, "samples_ms": [7.7, 7.8]}},
}


def _file(model, quantization, size, top1, median, speedup, interval, conclusive):
    return {
        "model": model,
        "quantization": quantization,
        "bytes": size,
        "top1": top1,
        "top1_agreement": 0.9972,
        "max_error": 0.0831,
        "latency_ms": {"median": median, "p10": 0.975 * median, "p90": 1.065 * median},
        "speedup": speedup,
        "speedup_interval": interval,
        "conclusive": conclusive,
    }


def _history(epochs):
    return [
        {"epoch": e, "loss": 2.0 / e, "top1": 1 - 0.5 / e, "learning_rate": 0.1 / e, "seconds": 0.83}
        for e in range(1, epochs + 1)
    ]


def _summary():
    return {
        "dcp_tf_version": "0.1.0",
        "created": "2026-11-22T17:00:00Z",
        "model": "zoo:preresnet20",
        "dataset": "digits",
        "method": "dcp",
        "settings": {"rate": 0.5, "epsilon": None, "selection_samples": 1024, "resume": False},
        "seed": 17,
        "versions": {"python": "3.11.9", "tensorflow": "2.21.0", "keras": "3.15.0"},
        "baseline": {"params": 272474, "macs": 40813184, "flops": 81626368, "top1": 0.98333, "top5": 0.99861},
        "pruned": {
            "params": 136902,
            "macs": 20496000,
            "flops": 40992000,
            "top1": 0.98056,
            "top5": 0.99722,
            "top1_before_finetuning": 0.91111,
        },
        "tflite": {
            "baseline_float32.tflite": _file("baseline", "float32", 1101232, 0.98333, 0.75, 1.0, [1.0, 1.0], True),
            "pruned_float32.tflite": _file("pruned", "float32", 561004, 0.98056, 0.42, 1.786, [1.71, 1.85], True),
            "baseline_int8.tflite": _file("baseline", "int8", 332384, 0.98056, 0.31, 1.0, [1.0, 1.0], True),
            "pruned_int8.tflite": _file("pruned", "int8", 191216, 0.97778, 0.301, 1.03, [0.96, 1.09], False),
        },
        "phases": [
            {"name": "train baseline", "seconds": 31.2, "history": _history(6)},
            {"name": "select channels", "seconds": 44.9},
            {"name": "fine-tune", "seconds": 245.0, "history": _history(3)},
        ],
        "wall_seconds": 321.1,
    }


@pytest.fixture
def run_summary():
    """What summary.json of a complete run holds."""
    return _summary()


@pytest.fixture(scope="session")
def make_plan():
    """Makes a plan of so many groups, each with so many steps of selection."""

    def make(groups, steps=8, size=16):
        history = {
            "loss": [3.0 / (step + 1) for step in range(steps)],
            "reconstruction": [1.0 / (step + 1) for step in range(steps)],
            "discrimination": [2.0 / (step + 1) for step in range(steps)],
            "kept": [2 * step for step in range(steps)],
        }
        pinned = {"name": "logits", "size": 10, "kept": list(range(10)), "consumers": [], "pinned_because": "an output"}
        made = [
            {
                "name": f"block{number}_conv1",
                "size": size,
                "kept": list(range(size // 2)),
                "consumers": [f"block{number}_conv2"],
                "pinned_because": None,
                "history": history,
            }
            for number in range(groups)
        ]
        return {"version": 1, "method": "dcp", "settings": {}, "fingerprint": "f", "groups": [*made, pinned]}

    return make


def _write(folder, records):
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture
def make_run(tmp_path):
    """Writes records as the JSON files of a run's folder and gives the folder."""
    return lambda **records: _write(tmp_path, records)


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory, make_plan):
    """The folder of a run that left every record; five layers were pruned."""
    records = {"summary": _summary(), "plan": make_plan(5), "benchmark": BENCHMARK}
    return _write(tmp_path_factory.mktemp("run"), records)
