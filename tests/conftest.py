"""What all tests share: a garbage collector that leaves TensorFlow alone, and folders made once for all workers."""

import fcntl
import gc
import os
import shutil

import pytest

gc.disable()  # while TensorFlow and the tests are imported


def pytest_collection_finish():
    """Each full collection would walk over a million objects of TensorFlow's: a quarter of the time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)
    gc.enable()


def pytest_runtest_setup(item):
    """Random weights are the same whatever test ran before, in fixtures too."""
    import keras  # here: the first test pays for it, not those who only list the tests

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def no_full_collections(monkeypatch):
    """Runs free memory several times, which models of this size do not need: a tenth of their time."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`made_once(name, make)` is a folder that all workers share: the first that asks fills it by `make(folder)`."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder_of(name, make):
        folder = shared / name
        with open(shared / f"{name}.made", "a+") as made:
            fcntl.flock(made, fcntl.LOCK_EX)
            made.seek(0)
            if not made.read():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                made.write("yes")
        return folder

    return folder_of
