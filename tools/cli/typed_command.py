"""How the user called a program, so that printed commands can be typed again as they stand."""

import pathlib
import re
import sys

ALIASES = {"inspect": "inspect_model"}  # of `dcp-tf`: shorter names of programs
_SHORT = {program: alias for alias, program in ALIASES.items()}


def typed(program: str) -> str:
    """What runs a program, in the form that this process was called: `dcp-tf prune`, `python -m dcp_tf.tools.prune`."""
    short = _SHORT.get(program, program)
    script = pathlib.Path(sys.argv[0] if sys.argv else "")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    package, _, module = (spec.name if spec else "").rpartition(".")
    if package in ("dcp_tf", "dcp_tf.tools"):
        return f"python -m {package}.{program}" if module != "__main__" else f"python -m {package} {short}"
    if script.parent.name == "tools" and script.suffix == ".py":
        return f"python {script.with_name(program)}.py"
    if script.name == "dcp-quickstart" and program == "quickstart":
        return script.name
    return f"dcp-tf {short}"


def as_typed(text: str) -> str:
    """A text in which commands as `dcp-tf prune`, and the bare word inspect_model, stand as the user types them."""
    return re.sub(r"\bdcp-tf (\w+)|(?<![\w./])(inspect_model)\b", lambda m: typed(_program(m[1] or m[2])), text)


def _program(name: str) -> str:
    return ALIASES.get(name, name)
