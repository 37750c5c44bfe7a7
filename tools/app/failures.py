"""Collects the errors of steps, so that a failed step does not stop the run."""

import contextlib
from collections.abc import Iterator

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tools.cli.program import explain


@contextlib.contextmanager
def collect(failures: list[str], what: str, debug: bool = False) -> Iterator[None]:
    """Continues after the block if something in it fails.

    Args:
        failures: gets a line that names `what`; programs with failures end with exit code 1.
        what: the result of the block, such as the name of a file.
        debug: whether an unexpected error stops the run, for its traceback.
    """
    try:
        yield
    except Exception as error:
        if debug and not isinstance(error, RunError | UsageError):
            raise
        failures.append(f"{what}: {explain(error)[0]}")
