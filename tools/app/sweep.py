"""Tests the networks of a library: trace, prune randomly, rebuild, compare with the masked model, reload, convert."""

import dataclasses
import importlib.util
import pathlib
import re
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.tools.app.hub_networks import HUB_NETWORKS, SHAPE
from dcp_tf.tools.app.plain_keras import largest_difference, run_here, run_in_plain_keras

RATE = 0.3
TOLERANCE = 1e-4
SMALL = (96, 96, 3)
LIBRARIES = ("keras.applications", "keras_hub")


@dataclasses.dataclass
class SweepRow:
    """The result of one network.

    Attributes:
        network: name of the constructor.
        size: height of the input images.
        groups: channel groups.
        prunable: groups that can lose channels, residual streams included.
        shrinkable: fraction of the parameters in layers that can shrink: of convolutions; in keras_hub of all layers.
        params_kept: parameters of the pruned model relative to the baseline's.
        error: largest difference between rebuilt and masked outputs, relative to the largest output.
        trace_seconds: to trace and group.
        rebuild_seconds: to build the smaller model.
        precision: floating-point type of the comparison.
        tflite_error: largest difference of the TFLite file's outputs from Keras', in standard deviations; None where no
            file is made.
        pinned: why groups of a network of keras_hub cannot lose channels, by name; its outputs are left out.
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
    tflite_error: float | None = None
    pinned: dict[str, str] = dataclasses.field(default_factory=dict)
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        row = dataclasses.asdict(self)
        return row | {"error": None if self.error != self.error else self.error}


def sweep(only: str = "", seed: int = 0, library: str = LIBRARIES[0]) -> list[SweepRow]:
    """Checks all networks whose name matches a regular expression.

    Args:
        only: regular expression that must be found in the name; empty: all.
        seed: of the weights, the plan and the images.
        library: one of `LIBRARIES`.

    Raises:
        UsageError: no network matches, or the library is not installed.
    """
    from dcp_tf.models import APPLICATIONS

    networks = HUB_NETWORKS if library == "keras_hub" else APPLICATIONS
    if library == "keras_hub" and importlib.util.find_spec("keras_hub") is None:
        raise UsageError("--sweep=keras_hub needs KerasHub: pip install 'dcp_tf[hub]'")
    try:
        names = [name for name in networks if re.search(only, name)]
    except re.error as error:
        raise UsageError(f"--only={only} is not a regular expression: {error}") from error
    if not names:
        raise UsageError(f"no network of {library} matches {only!r}; there are {', '.join(networks)}")
    rows = []
    for name in names:
        row = SweepRow(name)
        try:
            check(row, seed, library)
            if not row.error <= TOLERANCE:
                # Some very deep networks with random weights amplify float32 rounding to large differences. In float64
                # only a real difference remains.
                row.precision = "float64"
                check(row, seed, library)
            if not row.error <= TOLERANCE:
                raise AssertionError(f"the rebuilt model differs from the masked one by {row.error:.2g}")
        except Exception as error:  # a failure is a row of the table and does not stop the sweep
            row.failure = f"{type(error).__name__}: {error}"
        rows.append(row)
        progress.say(f"{len(rows)}/{len(names)}  {name}: {row.failure or f'error {row.error:.1e}'}")
    return rows


def check(row: SweepRow, seed: int, library: str = LIBRARIES[0]) -> None:
    """Fills the row of one network, computed in the row's precision."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx(row.precision)
    try:
        _compare(row, seed, library)
    finally:
        keras.config.set_floatx(before)


def _compare(row: SweepRow, seed: int, library: str) -> None:
    import keras
    import numpy as np

    from dcp_tf.graph import ChannelGraph, count_cost, masked, rebuild, shrinkable_fraction
    from dcp_tf.graph.channel_graph import OUTPUT_REASON

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, kinds = _build(row.network, library)
    row.size = model.inputs[0].shape[1]
    randomize_statistics(model, seed)
    started = time.perf_counter()
    graph = ChannelGraph(model)
    row.trace_seconds = time.perf_counter() - started
    plan = random_plan(graph, RATE, seed)
    row.groups, row.prunable = len(graph.groups), len(plan)
    row.shrinkable = shrinkable_fraction(graph, kinds=kinds)
    kept = graph.kept(plan)
    started = time.perf_counter()
    small = rebuild(graph, kept)
    row.rebuild_seconds = time.perf_counter() - started
    row.params_kept = count_cost(graph, kept).params / count_cost(graph).params
    images = np.random.default_rng(seed).normal(size=(2, *model.inputs[0].shape[1:])).astype(row.precision)
    expected, outputs = run_here(masked(graph, kept), images), run_here(small, images)
    row.error = _largest(outputs, expected)
    _check_saved(small, images, outputs, library)
    if library == "keras_hub":
        row.pinned = {g.name: g.pinned_because for g in graph.groups if g.pinned_because not in (None, OUTPUT_REASON)}
        if row.precision == "float32":
            row.tflite_error = _tflite_error(small, images)


def _largest(outputs: Sequence[Any], expected: Sequence[Any]) -> float:
    return max(largest_difference(one, other) for one, other in zip(outputs, expected, strict=True))


def _tflite_error(model: Any, images: Any) -> float:
    from dcp_tf import tflite

    parity = tflite.check_parity(tflite.convert(model), model, images)
    tflite.check_tolerance(parity, "float32")
    return parity.max_error


def random_plan(graph: Any, rate: float, seed: int) -> dict[str, Any]:
    """Random channels for each prunable group, residual streams included; as many of each attention head."""
    import numpy as np

    rng, plan = np.random.default_rng(seed), {}
    for group in graph.prunable(residual=True):
        of_each = group.size // group.heads
        width = group.heads * max(1, of_each - round(rate * of_each))
        plan[group.name] = group.best(rng.permutation(group.size), width)
    return plan


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


def _build(name: str, library: str) -> tuple[Any, tuple[type, ...] | None]:
    """The network with logits, because softmax would hide differences; with small images if it supports them.

    Returns:
        The network, of KerasHub with opened layers, and the layers whose parameters count (None: convolutions).
    """
    import keras

    if library == "keras_hub":
        import keras_hub

        from dcp_tf.models import to_functional

        return to_functional(HUB_NETWORKS[name](keras_hub), SHAPE), (keras.layers.Layer,)
    constructor = getattr(keras.applications, name)
    try:
        return constructor(weights=None, classifier_activation=None, input_shape=SMALL), None
    except ValueError:
        return constructor(weights=None, classifier_activation=None), None


def _check_saved(model: Any, images: Any, outputs: Sequence[Any], library: str) -> None:
    """Saves the model and loads it in a process that cannot import dcp_tf."""
    with tempfile.TemporaryDirectory() as folder:
        path, code = pathlib.Path(folder, "pruned.keras"), None
        model.save(path)
        if library == "keras_hub":  # layers that stay whole need it
            code = pathlib.Path(folder, "custom_layers.py")
            code.write_text("import keras_hub\n")
        (loaded,) = run_in_plain_keras(images, [path], code and str(code))
    if isinstance(loaded, str):
        raise AssertionError(f"plain Keras cannot use the saved model: {loaded}")
    if not (error := _largest(loaded, outputs)) <= TOLERANCE:
        raise AssertionError(f"after loading the outputs differ by {error:.2g}")


def table(rows: list[SweepRow], library: str = LIBRARIES[0]) -> Any:
    """The rows as a `rich.table.Table`."""
    from rich import box
    from rich.table import Table

    passed = sum(row.failure is None for row in rows)
    title = f"{library} at a random plan of {RATE:.0%}: {passed} of {len(rows)}"
    sweep_table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    of_hub = library == "keras_hub"
    headings = ["network", "groups", "free", "shrinks", "params", "error", "trace s", "rebuild s", *["tflite"] * of_hub]
    for heading in headings:
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
            *([f"{r.tflite_error:.0e}" if r.tflite_error is not None else "-"] if of_hub else ()),
        )
    lines = [f"\n{r.network}: {r.failure}" for r in rows if r.failure is not None]
    lines += [f"\n{r.network}: {name} is pinned: {why}" for r in rows for name, why in r.pinned.items()]
    weights = "parameters" if of_hub else "convolution parameters"
    sweep_table.caption = (
        f"free: groups that can be pruned; shrinks: share of the {weights} in layers that can lose channels; params: "
        "share that is left; error: rebuilt against masked, of the largest output (*: compared in float64)"
        f"{'; tflite: of a float32 file, in standard deviations' if of_hub else ''}{''.join(lines)}"
    )
    sweep_table.caption_justify = "left"
    return sweep_table
