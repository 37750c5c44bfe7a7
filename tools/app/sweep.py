"""Tests every network of keras.applications: trace, prune randomly, rebuild, compare with the masked model, reload."""

import dataclasses
import pathlib
import re
import tempfile
import time
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.tools.app.plain_keras import largest_difference, run_here, run_in_plain_keras

RATE = 0.3
TOLERANCE = 1e-4
SMALL = (96, 96, 3)


@dataclasses.dataclass
class SweepRow:
    """The result of one network.

    Attributes:
        network: name of the constructor.
        size: height of the input images.
        groups: channel groups.
        prunable: groups that can lose channels, residual streams included.
        shrinkable: fraction of the convolution parameters in layers that can shrink.
        params_kept: parameters of the pruned model relative to the baseline's.
        error: largest difference between rebuilt and masked outputs, relative to the largest output.
        trace_seconds: to trace and group.
        rebuild_seconds: to build the smaller model.
        precision: floating-point type of the comparison.
        failure: the error; None without one.
    """

    network: str
    size: int = 0
    groups: int = 0
    prunable: int = 0
    shrinkable: float = 0.0
    params_kept: float = 0.0
    error: float = float("nan")
    trace_seconds: float = 0.0
    rebuild_seconds: float = 0.0
    precision: str = "float32"
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        row = dataclasses.asdict(self)
        return row | {"error": None if self.error != self.error else self.error}


def sweep(only: str = "", seed: int = 0) -> list[SweepRow]:
    """Checks all networks whose name matches a regular expression.

    Args:
        only: regular expression that must be found in the name; empty: all.
        seed: of the weights, the plan and the images.

    Raises:
        UsageError: no network matches.
    """
    from dcp_tf.models import APPLICATIONS

    try:
        names = [name for name in APPLICATIONS if re.search(only, name)]
    except re.error as error:
        raise UsageError(f"--only={only} is not a regular expression: {error}") from error
    if not names:
        raise UsageError(f"no network of keras.applications matches {only!r}; there are {', '.join(APPLICATIONS)}")
    rows = []
    for name in names:
        row = SweepRow(name)
        try:
            check(row, seed)
            if not row.error <= TOLERANCE:
                # Some very deep networks with random weights amplify float32 rounding to large differences. In float64
                # only a real difference remains.
                row.precision = "float64"
                check(row, seed)
            if not row.error <= TOLERANCE:
                raise AssertionError(f"the rebuilt model differs from the masked one by {row.error:.2g}")
        except Exception as error:  # a failure is a row of the table and does not stop the sweep
            row.failure = f"{type(error).__name__}: {error}"
        rows.append(row)
        progress.say(f"{len(rows)}/{len(names)}  {name}: {row.failure or f'error {row.error:.1e}'}")
    return rows


def check(row: SweepRow, seed: int) -> None:
    """Fills the row of one network, computed in the row's precision."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx(row.precision)
    try:
        _compare(row, seed)
    finally:
        keras.config.set_floatx(before)


def _compare(row: SweepRow, seed: int) -> None:
    import keras
    import numpy as np

    from dcp_tf.graph import ChannelGraph, count_cost, masked, rebuild, shrinkable_fraction

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = _build(row.network)
    row.size = model.inputs[0].shape[1]
    randomize_statistics(model, seed)
    started = time.perf_counter()
    graph = ChannelGraph(model)
    row.trace_seconds = time.perf_counter() - started
    plan = random_plan(graph, RATE, seed)
    row.groups, row.prunable = len(graph.groups), len(plan)
    row.shrinkable = shrinkable_fraction(graph)
    kept = graph.kept(plan)
    started = time.perf_counter()
    small = rebuild(graph, kept)
    row.rebuild_seconds = time.perf_counter() - started
    row.params_kept = count_cost(graph, kept).params / count_cost(graph).params
    images = np.random.default_rng(seed).normal(size=(2, *model.inputs[0].shape[1:])).astype(row.precision)
    expected, outputs = run_here(masked(graph, kept), images)[0], run_here(small, images)[0]
    row.error = largest_difference(outputs, expected)
    _check_saved(small, images, outputs)


def random_plan(graph: Any, rate: float, seed: int) -> dict[str, Any]:
    """Random channels for each prunable group, residual streams included."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return {
        g.name: np.sort(rng.choice(g.size, max(1, g.size - round(rate * g.size)), replace=False))
        for g in graph.prunable(residual=True)
    }


def randomize_statistics(model: Any, seed: int) -> None:
    """Sets BatchNormalization and biases to values that differ between channels; equal ones would hide mistakes.

    The values stay near the defaults, since float32 rounding grows with them over hundreds of random layers.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.8, 1.2, weight.shape))


def _build(name: str) -> Any:
    """The network with logits, because softmax would hide differences; with small images if it supports them."""
    import keras

    constructor = getattr(keras.applications, name)
    try:
        return constructor(weights=None, classifier_activation=None, input_shape=SMALL)
    except ValueError:
        return constructor(weights=None, classifier_activation=None)


def _check_saved(model: Any, images: Any, outputs: Any) -> None:
    """Saves the model and loads it in a process that cannot import dcp_tf."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "pruned.keras")
        model.save(path)
        (loaded,) = run_in_plain_keras(images, [path])
    if isinstance(loaded, str):
        raise AssertionError(f"plain Keras cannot use the saved model: {loaded}")
    if not (error := largest_difference(loaded[0], outputs)) <= TOLERANCE:
        raise AssertionError(f"after loading the outputs differ by {error:.2g}")


def table(rows: list[SweepRow]) -> Any:
    """The rows as a `rich.table.Table`."""
    from rich import box
    from rich.table import Table

    passed = sum(row.failure is None for row in rows)
    title = f"keras.applications at a random plan of {RATE:.0%}: {passed} of {len(rows)}"
    sweep_table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("network", "groups", "free", "shrinks", "params", "error", "trace s", "rebuild s"):
        sweep_table.add_column(heading, justify="left" if heading == "network" else "right", no_wrap=True)
    for r in rows:
        if r.failure is not None:
            sweep_table.add_row(r.network, "FAILED")
            continue
        cells = (f"{r.groups}", f"{r.prunable}", f"{r.shrinkable:.0%}", f"{r.params_kept:.1%}")
        sweep_table.add_row(
            r.network,
            *cells,
            f"{r.error:.0e}{'*' * (r.precision == 'float64')}",
            f"{r.trace_seconds:.2f}",
            f"{r.rebuild_seconds:.2f}",
        )
    failures = "".join(f"\n{r.network}: {r.failure}" for r in rows if r.failure is not None)
    sweep_table.caption = (
        "free: groups that can be pruned; shrinks: share of the convolution parameters in layers that can lose "
        "channels; params: share that is left; error: rebuilt against masked, of the largest output "
        f"(*: compared in float64){failures}"
    )
    sweep_table.caption_justify = "left"
    return sweep_table
