r"""Converts a Keras model to TFLite files and checks that they compute the same.

    dcp-tf export --model=runs/mine/pruned.keras --dataset=npz:my_data.npz --quantization=int8 \
        --output_dir=runs/mine

The files are called NAME_MODE.tflite (NAME_int8_io8.tflite with integer inputs and outputs). Each file runs on all test
images and is compared with its Keras model. A file that computes something else is not written, and the first layer
that differs is named. The content of each file is printed and stored in export.json: operations, float operations,
types, MACs.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import pathlib

from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tools.app import baseline
from dcp_tf.tools.cli import data_flags, pruning_flags
from dcp_tf.tools.cli.flags_from_settings import define
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("export", __doc__)
data_flags.define_model_and_data(PROGRAM)
pruning_flags.define_files(PROGRAM)
PROGRAM.path("output_dir", None, "Folder for the files; default: the folder of the model.")
define(PROGRAM, Deployment, ["strict"])
PROGRAM.string(
    "baseline", "baseline", "Compare operations with those of the files of this name in the same folder, if any."
)
PROGRAM.boolean("c_array", False, "Write each file as a C array too, NAME_MODE.c, for microcontrollers.")
PROGRAM.string("name", None, "Prefix of the file names; default: the model's name.")
data_flags.define_seed(PROGRAM, "Draws the calibration images.")

_LONGEST_NAME = 200  # bytes; file names have at most 255, including the suffixes of modes and temporary files


def main(flags) -> None:
    """Writes the files and prints how near each is to the Keras model."""
    from rich.console import Console

    from dcp_tf import progress
    from dcp_tf.files import readable_name, writable_folder, write_json
    from dcp_tf.report import files_table
    from dcp_tf.tools.app import augmentation_check, deployment, preflight, run_summary
    from dcp_tf.tools.app.export_table import file_table
    from dcp_tf.tools.app.failures import collect

    settings = pruning_flags.read_deployment(flags)
    if not settings.quantizations:
        raise UsageError("say which files to make: --quantization=float32,int8")
    _check_name(flags.name)
    model_and_data = data_flags.load_model_and_data(flags)
    is_file = pathlib.Path(flags.model).is_file()
    if not flags.output_dir and not is_file:
        raise UsageError("say where to write the files: --output_dir=FOLDER")
    folder = writable_folder(flags.output_dir or pathlib.Path(flags.model).parent)
    changes = []
    if not flags["quantization"].present:  # of files that were asked for those that can be made are made
        settings, changes = preflight.possible_files(settings, False, model_and_data)
    baseline_check = baseline.report_baseline(flags, model_and_data, what="model")
    model_and_data = augmentation_check.drop_harmful_augmentation(flags, model_and_data)
    model_and_data.announce()
    for line in changes:
        progress.say(line)
    name = flags.name or (readable_name(pathlib.Path(flags.model).stem) if is_file else model_and_data.model.name)
    records, failures = deployment.deploy(
        {name: model_and_data.model}, model_and_data.dataset, model_and_data.objective, folder, settings, flags.seed
    )
    written = [write_c_array(folder / file) for file in records if flags.c_array]
    if records:
        with collect(failures, f"the comparison with the files of {flags.baseline!r}", flags.debug):
            compare_with_baseline(records, folder, name, flags.baseline)
        console = Console(highlight=False)
        for file, record in records.items():
            console.print(file_table(file, record))
        console.print(files_table(records))
    origin = run_summary.provenance(model_and_data, baseline_check)
    write_json(folder / "export.json", {**origin, "files": records, "failures": failures})
    progress.say(f"written to {folder}: {', '.join([*records, *written, 'export.json'])}")
    if failures:
        raise RunError("; ".join(failures))


def _check_name(name: str | None) -> None:
    """Raises UsageError where file names cannot start with it."""
    if name and (pathlib.PurePath(name).name != name or len(os.fsencode(name)) > _LONGEST_NAME):
        raise UsageError(
            f"--name is what file names start with, at most {_LONGEST_NAME} bytes and no folder (which --output_dir "
            f"names), received {name:.80}"
        )


def write_c_array(path: pathlib.Path) -> str:
    """Writes a file as a C array beside it; returns the name."""
    from dcp_tf.files import write_text
    from dcp_tf.tflite.micro.c_array import c_array

    return write_text(path.with_suffix(".c"), c_array(path.read_bytes(), path.stem)).name


def compare_with_baseline(records: dict[str, dict], folder: pathlib.Path, name: str, baseline: str) -> None:
    """Adds to each record how its operations differ from those of the baseline's file of the same mode."""
    from dcp_tf.tools.app.deployment import operations_change

    for file, record in records.items():
        other = folder / (baseline + file.removeprefix(name))
        if baseline != name and other.is_file():
            record["operations_change"] = operations_change(folder / file, other)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
