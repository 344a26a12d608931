"""The entry point: it answers signals from before the first import that takes seconds."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from jaxopt_study.cli._signals import termination

FAILED = 1
INTERRUPTED, TERMINATED = 130, 143  # what a shell reports of a process that SIGINT or SIGTERM ended, 128 + its number
NOT_WRITTEN = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EPIPE}  # no room, or nobody who reads


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
        The updates agree in all 100 steps. ...
        0
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 — it stays open as long as the process
    with termination() as terminated:
        try:
            from jaxopt_study.cli._app import run  # a signal may come meanwhile

            code = run(argv)
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted.\n")
            code = INTERRUPTED
        except OSError as error:
            if error.errno not in NOT_WRITTEN:
                raise
            code = _unwritten(error)
    if code == INTERRUPTED and terminated():
        code = TERMINATED
    if code in {INTERRUPTED, TERMINATED} and argv is None:
        # XLA may still be computing what was abandoned, and Python's teardown underneath it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _unwritten(error: OSError) -> int:
    """Say what could not be written, unless nobody reads it.

    Args:
        error: What a write raised.

    Returns:
        The exit code.
    """
    try:
        sys.stdout.flush()
    except OSError:  # what is still in its buffer can go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return FAILED
    with suppress(OSError):  # both may go to the same full disk
        sys.stderr.write(
            f"Error: {error.filename or 'What is printed'} could not be written: {error.strerror}. Make room and run "
            "it again, with --resume where the command has it: what had finished is kept.\n"
        )
    return FAILED
