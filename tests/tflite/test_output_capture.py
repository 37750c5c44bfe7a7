import logging
import os
import subprocess
import sys
import warnings

import pytest

from dcp_tf.tflite.output_capture import OutputCapture


def speak():
    os.write(1, b"from C, out\n")
    os.write(2, b"from C, err\n")
    print("from Python")
    print("to the error stream", file=sys.stderr)
    warnings.warn("a warning", stacklevel=1)


def test_everything_is_kept_for_the_error_message_and_nothing_is_seen(capfd):
    with OutputCapture() as silence:
        speak()
    assert capfd.readouterr() == ("", "")
    said = silence.tail()
    assert "from C, out" in said
    assert "to the error stream" in said
    assert "\n" not in said


def test_output_comes_back_after_the_end_and_after_an_error(capfd):
    print("before")
    with pytest.raises(KeyError), OutputCapture():
        raise KeyError
    os.write(1, b"after\n")
    print("last", file=sys.stderr)
    assert capfd.readouterr() == ("before\nafter\n", "last\n")


def test_our_own_progress_is_seen_while_it_is_lifted(capfd):
    with OutputCapture() as silence:
        os.write(2, b"hidden\n")
        with silence.lifted():
            os.write(2, b"seen\n")
        with OutputCapture():
            os.write(2, b"hidden too\n")
        os.write(2, b"hidden as well\n")
    assert capfd.readouterr() == ("", "seen\n")


def test_logging_works_after_something_inside_used_it_first(capfd, monkeypatch):
    own = logging.NullHandler()
    for before in ([], [own]):
        monkeypatch.setattr(logging.root, "handlers", list(before))
        with OutputCapture():
            logging.warning("installs a handler where there is none")
            logging.root.addHandler(logging.StreamHandler())
        assert logging.root.handlers == before
    logging.root.handlers.clear()
    logging.warning("heard")
    assert capfd.readouterr().err == "WARNING:root:heard\n"


def test_no_descriptor_is_leaked():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with OutputCapture():
            speak()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_standard_output_is_no_trouble():
    code = """
import os
os.close(1)
from dcp_tf.tflite.output_capture import OutputCapture
with OutputCapture():
    os.write(2, b"hidden")
os.write(2, b"seen")
"""
    import dcp_tf

    root = os.path.dirname(os.path.dirname(dcp_tf.__file__))
    result = subprocess.run([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, check=True)
    assert result.stderr == b"seen"
