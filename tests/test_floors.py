"""Imports go downward only, between the floors that WORKSPACE.md draws."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# From the top down. What shares a line knows nothing of its neighbours, but for the last one.
FLOORS = (
    ("benchmarks",),
    ("tools",),
    ("workflow",),
    ("tflite", "experiments"),
    ("report",),
    ("pruning",),
    ("training",),
    ("graph",),
    ("data", "evaluation"),
    ("models",),
    (
        "changed_settings",
        "deprecated",
        "drawing",
        "errors",
        "field_types",
        "files",
        "graph_function",
        "progress",
        "settings",
        "text_table",
    ),
)
LEVEL = {room: -number for number, floor in enumerate(FLOORS) for room in floor}
FOLDERS = {room: ROOT / room if (ROOT / room).is_dir() else ROOT / "dcp_tf" / room for room in LEVEL}


def imported_rooms(code):
    """The rooms that a module's code imports from dcp_tf, inside of functions too, with their lines."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            package, *below = (node.module or "").split(".")
            names = below[:1] or [alias.name for alias in node.names]
            found = names if package == "dcp_tf" and not node.level else []
        elif isinstance(node, ast.Import):
            found = [name.name.split(".")[1] for name in node.names if name.name.startswith("dcp_tf.")]
        else:
            continue
        yield from ((room, node.lineno) for room in found if room in LEVEL)


def upward(room, code):
    """Lines that import from a floor above, or from a neighbour on the same one."""
    ground = FLOORS[-1]
    return [
        f"line {line}: {room} imports {other}"
        for other, line in imported_rooms(code)
        if LEVEL[other] > LEVEL[room] or (LEVEL[other] == LEVEL[room] and other != room and room not in ground)
    ]


@pytest.mark.parametrize("room", LEVEL)
def test_imports_go_downward(room):
    folder = FOLDERS[room]
    files = sorted(folder.rglob("*.py")) or [folder.with_suffix(".py")]
    found = [f"{file.relative_to(ROOT)} {line}" for file in files for line in upward(room, file.read_text("utf-8"))]
    assert not found


def test_every_room_has_its_floor():
    rooms = {path.stem for path in (ROOT / "dcp_tf").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {room for room in rooms if not room.startswith("_")} <= LEVEL.keys()


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("from dcp_tf.pruning import prune", 1),
        ("def f():\n    import dcp_tf.tools.prune", 1),
        ("from dcp_tf import report, progress", 1),
        ("from dcp_tf.training.loop import fit\nfrom dcp_tf.graph import rebuild", 0),
    ],
)
def test_an_upward_import_is_seen(code, count):
    assert len(upward("training", code)) == count
