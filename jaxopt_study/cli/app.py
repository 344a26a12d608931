"""From arguments to an exit code."""

import operator
import os
import sys
from collections.abc import Sequence
from functools import reduce
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from rich.console import Console

from jaxopt_study.cli.ablate import Ablate
from jaxopt_study.cli.compare import Compare
from jaxopt_study.cli.curvature import Curvature
from jaxopt_study.cli.expressions import UserError
from jaxopt_study.cli.listings import Explain, Optimizers, Problems
from jaxopt_study.cli.network import use_all_cores
from jaxopt_study.cli.search import Search
from jaxopt_study.cli.signals import termination

# 2 is also the parser's, for arguments that cannot be understood; the others are what a shell reports of a process that
# SIGINT or SIGTERM ended, 128 + its number.
UNUSABLE, INTERRUPTED, TERMINATED = 2, 130, 143
DESCRIPTION = """Compose optimizers from textbook atoms, train them in one compiled program, and see why they differ.

`jaxopt-study COMMAND --help` says more of each, `jaxopt-study --version` which version this is.

Exit codes: 0 done; 1 an optimizer, an audit or a stage failed, and the rest is done; 2 the arguments cannot be
understood, or what they ask for cannot be done (the message says what to do); 130 interrupted by Ctrl-C, or 143 by
SIGTERM, with what had finished kept: put the same command with --out and --resume into the queue again. A second signal
ends it at once."""


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
    asked = sys.argv[1:] if argv is None else list(argv)
    if asked == ["--version"]:
        Console().print(f"jaxopt-study {version('jaxopt_study')}", highlight=False)
        return 0
    command: Any = tyro.cli(_commands(asked), args=asked, prog="jaxopt-study", description=DESCRIPTION)
    errors = Console(stderr=True)
    if argv is None and isinstance(command, Compare | Search | Ablate):
        use_all_cores()
    with termination() as terminated:
        try:
            code = command.run(Console())
        except UserError as error:
            errors.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            return UNUSABLE
        except KeyboardInterrupt:
            errors.print("Interrupted.")
            code = INTERRUPTED
    if code == INTERRUPTED and terminated():
        code = TERMINATED
    if code in {INTERRUPTED, TERMINATED} and argv is None:
        # XLA may still be computing what was abandoned, and Python's teardown underneath it would crash.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _commands(asked: Sequence[str]) -> Any:
    """Return the subcommands: in the list of all with a sentence each, in the help of one with its whole text."""
    commands: list[Any] = [Compare, Search, Ablate, Curvature, Optimizers, Problems, Explain]
    if set(asked) <= {"-h", "--help"}:
        commands = [Annotated[one, tyro.conf.subcommand(description=_first_sentence(one.__doc__))] for one in commands]
    return reduce(operator.or_, commands)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0]
