"""Which package sources the setup reads; what it fetches is tested by what runs in it."""

import pytest

from dcp_tf.tflite.arm.setup import _link_merged, _sources

UBUNTU = {"ID": "ubuntu", "VERSION_ID": "24.04", "VERSION_CODENAME": "noble"}


@pytest.mark.parametrize(
    ("system", "architecture", "server", "suites"),
    [
        (UBUNTU, "arm64", "ports.ubuntu.com/ubuntu-ports", "noble noble-updates noble-security"),
        (UBUNTU | {"VERSION_ID": "26.04"}, "amd64", "archive.ubuntu.com/ubuntu", "noble"),
        ({"ID": "debian", "VERSION_ID": "13"}, "amd64", "deb.debian.org/debian", "bookworm"),
        ({"ID": "debian"}, "amd64", "deb.debian.org/debian", "bookworm"),  # testing has no version
    ],
)
def test_sources_of_their_own(system, architecture, server, suites, tmp_path):
    options = _sources(system, architecture, tmp_path)
    (written,) = options["Dir::Etc::sourceparts"].glob("*.sources")
    fields = dict(line.split(": ", 1) for line in written.read_text().splitlines())
    assert (fields["URIs"], fields["Suites"]) == (f"http://{server}", suites)
    assert fields["Signed-By"] == f"/usr/share/keyrings/{system['ID']}-archive-keyring.gpg"


@pytest.mark.parametrize(
    ("system", "architecture"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, "amd64"),
        ({"ID": "debian", "VERSION_ID": "13"}, "arm64"),
        (UBUNTU, "amd64"),
        ({"ID": "linuxmint", "VERSION_ID": "22"}, "amd64"),
    ],
)
def test_the_system_s_own_sources(system, architecture, tmp_path):
    assert _sources(system, architecture, tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_folders_that_moved_to_usr_are_linked(tmp_path):
    for name in ("usr/lib/aarch64-linux-gnu", "usr/bin", "bin"):
        (tmp_path / name).mkdir(parents=True)
    _link_merged(tmp_path)
    assert (tmp_path / "lib").readlink().as_posix() == "usr/lib"
    assert (tmp_path / "lib/aarch64-linux-gnu").is_dir()
    assert not (tmp_path / "bin").is_symlink()
    assert not (tmp_path / "lib64").exists()
