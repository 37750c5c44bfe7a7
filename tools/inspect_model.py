"""Shows which channels of a model can be removed together, what is pinned and why, and what the model costs.

    dcp-tf inspect --model=my_model.keras
    dcp-tf inspect --model=keras:MobileNetV2 --json
    dcp-tf inspect --model=keras:MobileNetV2 --rate=0.3
    dcp-tf inspect --model=zoo:resnet50 --rate=0.5 --paper_scope --json
    dcp-tf inspect --sweep --only=MobileNet
    dcp-tf inspect --sweep=keras_hub

A group is a set of channels with the same producers and consumers; each of its channels can be removed on its own. Its
name is what prune takes for --exclude.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json

from dcp_tf.errors import UsageError
from dcp_tf.settings.budget import Budget
from dcp_tf.settings.scope import Scope, WidthSettings
from dcp_tf.tools.cli import data_flags, model_flags
from dcp_tf.tools.cli.flags_from_settings import define, read_numbers
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.pruning_flags import define_targets, read_target

PROGRAM = Program("inspect_model", __doc__)
data_flags.define_model(PROGRAM)
PROGRAM.list("input_shape", [], "The shape of one input (32,32,3 or 20,5), if the model leaves sizes open.")
PROGRAM.section("What pruning would leave")
define(PROGRAM, Budget, ["rate"], {"rate": {"default": None}})
define_targets(PROGRAM)
define(PROGRAM, WidthSettings, ["round_to", "min_channels"])
define(PROGRAM, Scope, ["prune_residual", "ignore_statistics"])
PROGRAM.boolean(
    "paper_scope", False, "For zoo: networks, the groups that the papers prune, with --round_to=1 unless it is given."
)
PROGRAM.section("All of keras.applications, or eight networks of KerasHub")
PROGRAM.switch(
    "sweep",
    ("keras.applications", "keras_hub"),
    "Prune every network at random and compare it with the masked one; no --model. --sweep=keras_hub: small networks "
    "of KerasHub, if it is installed, with their layers opened; their TFLite files are compared too.",
)
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
    from dcp_tf.tools.app import model_tables
    from dcp_tf.tools.app.forecast import forecast

    shape = _shape(flags)
    loaded = models.load(flags.model, weights=flags.weights, input_shape=shape, **model_flags.loading_of(flags))
    if shape is not None and len(loaded.model.inputs) > 1:
        raise UsageError(f"{flags.model} has {len(loaded.model.inputs)} inputs, --input_shape states one")
    graph = ChannelGraph(loaded.model, None if shape is None else [(None, *shape)], flags.ignore_statistics)
    if flags.plot:
        from dcp_tf.graph.plot import plot_groups

        print(f"written: {plot_groups(graph, flags.plot)}", file=sys.stderr)
    if flags.rate is not None or read_target(flags) is not None:
        report, description = forecast(graph, flags), model_tables.describe(graph, count_cost(graph))
        if flags.json:
            print(json.dumps({**report, "groups": description["groups"]}, indent=2))
        else:
            model_tables.print_forecast(report, description)
        return None
    description = model_tables.describe(graph, count_cost(graph, open_sizes=True))
    if flags.json:
        print(json.dumps(description, indent=2))
        return None
    model_tables.print_groups(description)
    if flags.layers:
        model_tables.print_layers(description["layers"])
    return None


def _sweep(flags) -> int:
    from rich.console import Console

    from dcp_tf.tools.app import sweep
    from dcp_tf.tools.cli.program import FAILED, OK

    rows = sweep.sweep(flags.only, library=flags.sweep)
    if flags.json:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        Console(highlight=False).print(sweep.table(rows, flags.sweep))
    return FAILED if any(row.failure for row in rows) else OK


def _shape(flags) -> tuple[int, ...] | None:
    sizes = read_numbers("input_shape", flags.input_shape)
    if any(size < 1 or size != int(size) for size in sizes):
        given = ",".join(flags.input_shape)
        raise UsageError(f"--input_shape takes whole sizes, such as 224,224,3 or 20,5. Received: {given}")
    return tuple(map(int, sizes)) or None


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
