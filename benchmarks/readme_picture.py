r"""Draws the picture of README.md: accuracy against measured latency of the TFLite files of several runs.

    for macs in 70 50 35; do for method in dcp l1; do
        dcp-tf prune --model=resnet20_cifar10.keras --dataset=tfds:cifar10 --method=$method --target_macs=$macs% \
            --mean=.485,.456,.406 --std=.229,.224,.225 --finetune_epochs=2 --max_steps_per_epoch=100 \
            --output_dir=runs/${method}_$macs
    done; done
    python benchmarks/readme_picture.py --output=docs/images/accuracy_latency \
        --runs=runs/dcp_70,runs/dcp_50,runs/dcp_35,runs/l1_70,runs/l1_50,runs/l1_35

The runs of a method, at several costs, make its line. Accuracies are those of summary.json. All files are
timed again, interleaved, so that their latencies can be compared; --benchmark=FILE takes such a measurement of before.
Writes OUTPUT_light.svg and OUTPUT_dark.svg, and the measurement to OUTPUT.json.
"""

import pathlib
import sys

from dcp_tf.drawing import Palette, style
from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("readme_picture", __doc__)
PROGRAM.section("The picture")
PROGRAM.paths("runs", [], "Folders of prune, all of one model; each method becomes a line.")
PROGRAM.path("output", "docs/images/accuracy_latency", "Where to write, without the end of the name.")
PROGRAM.path("benchmark", None, "OUTPUT.json of an earlier call, in place of a new measurement.")
PROGRAM.integer("benchmark_runs", 50, "Measured runs of each file.", lower=1)

MODES = {"float32": "o", "int8": "s"}
NAMES = {"dcp": "dcp_tf", "l1": "L1 norm"}
# GitHub's pages: ink, muted, line, original, then one color for each method
THEMES = {
    "light": Palette("#1f2328", "#59636e", "#d1d9e0", "#1f2328", "#0b62c4", "#c2571a", "#ffffff"),
    "dark": Palette("#f0f6fc", "#9198a1", "#3d444d", "#f0f6fc", "#62b0ff", "#f0985c", "#0d1117"),
}


def main(flags) -> None:
    """Reads the runs, times their files, and draws both pictures."""
    from dcp_tf.files import read_json, write_json

    if not flags.runs:
        raise UsageError("say which runs: --runs=runs/a,runs/b")
    points = [point for folder in flags.runs for point in _points(pathlib.Path(folder))]
    output = pathlib.Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    if flags.benchmark is None:
        measured = _measure([point["path"] for point in points if not _is_repeated(point, points)], flags)
        write_json(output.with_suffix(".json"), measured)
    else:
        measured = read_json(flags.benchmark)
    points = [point | measured["candidates"][point["path"]] for point in points if not _is_repeated(point, points)]
    for point in sorted(points, key=lambda point: (point["mode"], -point["median_ms"])):
        figures = f"{point['macs']:6.1%} of MACs {point['top1']:7.2%} {point['median_ms']:7.4f} ms"
        print(f"{point['mode']:8} {point['method']:8} {figures}")
    for theme, palette in THEMES.items():
        _draw(points, measured["device"], palette, output.with_name(f"{output.name}_{theme}.svg"))


def _points(folder: pathlib.Path) -> list[dict]:
    """Method, mode, accuracy and path of each file of a run."""
    from dcp_tf.files import read_json

    summary = read_json(folder / "summary.json")
    return [
        {
            "method": summary["method"] if record["model"] == "pruned" else "original",
            "mode": record["quantization"],
            "top1": record["top1"],
            "macs": summary[record["model"]]["macs"] / summary["baseline"]["macs"],
            "path": str(folder / name),
        }
        for name, record in summary["tflite"].items()
        if record["quantization"] in MODES
    ]


def _is_repeated(point: dict, points: list[dict]) -> bool:
    """Whether this is the original once more: each run has its files."""
    same = [p for p in points if (p["method"], p["mode"]) == (point["method"], point["mode"])]
    return point["method"] == "original" and same[0] is not point


def _measure(paths: list[str], flags) -> dict:
    from dcp_tf import tflite

    return tflite.benchmark({path: path for path in paths}, threads=1, runs=flags.benchmark_runs).to_json()


def _draw(points: list[dict], machine: str, palette: Palette, path: pathlib.Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    methods = [method for method in dict.fromkeys(point["method"] for point in points) if method != "original"]
    colors = dict(zip(methods, (palette.pruned, palette.third), strict=False))
    with matplotlib.rc_context({**style(palette), "font.size": 13, "svg.hashsalt": "dcp_tf"}):
        figure = Figure(figsize=(7.6, 4.4))
        axes = figure.subplots()
        for mode, marker in MODES.items():
            of_mode = [point for point in points if point["mode"] == mode]
            original = next(point for point in of_mode if point["method"] == "original")
            for method, color in colors.items():
                line = sorted((p for p in of_mode if p["method"] == method), key=lambda p: -p["median_ms"])
                x, y = zip(*((p["median_ms"], 100 * p["top1"]) for p in [original, *line]), strict=True)
                axes.plot(x, y, color=color, linewidth=2.2, zorder=2)
                axes.plot(x[1:], y[1:], marker, color=color, markersize=8, zorder=3)
                if method == methods[0] and mode == "float32":
                    for point, xy in zip(line, zip(x[1:], y[1:], strict=True), strict=True):
                        text = f"\N{MINUS SIGN}{int(100 - 100 * point['macs'])}% MACs"  # rounded down
                        axes.annotate(text, xy, (-11, 4), textcoords="offset points", ha="right", color=palette.muted)
            at = original["median_ms"], 100 * original["top1"]
            axes.plot(*at, marker, color=palette.baseline, markersize=10, zorder=4)
            axes.annotate(f"original, {mode}", at, (0, 11), textcoords="offset points", ha="center")
        for method, color in colors.items():
            axes.plot([], [], "-o", color=color, linewidth=2.2, markersize=8, label=NAMES.get(method, method))
        axes.legend(loc="lower right", title="pruned with", alignment="left")
        axes.set_xlim(0, 1.12 * max(point["median_ms"] for point in points))
        low, high = (100 * f(point["top1"] for point in points) for f in (min, max))
        axes.set_ylim(low - 0.06 * (high - low), high + 0.14 * (high - low))
        axes.set_ylabel("top-1 (%)")
        axes.set_xlabel(f"latency (ms), one thread of {machine.split(',')[0]}")
        axes.tick_params(length=0)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
