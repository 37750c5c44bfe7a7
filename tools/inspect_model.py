"""Shows which channels of a model can be removed together, what is pinned and why, and what the model costs.

    python -m dcp_tf.tools.inspect_model --model=my_model.keras
    python -m dcp_tf.tools.inspect_model --model=keras:MobileNetV2 --json
    python -m dcp_tf.tools.inspect_model --model=keras:MobileNetV2 --rate=0.3
    python -m dcp_tf.tools.inspect_model --model=zoo:resnet50 --rate=0.5 --paper_scope --json
    python -m dcp_tf.tools.inspect_model --sweep --only=MobileNet

A group is a set of channels that have the same layers making and reading them; each channel of it can go on its own.
The names are those that prune takes for --exclude.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import itertools
import json
import re

from dcp_tf.defaults import ROUND_TO
from dcp_tf.errors import UsageError
from dcp_tf.tools.cli import data_flags, model_flags, narrow_tables
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.pruning_flags import read_target

PROGRAM = Program("inspect_model", __doc__)
data_flags.define_model(PROGRAM)
PROGRAM.list("input_shape", [], "The shape of one input (32,32,3 or 20,5), where the model leaves sizes open.")
PROGRAM.section("What pruning would leave")
PROGRAM.share("rate", None, "Count the model with this share of channels removed from each group.")
PROGRAM.string("target_macs", None, "Find the widths for at most so many multiply-accumulates, as a number or 60%.")
PROGRAM.string("target_params", None, "Find the widths for at most so many parameters, as a number or 60%.")
PROGRAM.string("target_bytes", None, "Find the widths for at most so many bytes of float32 weights, a number or 60%.")
PROGRAM.integer("round_to", ROUND_TO, "Widths are the nearest multiple of it, as in prune.", lower=1)
PROGRAM.integer("min_channels", 1, "Fewest channels that a group keeps.", lower=1)
PROGRAM.boolean("prune_residual", False, "Residual streams lose channels too.")
PROGRAM.boolean(
    "ignore_statistics", False, "Free channels also where LayerNormalization and its like take statistics over them."
)
PROGRAM.boolean(
    "paper_scope", False, "For zoo: networks, the groups that the papers prune, with --round_to=1 unless it is given."
)
PROGRAM.section("All of keras.applications")
PROGRAM.boolean("sweep", False, "Prune every network at random and compare it with the masked one; no --model.")
PROGRAM.string("only", "", "A regular expression: the networks of --sweep whose name it is found in.")
PROGRAM.section("Output")
PROGRAM.path("plot", None, "Draw the groups over the graph into this file (.png, .svg or .pdf).")
PROGRAM.boolean("layers", False, "Print the layers with the shapes of their outputs and their costs too.")
PROGRAM.boolean("json", False, "Print JSON; it holds the layers.")


_PLOTS = (".png", ".svg", ".pdf")


def main(flags) -> None:
    """Prints the groups and the costs."""
    if flags.sweep:
        return _sweep(flags)
    if not flags.model:
        raise UsageError("say which model: --model=zoo:NAME, keras:NAME or a path to a .keras file")
    if flags.plot and not flags.plot.lower().endswith(_PLOTS):
        raise UsageError(f"--plot takes a file name that ends in {', '.join(_PLOTS)}, received {flags.plot}")
    from dcp_tf import models
    from dcp_tf.graph import ChannelGraph, count_cost

    shape = _shape(flags)
    loaded = models.load(flags.model, weights=flags.weights, input_shape=shape, **model_flags.code_of(flags))
    if shape is not None and len(loaded.model.inputs) > 1:
        raise UsageError(f"{flags.model} has {len(loaded.model.inputs)} inputs, --input_shape states one")
    graph = ChannelGraph(loaded.model, None if shape is None else [(None, *shape)], flags.ignore_statistics)
    if flags.plot:
        from dcp_tf.report.graph_plot import plot_groups

        print(f"written: {plot_groups(graph, flags.plot)}", file=sys.stderr)
    if flags.rate is not None or read_target(flags) is not None:
        return _print_forecast(forecast(graph, flags), describe(graph, count_cost(graph)), flags.json)
    found = describe(graph, count_cost(graph, open_sizes=True))
    if flags.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
        if flags.layers:
            _print_layers(found["layers"])
    return None


def _sweep(flags) -> int:
    from rich.console import Console

    from dcp_tf.tools.app import sweep
    from dcp_tf.tools.cli.program import FAILED, OK

    rows = sweep.sweep(flags.only)
    if flags.json:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        Console(highlight=False).print(sweep.table(rows))
    return FAILED if any(row.failure for row in rows) else OK


def forecast(graph, flags) -> dict:
    """What pruning at a rate or to a target would leave, counted without building it."""
    from dcp_tf.graph import count_cost
    from dcp_tf.pruning import Widths, profile, rounding_note

    if flags.rate is not None and not 0 < flags.rate < 1:
        raise UsageError(f"the pruning rate must lie between 0 and 1, received {flags.rate}")
    target = read_target(flags)
    if target is not None and flags.rate is not None:
        raise UsageError("give --rate or a target, not both")
    scope = _scope(graph, flags)
    round_to = 1 if flags.paper_scope and not flags["round_to"].present else flags.round_to  # the papers do not round
    widths_at = lambda step: Widths(graph, scope, step, flags.min_channels)  # noqa: E731
    widths = widths_at(round_to)
    kept = widths.at_rate(flags.rate) if target is None else widths.within(target)
    note = None if target else rounding_note(graph, lambda step: widths_at(step).at_rate(flags.rate), round_to)
    before, after = count_cost(graph), widths.cost(kept)
    found = {"model": graph.trace.model.name, "rate": flags.rate}
    for name in ("params", "macs", "flops"):
        full, left = getattr(before, name), getattr(after, name)
        found |= {name: left, f"baseline_{name}": full, f"{name}_reduction_percent": 100 * (1 - left / max(full, 1))}
    return found | {"note": note, "widths": kept, "reachable": profile(widths)}


def _scope(graph, flags) -> list:
    """The groups that lose channels."""
    if not flags.paper_scope:
        groups = graph.prunable(flags.prune_residual)
    else:
        from dcp_tf.models import paper_scope

        if not flags.model.startswith("zoo:"):
            raise UsageError("--paper_scope is for the networks of the papers: --model=zoo:NAME")
        patterns = paper_scope(flags.model.removeprefix("zoo:"))
        groups = [g for g in graph.groups if any(re.fullmatch(pattern, g.name) for pattern in patterns)]
    if not groups:
        free = graph.prunable(residual=True)
        kinds = dict.fromkeys("recurrent units" if group.recurrent else "residual streams" for group in free)
        hint = f"its {' and '.join(kinds)} need --prune_residual" if free else "without --rate the reasons are listed"
        raise UsageError(f"the model has no group of channels to prune; {hint}")
    return groups


def _print_forecast(found: dict, described: dict, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**found, "groups": described["groups"]}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    _print(described, found["widths"])
    for name, title in (("params", "parameters"), ("macs", "MACs"), ("flops", "FLOPs (papers' count)")):
        reduction = found[f"{name}_reduction_percent"]
        console.print(f"{title:22} {found[f'baseline_{name}']:>15,} -> {found[name]:>15,}  -{reduction:.2f} %")
    table = Table(title="what is reachable", title_justify="left")
    for column in ("rate", "parameters", "change", "MACs", "change"):
        table.add_column(column, justify="right")
    for rates, row in _distinct(found["reachable"]):
        params, macs = (f"-{row[f'{n}_reduction_percent']:.1f} %" for n in ("params", "macs"))
        table.add_row(rates, f"{row['params']:,}", params, f"{row['macs']:,}", macs)
    console.print(table)
    if found["note"]:
        console.print(f"note: {found['note']}", soft_wrap=True)


def _distinct(rows: list[dict]) -> list[tuple[str, dict]]:
    """The rows of the table; rates at which rounding leaves the same model share one."""
    shown = []
    for _, equal in itertools.groupby(rows, lambda row: (row["params"], row["macs"])):
        first, *more = equal
        last = more[-1] if more else first
        names = ["below 1" if row["rate"] == 1 else f"{row['rate']:.1f}" for row in (first, last)]
        shown.append((" to ".join(dict.fromkeys(names)), first))
    return shown


def describe(graph, cost) -> dict:
    """What --json prints."""
    from dcp_tf.graph import group_shares

    shares = group_shares(graph)
    return {
        "model": graph.trace.model.name,
        "fingerprint": graph.fingerprint(),
        "params": cost.params,
        "keras_params": graph.trace.model.count_params(),
        "macs": cost.macs,
        "flops": cost.flops,
        "activations": cost.activations,
        "uncounted": list(cost.uncounted),
        "groups": [
            {
                "name": g.name,
                "size": g.size,
                "producers": list(g.producers),
                "consumers": list(g.consumers),
                "residual": g.residual,
                "recurrent": g.recurrent,
                "pinned_because": g.pinned_because,
                "params_share": shares[g.name][0],
                "macs_share": shares[g.name][1],
            }
            for g in graph.groups
        ],
        "layers": _layers(graph, cost),
    }


def _layers(graph, cost) -> list[dict]:
    """One entry for each layer in running order; the outputs of a shared layer are those of its first call."""
    costs = {layer.path: layer for layer in cost.layers}
    entries: dict[str, dict] = {}
    for call in graph.trace.calls:
        cost_here = costs.get(call.path)
        entry = {
            "name": call.path,
            "kind": type(call.operation).__name__,
            "outputs": [list(graph.trace.shapes[t][1:]) for t in call.outputs],
            "params": cost_here.params if cost_here else 0,
            "macs": cost_here.macs if cost_here else 0,
        }
        entries.setdefault(call.path, entry)
    return list(entries.values())


def _print(found: dict, widths: dict | None = None) -> None:
    """The groups and costs; with `widths` (group name -> channels that stay) what each group would keep."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.width < narrow_tables.WIDE:
        print("\n".join([f"{found['model']}: groups of channels", *narrow_tables.group_lines(found["groups"], widths)]))
    else:
        console.print(_group_table(found, widths))
    free = [g for g in found["groups"] if g["residual"] and not g["pinned_because"]]
    if any(not g["recurrent"] for g in free):
        console.print("residual: a sum of feature maps, pruned with --prune_residual only")
    if any(g["recurrent"] for g in free):
        console.print("recurrent: a state to which each step adds, pruned with --prune_residual only")
    _print_costs(console, found)
    if found["uncounted"]:
        console.print(f"not counted among the MACs: {', '.join(found['uncounted'])}")


def _print_costs(console, found: dict) -> None:
    params = f"{found['params']:,} parameters"
    if found["macs"] is None:
        figures = "; MACs are unknown: state the shape of one input with --input_shape"
    else:
        figures = f", {found['macs']:,} MACs, {found['flops']:,} FLOPs (papers' count)"
    console.print(params + figures, soft_wrap=True)
    if found["keras_params"] != found["params"]:
        console.print(f"{found['keras_params']:,} parameters in Keras, which counts statistics of normalizations too")


def _group_table(found: dict, widths: dict | None):
    from rich.table import Table

    table = Table(title=f"{found['model']}: groups of channels", title_justify="left")
    for column in ("group", "size", "params", "MACs", "tied together", "read by", "can be pruned"):
        table.add_column(column, justify="right" if column in ("size", "params", "MACs") else "left", overflow="fold")
    for group in found["groups"]:
        answer = narrow_tables.answer(group)
        if group["pinned_because"]:
            answer = f"no: {group['pinned_because']}"
        shares = (narrow_tables.percent(group[f"{name}_share"]) for name in ("params", "macs"))
        tied = narrow_tables.some(group["producers"]) if len(group["producers"]) > 1 else ""
        width = f"{(widths or {}).get(group['name'], group['size'])} of " if widths else ""
        table.add_row(
            group["name"], f"{width}{group['size']}", *shares, tied, narrow_tables.some(group["consumers"]), answer
        )
    return table


def _print_layers(layers: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if console.width < narrow_tables.WIDE:
        print("\n".join(["layers", *narrow_tables.layer_lines(layers)]))
        return
    table = Table(title="layers", title_justify="left")
    for column in ("layer", "kind", "output", "parameters", "MACs"):
        right = column in ("parameters", "MACs")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for layer in layers:
        shapes = narrow_tables.shapes(layer["outputs"])
        table.add_row(layer["name"], layer["kind"], shapes, f"{layer['params']:,}", narrow_tables.number(layer["macs"]))
    console.print(table)


def _shape(flags) -> tuple[int, ...] | None:
    sizes = data_flags.numbers(flags, "input_shape")
    if sizes is not None and any(s < 1 or s != int(s) for s in sizes):
        given = ",".join(flags.input_shape)
        raise UsageError(f"--input_shape takes whole sizes, such as 224,224,3 or 20,5. Received: {given}")
    return None if sizes is None else tuple(int(s) for s in sizes)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
