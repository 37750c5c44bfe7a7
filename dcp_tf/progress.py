"""What a user sees of long work: one bar per phase on a terminal, plain lines in a log."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def bar(
    iterable: Iterable | None = None, *, what: str, total: int | None = None, unit: str = "it", initial: int = 0
) -> tqdm:
    """A progress bar on standard error; silent where standard error is no terminal."""
    return tqdm(
        iterable, desc=what, total=total, unit=unit, initial=initial, leave=False, dynamic_ncols=True, disable=None
    )


def say(line: str) -> None:
    """Prints one line to standard error without tearing a bar that is being drawn."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
