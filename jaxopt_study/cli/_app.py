"""Argument parser: parses the arguments, runs the command, and returns its exit code."""

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

`jaxopt-study COMMAND --help` describes a command; `jaxopt-study --version` prints the version.

Exit codes: 0 success; 1 an optimizer, an audit or a stage failed, and everything else is done; 2 invalid arguments,
whose remedy the message gives; 130 interrupted by Ctrl-C, or 143 by SIGTERM. After an interrupt finished runs are kept:
submit the same command again with --out and --resume. A second signal ends the command at once.

Compiled programs are kept, up to 1 GiB, in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR if that is set;
JAX_ENABLE_COMPILATION_CACHE=false keeps none."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; None takes those of the process, lets the command use all cores, and keeps its programs.

    Returns:
        The exit code: 0 for success, 1 if a part failed, 2 if an option cannot be used, 130 after an interrupt.

    Raises:
        SystemExit: With code 2 for arguments that cannot be parsed, and 0 after `--help`.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        sys.stdout.write(f"jaxopt-study {version('jaxopt_study')}\n")
        return 0
    options: Any = tyro.cli(_commands(arguments), args=arguments, prog="jaxopt-study", description=DESCRIPTION)
    return _run(options, alone=argv is None)


def _run(options: Any, *, alone: bool) -> int:
    """Import a command, and run it.

    Commands are imported here, and nowhere else, because JAX, Matplotlib and pandas take seconds to import: help and
    error messages about arguments do not wait for them.

    Args:
        options: Options of the command.
        alone: Whether the process is there for this command, whose settings of JAX then hold for all of it.

    Returns:
        The exit code.
    """
    from jaxopt_study.cli._compilation_cache import keep_programs
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
    if alone:
        keep_programs()
    if alone and isinstance(options, NetworkOptions):
        from jaxopt_study.cli._network import use_all_cores

        use_all_cores()
    return run_command(type(options).__name__.lower(), command, options)


def _commands(arguments: Sequence[str]) -> Any:
    """Return the subcommands, with only their first sentences in the help of the whole program."""
    commands: list[Any] = list(COMMANDS)
    if set(arguments) <= {"-h", "--help"}:
        commands = [Annotated[one, tyro.conf.subcommand(description=_first_sentence(one.__doc__))] for one in commands]
    return reduce(operator.or_, commands)


def _first_sentence(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0]
