"""A process that answers each line of JSON with one line of JSON."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.errors import RunError


class LineProcess(contextlib.AbstractContextManager):
    """Starts a process that loads files under names; it ends with the block.

    Args:
        what: of an error: "the process measuring".
        command: the command.
        env: its environment variables.
        cwd: its folder; None: this process' own.

    Raises:
        RunError: (any method) the process died.
    """

    def __init__(self, what: str, command: Sequence[str], env: Mapping[str, str], cwd: str | os.PathLike | None = None):
        self._what = what
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, cwd=cwd, env=dict(env)
        )

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def unload(self, name: str) -> None:
        """Unloads a file."""
        self._ask(name, {"unload": name})

    def errors(self) -> str:
        """What the process has written to standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode("utf-8", errors="replace")  # they share the position

    def _ask(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # a dead process sends no answer, which is handled below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            last_line = self.errors().strip().splitlines()[-1:]
            raise RunError(
                f"{self._what} {name!r} died (exit code {self._process.wait()})"
                + (f": {last_line[0]}" if last_line else "")
            )
        return json.loads(line)
