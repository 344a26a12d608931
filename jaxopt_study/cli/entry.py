"""The entry point: it answers signals from before the first import that takes seconds."""

import os
import sys
from collections.abc import Sequence

from jaxopt_study.cli.signals import termination

INTERRUPTED, TERMINATED = 130, 143  # what a shell reports of a process that SIGINT or SIGTERM ended, 128 + its number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None takes those of the process, and after an interrupt ends it at once.

    Returns:
        0 if all is done, 1 if part of it failed, 2 if something asked for cannot be done, 130 if interrupted, and 143
        if that was by SIGTERM.

    Raises:
        SystemExit: With code 2 for arguments that cannot be understood, and 0 after `--help`.

    Example:
        >>> main(["explain", "sgd(0.1)", "momentum(0.1, decay=0.0)"])
        first:  ...sgd(0.1)
        second: ...momentum(0.1, decay=0.0)
        The same updates in 100 steps. ...
        0
    """
    with termination() as terminated:
        try:
            from jaxopt_study.cli.app import run  # JAX, Matplotlib and more: a signal may come meanwhile

            code = run(argv)
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted.\n")
            code = INTERRUPTED
    if code == INTERRUPTED and terminated():
        code = TERMINATED
    if code in {INTERRUPTED, TERMINATED} and argv is None:
        # XLA may still be computing what was abandoned, and Python's teardown underneath it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
