"""What inspect_model prints of a model: its groups of channels, its layers, its costs, and a forecast."""

import itertools
from typing import Any

from rich.console import Console
from rich.table import Table

from dcp_tf.text_table import some
from dcp_tf.tools.cli import narrow_tables


def describe(graph: Any, cost: Any) -> dict[str, Any]:
    """What --json prints."""
    from dcp_tf.graph import group_fractions

    shares = group_fractions(graph)
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


def _layers(graph: Any, cost: Any) -> list[dict]:
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


def print_groups(description: dict, widths: dict | None = None) -> None:
    """Prints the groups and costs; with `widths` (group name -> channels that stay) also what each group would keep."""
    console = Console(highlight=False)
    if console.width < narrow_tables.WIDE:
        print(
            "\n".join(
                [
                    f"{description['model']}: groups of channels",
                    *narrow_tables.group_lines(description["groups"], widths),
                ]
            )
        )
    else:
        console.print(_group_table(description, widths))
    free = [g for g in description["groups"] if g["residual"] and not g["pinned_because"]]
    if any(not g["recurrent"] for g in free):
        console.print("residual: a sum of feature maps, pruned with --prune_residual only")
    if any(g["recurrent"] for g in free):
        console.print("recurrent: a state to which each step adds, pruned with --prune_residual only")
    _print_costs(console, description)
    if description["uncounted"]:
        console.print(f"not counted among the MACs: {', '.join(description['uncounted'])}")


def _print_costs(console: Console, description: dict) -> None:
    params = f"{description['params']:,} parameters"
    if description["macs"] is None:
        figures = "; MACs are unknown: state the shape of one input with --input_shape"
    else:
        figures = f", {description['macs']:,} MACs, {description['flops']:,} FLOPs (papers' count)"
    console.print(params + figures, soft_wrap=True)
    if description["keras_params"] != description["params"]:
        console.print(
            f"{description['keras_params']:,} parameters in Keras, which counts statistics of normalizations too"
        )


def _group_table(description: dict, widths: dict | None) -> Table:
    table = Table(title=f"{description['model']}: groups of channels", title_justify="left")
    for column in ("group", "size", "params", "MACs", "tied together", "read by", "can be pruned"):
        table.add_column(column, justify="right" if column in ("size", "params", "MACs") else "left", overflow="fold")
    for group in description["groups"]:
        answer = narrow_tables.answer(group)
        if group["pinned_because"]:
            answer = f"no: {group['pinned_because']}"
        shares = (narrow_tables.percent(group[f"{name}_share"]) for name in ("params", "macs"))
        tied = some(group["producers"]) if len(group["producers"]) > 1 else ""
        width = f"{(widths or {}).get(group['name'], group['size'])} of " if widths else ""
        table.add_row(group["name"], f"{width}{group['size']}", *shares, tied, some(group["consumers"]), answer)
    return table


def print_layers(layers: list[dict]) -> None:
    """Prints the layers with the shapes of their outputs and their costs."""
    from rich.console import Console

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


def print_forecast(report: dict, description: dict) -> None:
    """Prints the groups with the widths that pruning would leave, the costs, and what other rates would leave."""
    console = Console(highlight=False)
    print_groups(description, report["widths"])
    for name, title in (("params", "parameters"), ("macs", "MACs"), ("flops", "FLOPs (papers' count)")):
        reduction = report[f"{name}_reduction_percent"]
        console.print(f"{title:22} {report[f'baseline_{name}']:>15,} -> {report[name]:>15,}  -{reduction:.2f}%")
    table = Table(title="what is reachable", title_justify="left")
    for column in ("rate", "parameters", "change", "MACs", "change"):
        table.add_column(column, justify="right")
    for rates, row in _distinct(report["reachable"]):
        params, macs = (f"-{row[f'{n}_reduction_percent']:.1f}%" for n in ("params", "macs"))
        table.add_row(rates, f"{row['params']:,}", params, f"{row['macs']:,}", macs)
    console.print(table)
    if report["note"]:
        console.print(f"note: {report['note']}", soft_wrap=True)


def _distinct(rows: list[dict]) -> list[tuple[str, dict]]:
    """The rows of the table; rates at which rounding leaves the same model share one."""
    shown = []
    for _, equal in itertools.groupby(rows, lambda row: (row["params"], row["macs"])):
        first, *more = equal
        last = more[-1] if more else first
        names = ["below 1" if row["rate"] == 1 else f"{row['rate']:.1f}" for row in (first, last)]
        shown.append((" to ".join(dict.fromkeys(names)), first))
    return shown
