"""A step that fails costs what it makes, not the rest of the run."""

import contextlib
from collections.abc import Iterator

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tools.cli.program import explain


@contextlib.contextmanager
def collect(failures: list[str], what: str, debug: bool = False) -> Iterator[None]:
    """Goes on behind the block where something in it fails.

    Args:
        failures: gets a line that names `what` then; programs that collected some end with exit code 1.
        what: that is made in the block, such as the name of a file.
        debug: whether an error that is nobody's known one ends the run, for its traceback.
    """
    try:
        yield
    except Exception as error:
        if debug and not isinstance(error, RunError | UsageError):
            raise
        failures.append(f"{what}: {explain(error)[0]}")
