"""What all tests share: a process that spends its time on what is tested, and folders made once for all workers."""

import fcntl
import gc
import os
import pathlib
import shutil
import sys

import pytest

# Folders of many short tests: their files come last, so that all workers end together.
LAST = ("models", "experiments", "graph", "settings", "evaluation", "data")

gc.disable()  # while TensorFlow and the tests are imported
for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # a worker per core; threads that wait for each other cost a tenth


def pytest_collection_modifyitems(items):
    """Orders the files; within a file, tests stay as they are."""
    root = pathlib.Path(__file__).parent
    folders = {item.path: item.path.relative_to(root).parts[0] for item in items}
    items.sort(key=lambda item: LAST.index(folders[item.path]) if folders[item.path] in LAST else -1)


def pytest_collection_finish():
    """Each full collection would walk over a million objects of TensorFlow's: a quarter of the time of all tests.

    The optimizer of its graphs takes a seventh: no graph here runs often enough. Programs that are started have it.
    """
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
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
