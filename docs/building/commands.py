"""The commands with their options, read from the classes and the parser that the programs themselves read."""

import ast
import dataclasses
import html
import inspect
import re
import textwrap
import typing
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from typing import Any, NamedTuple

from experiments.__main__ import parser
from jaxopt_study.cli import COMMANDS, DESCRIPTION, NetworkOptions


class Option(NamedTuple):
    """An option or a positional argument of a command."""

    name: str  # "--seeds INT", or "OPTIMIZER"
    meaning: str
    default: str  # in words; empty if there is nothing to say


class Command(NamedTuple):
    """A command of a program."""

    name: str
    text: str  # paragraphs
    example: str  # empty if the text has none
    options: list[Option]


def of_the_package() -> list[Command]:
    """Return the commands of `jaxopt-study`, without the options that all training commands share."""
    shared = {field.name for field in dataclasses.fields(NetworkOptions)}
    return [_command(one, shared if issubclass(one, NetworkOptions) else set()) for one in COMMANDS]


def shared_options() -> list[Option]:
    """Return the options of every command that trains a network."""
    return _options(NetworkOptions, set())


def of_the_experiments() -> list[Command]:
    """Return the commands of `python -m experiments`."""
    groups = [action for action in parser(["NAME"])._actions if isinstance(action, _SubParsersAction)]
    said = {action.dest: action.help or "" for group in groups for action in group._choices_actions}
    return [
        _from_parser(name, said[name], one) for group in groups for name, one in group.choices.items() if name in said
    ]


def exit_statuses() -> str:
    """Return what the help of `jaxopt-study` says of exit codes and of compiled programs."""
    return "\n\n".join(_markdown(paragraph) for paragraph in DESCRIPTION.split("\n\n")[2:])


def page() -> str:
    """Return the part of the page on the command line that is written from the programs."""
    parts = [exit_statuses(), "", "## jaxopt-study\n"]
    for command in of_the_package():
        parts += _section("jaxopt-study", command)
    parts += ["### Options of compare, search and ablate\n", table(shared_options()), "## python -m experiments\n"]
    parts += ["From a clone of the repository, which holds the experiments and their records.\n"]
    for command in of_the_experiments():
        parts += _section("python -m experiments", command)
    return "\n".join(parts)


def table(options: list[Option]) -> str:
    """Return options as an HTML table."""
    inner = "\n".join(
        f"<tr><td><code>{html.escape(option.name)}</code>{f'<p>{_html(option.default)}</p>' if option.default else ''}"
        f"</td><td>{_html(option.meaning)}</td></tr>"
        for option in options
    )
    return f'<div class="table-wrapper"><table class="sheet options docutils">\n{inner}\n</table></div>\n'


def _section(program: str, command: Command) -> list[str]:
    parts = [f"### {program} {command.name}\n", command.text, ""]
    if command.example:
        parts += [f"```bash\n{command.example}\n```\n"]
    return [*parts, table(command.options)] if command.options else parts


def _command(options: type, without: set[str]) -> Command:
    paragraphs = inspect.cleandoc(options.__doc__ or "").split("\n\n")
    examples = [one.removeprefix("Example: ") for one in paragraphs if one.startswith("Example: ")]
    text = "\n\n".join(_markdown(one) for one in paragraphs if not one.startswith("Example: "))
    return Command(options.__name__.lower(), text, "\n".join(examples), _options(options, without))


def _options(options: type, without: set[str]) -> list[Option]:
    meanings = {name: said for base in reversed(options.__mro__) for name, said in _meanings(base).items()}
    hints = typing.get_type_hints(options, include_extras=True)
    fields = [field for field in dataclasses.fields(options) if field.name not in without]
    return [_option(field, hints[field.name], meanings[field.name]) for field in fields]


def _meanings(options: type) -> dict[str, str]:
    """Return the string below each field of a class."""
    if not dataclasses.is_dataclass(options):
        return {}
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):  # type: ignore[attr-defined]
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as said)):
                found[name] = _flowing(said)
    return found


def _option(field: "dataclasses.Field[Any]", hint: Any, meaning: str) -> Option:
    said = getattr(hint, "__metadata__", ())
    metavar = next((one.metavar for one in said if getattr(one, "metavar", None)), None) or _kind(hint)
    hinted = [one.help_behavior_hint for one in said if getattr(one, "help_behavior_hint", None) is not None]
    if field.default is dataclasses.MISSING:
        return Option(metavar, meaning, "")
    name = f"--{field.name.replace('_', '-')}"
    if isinstance(field.default, bool):
        return Option(name, meaning, "")
    told = hinted[0].strip("()") if hinted else f"default: {field.default}"
    return Option(f"{name} {metavar}", meaning, "may be repeated" if "UseAppend" in str(hint) else told)


def _kind(hint: Any) -> str:
    inner = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    if typing.get_origin(inner) is typing.Literal:
        return f"{{{','.join(typing.get_args(inner))}}}"
    return getattr(inner, "__name__", str(inner)).upper()


def _from_parser(name: str, said: str, one: ArgumentParser) -> Command:
    options = [_from_action(action) for action in one._actions if action.default != SUPPRESS]
    example = (one.epilog or "").removeprefix("Example: ")
    return Command(name, f"{said[:1].upper()}{said[1:]}.", example, options)


def _from_action(action: Action) -> Option:
    meaning, _, default = (action.help or "").partition(" (default: ")
    default = f"default: {default[:-1]}" % vars(action) if default else ""
    if not action.option_strings:
        return Option(f"{action.metavar} …", "Name of an experiment, as `list` shows it, or all.", "")
    shown = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "")
    told = _flowing(f"{meaning[:1].upper()}{meaning[1:]}.")
    return Option(f"{action.option_strings[-1]} {shown}".strip(), told, default)


def _flowing(text: str) -> str:
    """Return a text in one line, its options in backticks."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(one if i % 2 else re.sub(r"(?<!\S)(--[a-z][\w-]*)", r"`\1`", one) for i, one in enumerate(pieces))


def _markdown(text: str) -> str:
    """Return prose in which nothing but names in backticks is markup."""
    pieces = re.split(r"(`[^`]+`)", _flowing(text))
    return "".join(one if i % 2 else re.sub(r"([*_<\[{\\#])", r"\\\1", one) for i, one in enumerate(pieces))


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
