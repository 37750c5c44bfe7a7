"""The flags of programs that train something and leave a folder behind, and how that folder is opened."""

import pathlib
from typing import Any

from absl.flags import CsvListSerializer

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli import data_flags
from dcp_tf.tools.cli.program import Program

_OF_THE_CALL = ("help", "helpfull", "debug", "flagfile", "resume", "overwrite")  # flags that are no part of a run


def define_run(program: Program, receives: str, output_dir: str | None = None) -> None:
    """`--output_dir`, `--seed` and `--resume`.

    Args:
        program: gets the flags.
        receives: what lies in the folder afterwards, as a sentence.
        output_dir: the folder without the flag.
    """
    program.section("The run")
    program.path("output_dir", output_dir, receives)
    data_flags.define_seed(program, "Of everything that is drawn.")
    program.boolean("resume", False, "Go on with a stopped run in --output_dir.")
    define_overwrite(program)


def define_overwrite(program: Program) -> None:
    """`--overwrite`."""
    program.boolean("overwrite", False, "Replace the finished run that --output_dir holds; without it that is refused.")


def require_folder(flags: Any, what: str, record: str = "summary.json") -> None:
    """Raises UsageError where `--output_dir` is missing, or holds a finished run that would be lost.

    Args:
        flags: of the program.
        what: shall go there.
        record: the file that a finished run leaves.
    """
    if not flags.output_dir:
        raise UsageError(f"say where {what} shall go: --output_dir=FOLDER")
    if (pathlib.Path(flags.output_dir) / record).is_file() and not flags.resume and not flags.overwrite:
        raise UsageError(
            f"{flags.output_dir} holds a finished run ({record}): give another --output_dir, or replace it with "
            "--overwrite"
        )


def open_folder(flags: Any, strategy: Any) -> tuple[pathlib.Path, int]:
    """Makes `--output_dir`, or in it the folder of this worker where there are several.

    Returns:
        The folder, and which worker this is; 0, the first, hands over the files.
    """
    from dcp_tf.files import writable_folder
    from dcp_tf.training.distribution import worker_number

    folder, worker = writable_folder(flags.output_dir), worker_number(strategy)
    return (writable_folder(folder / f"worker_{worker}") if worker else folder), worker


def record_flags(program: Program, flags: Any, folder: pathlib.Path, finished: bool = False) -> None:
    """Writes flags.txt: what was given on the command line, and the seed, so that --flagfile repeats the run.

    Args:
        program: that runs.
        flags: its flags.
        folder: of the run.
        finished: whether it is the run that the folder holds. Before, one that is resumed may be refused still, and a
            finished run that it overwrites keeps its flags until then.
    """
    from dcp_tf.files import readable_name, write_text

    holds_run = flags.resume or any((folder / name).exists() for name in ("summary.json", "compare.json"))
    if holds_run and not finished and (folder / "flags.txt").exists():
        return
    again = f"dcp-tf {program.name} --flagfile={folder / 'flags.txt'} --output_dir=ANOTHER_FOLDER"
    lines = [f"# {again} repeats this run,", f"# from the folder {pathlib.Path.cwd()}."]
    for flag in program.flags_in_order():
        given = flags[flag.name]
        if (given.present or flag.name == "seed") and given.value is not None and flag.name not in _OF_THE_CALL:
            line = _as_argument(given)
            readable = line == line.strip() == readable_name(line) and len(line.splitlines()) == 1  # by absl
            lines.append(line if readable else f"# --{flag.name} has characters that a file of flags cannot hold")
    write_text(folder / "flags.txt", "\n".join(readable_name(line) for line in lines) + "\n")


def _as_argument(flag: Any) -> str:
    """A flag with its value as --flagfile reads it."""
    value = flag.value
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}{flag.name}"
    return f"--{flag.name}={CsvListSerializer(',').serialize(value) if isinstance(value, list) else value}"


def kept_training(flags: Any, folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file in which a training keeps its epochs; what an earlier run kept there goes unless `--resume`."""
    state = folder / "state" / f"{name}.npz"
    if not flags.resume:
        state.unlink(missing_ok=True)
    return state


def announce_strategy(flags: Any, strategy: Any) -> None:
    """Says how many replicas train, where there are several."""
    if strategy is not None:
        from dcp_tf import progress

        progress.say(f"{flags.strategy}: {strategy.num_replicas_in_sync} replicas share each batch")
