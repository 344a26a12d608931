"""Run tests of several copies of the package, each in a fork of a process that has imported everything else.

A script: it reads a list of [root, tests] as JSON and prints a line [status, output] for each. Importing JAX and its
like takes longer than most tests, and a fork before anything is computed has it for nothing. Status is pytest's, or
None where a signal ended the tests, such as the timer that ends a loop without end. It counts processor time: a busy
machine is no mutant that was noticed.
"""

import json
import os
import signal
import sys
import tempfile

# What the package and its tests import from outside, so that it is there before the fork.
import jax
import matplotlib.pyplot
import optax
import pandas
import pytest
import scipy.linalg

OUTSIDE = (jax, matplotlib, optax, pandas, scipy)
SECONDS = 900  # of processor time
# Without the types that other runs check, so that a mutant is found out by a wrong number and not by its annotation.
OPTIONS = ["-q", "-x", "-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider"]


def run(root: str, tests: list[str]) -> tuple[int | None, str]:
    """Return how pytest ended in a fork, and the end of what it printed."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        child = os.fork()
        if child == 0:
            _in_fork(root, tests, output.fileno())
        _, status = os.waitpid(child, 0)
        output.seek(0)
        return (os.WEXITSTATUS(status) if os.WIFEXITED(status) else None), output.read()[-2000:]


def _in_fork(root: str, tests: list[str], output: int) -> None:
    status = 70
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        os.chdir(root)
        sys.path[0] = root  # in place of the folder of this script
        status = int(pytest.main([f"{root}/tests/{test}" for test in tests] + OPTIONS))
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    for root, tests in json.load(sys.stdin):
        sys.stdout.write(json.dumps(run(root, tests)) + "\n")
        sys.stdout.flush()
