"""Names become text that every file and terminal takes; what cannot be written is refused before anything is done."""

import os

import pytest

from dcp_tf import files
from dcp_tf.errors import UsageError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"cats", "cats"),
        ("Käfer 猫".encode(), "Käfer 猫"),
        (b"b\xe4ren", r"b\xe4ren"),
        (b"\xff\xfe", r"\xff\xfe"),
    ],
)
def test_names_become_text_that_can_be_encoded(name, text):
    assert files.readable_name(os.fsdecode(name)) == text
    assert files.readable_name(files.readable_name(os.fsdecode(name))) == text  # escaped once
    text.encode("utf-8")


def test_half_a_surrogate_pair_is_escaped_too():
    assert files.readable_name("\ud83d") == r"\ud83d"


def test_a_text_file_takes_any_text(tmp_path):
    path = files.write_text(tmp_path / "page.html", "b\udce4ren")
    assert path.read_text(encoding="utf-8") == r"b\udce4ren"


def test_an_output_folder_that_tensorflow_cannot_write_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"b\\xe4ren"):
        files.writable_folder(os.path.join(tmp_path, os.fsdecode(b"b\xe4ren")))
    assert os.listdir(tmp_path) == []
    files.writable_folder(tmp_path / "Käfer 猫")
