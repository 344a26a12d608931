"""From arguments to a command, and from how it ends to an exit code."""

import operator
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from importlib.metadata import version
from typing import Annotated, Any

import tyro

from jaxopt_study.cli._options import (
    Ablate,
    Compare,
    Curvature,
    Explain,
    NetworkOptions,
    Optimizers,
    Problems,
    Search,
)

COMMANDS = (Compare, Search, Ablate, Curvature, Optimizers, Problems, Explain)
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
        sys.stdout.write(f"jaxopt-study {version('jaxopt_study')}\n")
        return 0
    options: Any = tyro.cli(_commands(asked), args=asked, prog="jaxopt-study", description=DESCRIPTION)
    return _run(options, all_cores=argv is None and isinstance(options, NetworkOptions))


def _run(options: Any, *, all_cores: bool) -> int:
    """Import what a command needs, and run it.

    The imports stand here, and nowhere else in the command line, because JAX, Matplotlib and pandas take seconds: the
    help and mistakes in the arguments do not wait for them.

    Args:
        options: What was asked for.
        all_cores: Whether runs may be spread over all cores.

    Returns:
        The exit code.
    """
    from jaxopt_study.cli._runner import run_command

    command: Callable[..., int]
    match options:
        case Compare():
            from jaxopt_study.cli._compare import compare as command
        case Search():
            from jaxopt_study.cli._search import search as command
        case Ablate():
            from jaxopt_study.cli._ablate import ablate as command
        case Curvature():
            from jaxopt_study.cli._curvature import diagnose as command
        case Optimizers():
            from jaxopt_study.cli._listings import list_optimizers as command
        case Problems():
            from jaxopt_study.cli._listings import list_problems as command
        case _:
            from jaxopt_study.cli._listings import explain as command
    if all_cores:
        from jaxopt_study.cli._network import use_all_cores

        use_all_cores()
    return run_command(type(options).__name__.lower(), command, options)


def _commands(asked: Sequence[str]) -> Any:
    """Return the subcommands: in the list of all with a sentence each, in the help of one with its whole text."""
    commands: list[Any] = list(COMMANDS)
    if set(asked) <= {"-h", "--help"}:
        commands = [Annotated[one, tyro.conf.subcommand(description=_first_sentence(one.__doc__))] for one in commands]
    return reduce(operator.or_, commands)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0]
