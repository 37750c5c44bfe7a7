"""What `mkdocs build` does beyond its plugins: the package is laid out as it is installed, for the API reference."""

import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / ".cache" / "docs" / "dcp_tf"
BESIDE = ("tools", "tflite", "experiments")  # folders that installation moves into the package, see setup.py


def on_startup(**_):
    """Links all parts of the package into one folder, so that `dcp_tf.tflite` is found without installation."""
    shutil.rmtree(PACKAGE, ignore_errors=True)
    PACKAGE.mkdir(parents=True)
    parts = [path for path in (ROOT / "dcp_tf").iterdir() if path.name != "__pycache__"]
    for path in [*parts, *(ROOT / name for name in BESIDE)]:
        (PACKAGE / path.name).symlink_to(path)
