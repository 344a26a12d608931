"""Entry point of the command line, which handles signals before it imports JAX."""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from jaxopt_study.cli._signals import termination

FAILED = 1
INTERRUPTED, TERMINATED = 130, 143  # 128 + the number of the signal, as shells report it
NOT_WRITTEN = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EPIPE}  # no space left, or a closed pipe


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; None takes those of the process, and after an interrupt ends it at once.

    Returns:
        The exit code: 0 for success, 1 if a part failed, 2 if an option cannot be used, 130 after an interrupt, and 143
        after SIGTERM.

    Raises:
        SystemExit: With code 2 for arguments that cannot be parsed, and 0 after `--help`.

    Example:
        >>> main(["explain", "sgd(0.1)", "momentum(0.1, decay=0.0)"])
        first:  ...sgd(0.1)
        second: ...momentum(0.1, decay=0.0)
        The updates agree in all 100 steps. ...
        0
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 — it stays open as long as the process
    with termination() as terminated:
        try:
            from jaxopt_study.cli._app import run  # takes time, in which a signal may come

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
        # XLA may still be computing in the background, and would crash during Python's shutdown.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _unwritten(error: OSError) -> int:
    """Report a failed write; a closed pipe needs no report.

    Args:
        error: The error of the write.

    Returns:
        The exit code.
    """
    try:
        sys.stdout.flush()
    except OSError:  # discards its buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return FAILED
    with suppress(OSError):  # both may go to the same full disk
        sys.stderr.write(
            f"Error: {error.filename or 'The output'} could not be written: {error.strerror}. Free disk space, and run "
            "the command again, with --resume if it has that option: finished results are kept.\n"
        )
    return FAILED
