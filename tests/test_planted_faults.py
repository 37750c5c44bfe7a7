"""The tests catch faults of every kind: those that `planted_faults.py` plants in a copy of the checkout."""

import subprocess
import sys

import planted_faults
import pytest


@pytest.mark.parametrize("fault", planted_faults.FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_planted_and_its_tests_are_there(fault):
    """Where code or a test was renamed, the fault's text or the test's name has to follow."""
    assert planted_faults.find(fault).is_file()
    assert planted_faults.ids_of_tests(fault)
    assert fault.text != fault.fault


@pytest.mark.slow
def test_every_fault_is_caught():
    done = subprocess.run([sys.executable, planted_faults.__file__], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
