"""Paths of a specification's arguments, by which hyperparameters are listed and replaced.

Expressions are recognised by their attribute `spec`, so that this module need not import `_spec`.
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optax


def children(spec: Any) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """Yield (name, where, value) for each argument: parts by their constructor's name, the rest by argument name."""
    entries: list[tuple[str, tuple[Any, ...], Any]] = []
    for name, value in spec.arguments.items():
        if name == spec.variadic():
            entries += [(_part_name(part, name), (name, index), part) for index, part in enumerate(value)]
        elif isinstance(value, optax.GradientTransformation):
            entries.append((_part_name(value, name), (name,), value))
        elif isinstance(value, Mapping) and any(isinstance(v, optax.GradientTransformation) for v in value.values()):
            entries += [(str(key), (name, key), part) for key, part in value.items()]
        else:
            entries.append((name, (name,), value))
    names = [name for name, _, _ in entries]
    seen: dict[str, int] = {}
    for name, where, value in entries:
        position = seen[name] = seen.get(name, -1) + 1
        yield (f"{name}[{position}]" if names.count(name) > 1 else name), where, value


def _part_name(part: Any, fallback: str) -> str:
    spec = getattr(part, "spec", None)
    return fallback if spec is None else spec.constructor.name.rpartition(".")[2]


def arguments_of(expression: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of every argument; a function is yielded whole and also by its own arguments."""
    for path, _, _, value in _arguments(expression):
        if not isinstance(value, optax.GradientTransformation):
            yield path, value


def neutral_values(expression: Any) -> dict[str, float]:
    """Return the values that disable hyperparameters, by path, as their constructors declare them.

    Args:
        expression: A transformation or function.

    Returns:
        The values, such as 0 for the ε of a divisor and for a weight decay.
    """
    owned = ((path, spec.constructor.neutral.get(name)) for path, spec, name, _ in _arguments(expression))
    return {path: value for path, value in owned if value is not None}


def _arguments(expression: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    """Yield (path, specification, name, value) of every argument of an expression and of its parts."""
    if expression.spec is None:
        return
    for name, where, value in children(expression.spec):
        path = prefix + name
        yield path, expression.spec, where[0], value
        if hasattr(value, "spec"):
            yield from _arguments(value, path + ".")


def match(given: str, paths: list[str], expression: Any) -> list[str]:
    """Return the paths matched by a full path, a unique suffix of one, or a pattern with `*`."""
    # Brackets are part of a path, not a character class.
    pattern = given.replace("[", "[[]")
    matches = [path for path in paths if path == given]
    if not matches and "*" in given:
        matches = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
    elif not matches:
        matches = [path for path in paths if path.endswith("." + given)]
        if len(matches) > 1:
            raise ValueError(
                f"{given!r} names several hyperparameters: {', '.join(matches)}. Give a longer path, or use "
                f"'*.{given}' to change them all."
            )
    if not matches:
        near = difflib.get_close_matches(given, [*paths, *(path.rpartition(".")[2] for path in paths)], n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        name = expression.spec.constructor.name if expression.spec else "a bare transformation"
        raise ValueError(f"No hyperparameter {given!r} in {name}. {hint}It has: {', '.join(paths) or 'none'}.")
    return matches


def rebuild(expression: Any, changes: Mapping[str, Any], construct: Callable[[Any], Any], prefix: str = "") -> Any:
    """Return an expression with the arguments at some paths changed; `construct` makes one from its specification."""
    spec = expression.spec
    arguments = {name: (list(value) if name == spec.variadic() else value) for name, value in spec.arguments.items()}
    changed = set()
    for name, where, value in children(spec):
        path = prefix + name
        if path in changes:
            new = changes[path]
        elif hasattr(value, "spec") and any(key.startswith(path + ".") for key in changes):
            new = rebuild(value, changes, construct, path + ".")
        else:
            continue
        changed.add(where[0])
        if len(where) == 1:
            arguments[where[0]] = new
        else:
            if isinstance(arguments[where[0]], Mapping):
                arguments[where[0]] = dict(arguments[where[0]])
            arguments[where[0]][where[1]] = new
    if not changed:
        return expression
    if "convention" in changed:  # the new convention supplies its own defaults
        shown = spec.shown()
        chosen = spec.constructor.defaults(arguments["convention"])
        arguments = {
            name: value if name in changed or name in shown else chosen[name] for name, value in arguments.items()
        }
    variadic = spec.variadic()
    if variadic:
        arguments[variadic] = tuple(arguments[variadic])
    return construct(spec._replace(arguments=arguments))
