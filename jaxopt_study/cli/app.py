"""From arguments to a command, and from how it ends to an exit code."""

import operator
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
from jaxopt_study.records import RecordError

UNUSABLE = 2  # also the parser's code, for arguments that cannot be understood
DESCRIPTION = """Compose optimizers from textbook atoms, train them in one compiled program, and see why they differ.

`jaxopt-study COMMAND --help` says more of each, `jaxopt-study --version` which version this is.

Exit codes: 0 done; 1 an optimizer, an audit or a stage failed, and the rest is done; 2 the arguments cannot be
understood, or what they ask for cannot be done (the message says what to do); 130 interrupted by Ctrl-C, or 143 by
SIGTERM, with what had finished kept: put the same command with --out and --resume into the queue again. A second signal
ends it at once."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None takes those of the process, and lets the command use all cores.

    Returns:
        0 if all is done, 1 if part of it failed, 2 if something asked for cannot be done, 130 if the command noticed
        an interrupt itself.

    Raises:
        SystemExit: With code 2 for arguments that cannot be understood, and 0 after `--help`.
    """
    asked = sys.argv[1:] if argv is None else list(argv)
    if asked == ["--version"]:
        Console().print(f"jaxopt-study {version('jaxopt_study')}", highlight=False)
        return 0
    command: Any = tyro.cli(_commands(asked), args=asked, prog="jaxopt-study", description=DESCRIPTION)
    if argv is None and isinstance(command, Compare | Search | Ablate):
        use_all_cores()
    try:
        return command.run(Console())
    except (UserError, RecordError) as error:
        errors = Console(stderr=True)
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return UNUSABLE


def _commands(asked: Sequence[str]) -> Any:
    """Return the subcommands: in the list of all with a sentence each, in the help of one with its whole text."""
    commands: list[Any] = [Compare, Search, Ablate, Curvature, Optimizers, Problems, Explain]
    if set(asked) <= {"-h", "--help"}:
        commands = [Annotated[one, tyro.conf.subcommand(description=_first_sentence(one.__doc__))] for one in commands]
    return reduce(operator.or_, commands)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0]
