"""Shows which channels of a model can be removed together, what is pinned and why, and what the model costs.

    python -m dcp_tf.tools.inspect_model --model=my_model.keras
    python -m dcp_tf.tools.inspect_model --model=keras:MobileNetV2 --json

A group is a set of channels that have the same layers making and reading them; each channel of it can go on its own.
The names are those that prune takes for --exclude.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags
from dcp_tf.tools.program import Program

PROGRAM = Program("inspect_model", __doc__)
common_flags.define_model(PROGRAM)
PROGRAM.list("input_shape", [], "Height, width and channels (such as 32,32,3), where the model leaves them open.")
PROGRAM.section("Output")
PROGRAM.boolean("layers", False, "Print the layers with the shapes of their outputs and their costs too.")
PROGRAM.boolean("json", False, "Print JSON; it holds the layers.")


def main(flags) -> None:
    """Prints the groups and the costs."""
    if not flags.model:
        raise UsageError("say which model: --model=zoo:NAME, keras:NAME or a path to a .keras file")
    from dcp_tf import models
    from dcp_tf.graph import ChannelGraph, count_cost

    shape = _shape(flags)
    loaded = models.load(flags.model, weights=flags.weights, input_shape=shape)
    graph = ChannelGraph(loaded.model, None if shape is None else [(None, *shape)])
    found = describe(graph, count_cost(graph))
    if flags.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
        if flags.layers:
            _print_layers(found["layers"])


def describe(graph, cost) -> dict:
    """What --json prints."""
    return {
        "model": graph.trace.model.name,
        "fingerprint": graph.fingerprint(),
        "params": cost.params,
        "macs": cost.macs,
        "flops": cost.flops,
        "uncounted": list(cost.uncounted),
        "groups": [
            {
                "name": g.name,
                "size": g.size,
                "producers": list(g.producers),
                "consumers": list(g.consumers),
                "residual": g.residual,
                "pinned_because": g.pinned_because,
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


def _print(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['model']}: groups of channels", title_justify="left")
    for column in ("group", "size", "read by", "can be pruned"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for group in found["groups"]:
        answer = "residual stream: with --prune_residual" if group["residual"] else "yes"
        if group["pinned_because"]:
            answer = f"no: {group['pinned_because']}"
        readers = group["consumers"]
        shown = ", ".join(readers[:3]) + (f" and {len(readers) - 3} more" if len(readers) > 3 else "")
        table.add_row(group["name"], str(group["size"]), shown, answer)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{found['params']:,} parameters, {found['macs']:,} MACs, {found['flops']:,} FLOPs (papers' count)")
    if found["uncounted"]:
        console.print(f"not counted among the MACs: {', '.join(found['uncounted'])}")


def _print_layers(layers: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="layers", title_justify="left")
    for column in ("layer", "kind", "output", "parameters", "MACs"):
        right = column in ("parameters", "MACs")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for layer in layers:
        shapes = ", ".join(" x ".join("?" if s is None else str(s) for s in shape) for shape in layer["outputs"])
        table.add_row(layer["name"], layer["kind"], shapes, f"{layer['params']:,}", f"{layer['macs']:,}")
    Console(highlight=False).print(table)


def _shape(flags) -> tuple[int, ...] | None:
    sizes = common_flags.numbers(flags, "input_shape")
    if sizes is not None and (len(sizes) != 3 or any(s < 1 or s != int(s) for s in sizes)):
        raise UsageError(f"--input_shape takes height,width,channels, received {flags.input_shape}")
    return None if sizes is None else tuple(int(s) for s in sizes)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
