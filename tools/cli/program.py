"""What all programs share: flags without TensorFlow, quiet start-up, one clear line for an error, exit codes."""

import copy
import errno
import math
import os
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError, first_line
from dcp_tf.tools.cli import help_text
from dcp_tf.tools.cli.typed_command import as_typed

OK, FAILED, BAD_USAGE, STOPPED = 0, 1, 2, 130
# Errors of paths that the user can give otherwise.
_OF_PATHS = (errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EPERM, errno.EROFS)


FLAG_OF: dict[str, str] = {}  # what the flags of settings are called that have other names in Python


class Program:
    """One program: its flags and its main function.

    Args:
        name: as in `dcp-tf NAME`.
        about: what `--help` prints above the flags; commands as `dcp-tf NAME` are shown as the user types them.
        defaults: of flags that are made of settings, where this program has others than those.
    """

    def __init__(self, name: str, about: str, defaults: Mapping[str, Any] = types.MappingProxyType({})):
        self.name = name
        self.about = about
        self.defaults = dict(defaults)
        self.flags = absl_flags.FlagValues()
        self.sections: list[tuple[str, list[str]]] = [("Flags", [])]
        self.boolean("debug", False, "Print the traceback of an error.")
        self.boolean("help", False, "Print the flags that are used most.")
        self.boolean("helpfull", False, "Print all flags.")
        # absl reads it before all others, and puts what the file holds in its place.
        self.path(
            "flagfile",
            None,
            "A file with flags, one a line, such as the flags.txt of a run; flags behind it on the command line "
            "override it.",
        )

    def section(self, title: str) -> None:
        """Starts a part of the help text; the flags defined from here on belong to it."""
        self.sections.append((title, []))

    def string(self, name: str, default: str | None, about: str) -> None:
        """Defines a flag that takes a text."""
        self._define(absl_flags.DEFINE_string, name, default, about)

    def path(self, name: str, default: str | None, about: str) -> None:
        """Defines a flag that takes a path, alone or behind a word as in npz:FILE; ~ is the user's folder."""
        self._define(absl_flags.DEFINE, _PathParser(), name, default, about)

    def paths(self, name: str, default: Sequence[str], about: str) -> None:
        """Defines a flag that takes paths with commas between them."""
        serializer = absl_flags.CsvListSerializer(",")
        self._define(absl_flags.DEFINE, _PathsParser(), name, [*default], about, serializer=serializer)

    def list(self, name: str, default: Sequence[str], about: str) -> None:
        """Defines a flag that takes texts with commas between them."""
        self._define(absl_flags.DEFINE_list, name, list(default), about)

    def integer(self, name: str, default: int, about: str, lower: int = 0, upper: int | None = None) -> None:
        """Defines a flag that takes a whole number."""
        self._define(absl_flags.DEFINE_integer, name, default, about, lower_bound=lower, upper_bound=upper)

    def share(self, name: str, default: float | None, about: str) -> None:
        """Defines a flag that takes a share, as 0.3 or as 30%."""
        self._define(absl_flags.DEFINE, _ShareParser(lower_bound=0.0), name, default, about)
        absl_flags.register_validator(name, _finite, "is no finite number", flag_values=self.flags)

    def float(self, name: str, default: float | None, about: str) -> None:
        """Defines a flag that takes a number of 0 or more."""
        self._define(absl_flags.DEFINE_float, name, default, about, lower_bound=0.0)
        absl_flags.register_validator(name, _finite, "is no finite number", flag_values=self.flags)

    def boolean(self, name: str, default: bool, about: str) -> None:
        """Defines a switch: `--name` or `--noname`."""
        self._define(absl_flags.DEFINE_boolean, name, default, about)

    def switch(self, name: str, values: Sequence[str], about: str) -> None:
        """Defines a switch that may name what it switches on: `--name` is `--name=` and the first of some words."""
        self._define(absl_flags.DEFINE, _SwitchParser(values), name, "", about, boolean=True)

    def enum(self, name: str, default: str | None, values: Sequence[str], about: str) -> None:
        """Defines a flag that takes one of some words."""
        self._define(absl_flags.DEFINE_enum, name, default, list(values), about)

    def flags_in_order(self) -> Sequence[absl_flags.Flag]:
        """All flags, section by section, those that every program has at the end."""
        everywhere, *sections = (names for _, names in self.sections)
        return [self.flags[name] for names in (*sections, everywhere) for name in names]

    def enum_by_name(self, name: str, default: str | None, values: Sequence[str], about: str) -> None:
        """Defines a flag that takes one of some words, or one for each of several names: NAME=WORD,NAME=WORD."""
        parser = _ByNameParser(values)
        self._define(absl_flags.DEFINE, parser, name, default, about)

    def help(self) -> str:
        """The text of `--helpfull`."""
        return help_text.full(self)

    def _define(self, make: Callable, *arguments: Any, **more: Any) -> None:
        name = make(*arguments, flag_values=self.flags, **more).name
        FLAG_OF.setdefault(name, name)
        self.sections[-1][1].append(name)

    def run(
        self,
        main: Callable[..., int | None],
        argv: Sequence[str] | None = None,
        first: Callable[[absl_flags.FlagValues], Any] | None = None,
    ) -> int:
        """Parses the command line and runs `main`.

        Args:
            main: gets the parsed flags; returns an exit code (None is 0).
            argv: the arguments after the program's name; the process' own by default.
            first: called with the flags before TensorFlow's first operation; `main` gets what it returns, too.

        Returns:
            0, 1 (the run failed), 2 (bad usage) or 130 (stopped by the user).
        """
        values = copy.deepcopy(self.flags)
        if hasattr(sys.stdout, "reconfigure"):  # a terminal or log that cannot show a character gets its escape
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            rest = values([self.name, *(sys.argv[1:] if argv is None else argv)])[1:]
        except absl_flags.Error as error:
            unopened = re.fullmatch(r"ERROR:: Unable to open flagfile: \[Errno \d+\] (.+): '(.+)'", str(error))
            text = f"--flagfile={unopened[2]}: {unopened[1]}" if unopened else error
            return self._fail(f"{text}; see --help", BAD_USAGE)
        except UnicodeDecodeError:
            return self._fail("the file of --flagfile holds no text", BAD_USAGE)
        if rest:
            return self._fail(f"unexpected argument {rest[0]!r}: flags start with --; see --help", BAD_USAGE)
        asked = values.help or values.helpfull
        return self._guarded(*((self._help, None) if asked else (main, first)), values)

    def _guarded(self, main: Callable, first: Callable | None, values: absl_flags.FlagValues) -> int:
        try:
            prepared = ()
            if main != self._help:
                prepared = quiet_start(None if first is None else lambda: (first(values),)) or ()
            with progress.naming(_as_flags), progress.signs_of_life():
                code = main(values, *prepared) or OK
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Whoever read our output (such as `head`) has seen enough; Python would complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        except KeyboardInterrupt:
            resumable = " (run again with --resume to go on)" if "resume" in values else ""
            return self._fail(f"stopped{resumable}", STOPPED)
        except Exception as error:
            if values.debug:
                raise
            return self._fail(*explain(error))

    def _help(self, values: absl_flags.FlagValues) -> None:
        print(help_text.full(self) if values.helpfull else help_text.short(self))

    def _fail(self, line: str, code: int) -> int:
        print(f"{self.name}: {as_typed(' '.join(line.split()))}", file=sys.stderr)
        return code


def expand_user(text: str) -> str:
    """Replaces a ~ at the start of a path, which no shell does behind `=` or `npz:`."""
    match = re.fullmatch(r"(\w+:)?(~.*)", text, re.DOTALL)
    return text if match is None else (match[1] or "") + os.path.expanduser(match[2])


def read_share(text: Any) -> Any:
    """A share given in percent as a number; what is no percentage stays as it is."""
    match = re.fullmatch(r"\s*([\d.]+)\s*%\s*", text) if isinstance(text, str) else None
    return text if match is None else repr(round(float(match[1]) / 100, 15))


class _ShareParser(absl_flags.FloatParser):
    def parse(self, argument: Any) -> float:
        return super().parse(read_share(argument))

    def flag_type(self) -> str:
        return "share"


class _PathParser(absl_flags.ArgumentParser):
    def parse(self, argument: str) -> str:
        return expand_user(argument)

    def flag_type(self) -> str:
        return "path"


class _SwitchParser(absl_flags.ArgumentParser):
    def __init__(self, values: Sequence[str]):
        super().__init__()
        self._values = {"true": values[0], "false": "", "": "", **{value: value for value in values}}

    def parse(self, argument: str) -> str:
        if argument not in self._values:
            words = [word for word in self._values.values() if word]
            raise ValueError(f"value should be one of <{'|'.join(dict.fromkeys(words))}>")
        return self._values[argument]

    def flag_type(self) -> str:
        return "word"


class _ByNameParser(absl_flags.ArgumentParser):
    def __init__(self, values: Sequence[str]):
        super().__init__()
        self.enum_values = tuple(values)

    def parse(self, argument: str) -> str:
        words = [entry.rpartition("=") for entry in argument.split(",")]
        is_by_name = all(name and word in self.enum_values for name, _, word in words)
        if argument not in self.enum_values and not is_by_name:
            raise ValueError(f"value should be one of <{'|'.join(self.enum_values)}>, or NAME=VALUE for several inputs")
        return argument

    def flag_type(self) -> str:
        return "word"


class _PathsParser(absl_flags.ListParser):
    def parse(self, argument: Any) -> list[str]:
        return [expand_user(path) for path in super().parse(argument)]


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def name_flags(text: str, settings: Sequence[str], names: Mapping[str, str] = types.MappingProxyType({})) -> str:
    """A line of the library with flags in place of the settings that it names.

    Args:
        text: has settings as NAME=VALUE, or else alone.
        settings: their names in Python. One that the text does not have is added as a flag in parentheses.
        names: setting -> flag, in place of `FLAG_OF`. What is in neither stays as it is.
    """
    for setting in settings:
        flag = names.get(setting, FLAG_OF.get(setting))
        name = rf"(?<![\w.-]){re.escape(setting)}"
        if flag is None:
            continue
        if re.search(f"{name}=", text):
            text = re.sub(
                f"{name}=(True\\b|'\\w+'|\\([^()]+\\))?", lambda match, flag=flag: _assigned(flag, match[1]), text
            )
        elif re.search(rf"{name}(?![\w.])", text):
            text = re.sub(rf"{name}(?![\w.])", f"--{flag}", text)
        else:
            text = f"{text} (--{flag})"
    return re.sub(r"(--\w+) and \1\b", r"\1", text)  # trainings share flags


def _as_flags(text: str, settings: Sequence[str]) -> str:
    return as_typed(name_flags(text, settings))


def _assigned(flag: str, value: str | None) -> str:
    """`--flag=VALUE` for a value that Python writes otherwise; `--flag=` where the value may stay."""
    plain = re.sub(r"[() ]", "", value or "").strip(",'")
    return f"--{flag}" if value == "True" else f"--{flag}={plain}"


def explain(error: Exception) -> tuple[str, int]:
    """One line for the user and the exit code of an error."""
    if isinstance(error, UsageError | RunError):
        return name_flags(str(error), error.settings), BAD_USAGE if isinstance(error, UsageError) else FAILED
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename}); free some space and run again", FAILED
    if isinstance(error, OSError) and error.filename is not None and error.errno in _OF_PATHS:
        return f"{error.filename}: {error.strerror}", BAD_USAGE
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "out of memory; lower --batch_size, --selection_samples or --cache_gib", FAILED
    if type(error).__module__.startswith("tensorflow.") and (reading := _of_reading(str(error))):
        return f"the data set cannot be read to its end: {reading.group(1) or first_line(error)}", FAILED
    return f"internal error: {type(error).__name__}: {error} (--debug shows where)"[:600], FAILED


def _of_reading(text: str) -> re.Match | None:
    """Whether TensorFlow failed on the user's data, which large sets show only while they are read.

    What our own decoders said (group 1) lies in the middle of TensorFlow's message.
    """
    return re.search(r"UsageError: (.+)|(?:Decode\w*|ExtractJpegShape|ParseExample\w*)(?=[\]}])|corrupted record", text)


def quiet_start(first: Callable[[], Any] | None = None) -> Any:
    """Imports TensorFlow without its start-up messages reaching the user.

    Args:
        first: called before TensorFlow's first operation.

    Returns:
        What `first` returns.
    """
    if "tensorflow" in sys.modules:
        return None if first is None else first()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dcp_tf.tflite.output_capture import OutputCapture

    capture = OutputCapture()
    try:
        with capture:
            import keras
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            prepared = None if first is None else first()
            tf.constant(0.0) + 1.0  # the first operation makes the device, which has messages of its own
            keras.backend.clear_session()
    except ImportError as error:
        raise RunError(f"TensorFlow cannot be imported: {error}; {capture.tail()}") from error
    return prepared
