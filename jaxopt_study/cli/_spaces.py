"""Search spaces of the command line, written as `"learning_rate=log(1e-4, 1)"`, and default ones."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from jaxopt_study import sweeps
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import parse
from jaxopt_study.cli._tables import number
from jaxopt_study.optimizers import search_range
from jaxopt_study.sweeps import Choices, Conditional, Dimension, Integers, LogUniform, Space, Uniform
from jaxopt_study.transforms import Transform

KINDS: dict[str, Callable[..., Dimension]] = {
    "log": sweeps.log_uniform,
    "uniform": sweeps.uniform,
    "int": sweeps.integers,
    "choices": sweeps.choices,
}
FORMS = "log(low, high), uniform(low, high), int(low, high) or choices(one, another, …)"
RATE = "learning_rate"
ANY_RANGE = (1e-5, 10.0)  # for optimizers that declare no range
_CONDITION = re.compile(r"(.+?)\s+if\s+([\w.\[\]]+)\s*==?\s*(.+)")


def read_space(texts: Iterable[str]) -> Space:
    """Parse a space from texts of one dimension each, without evaluating them as programs.

    Args:
        texts: Each `NAME=KIND(…)`, with the kinds of `FORMS`; the arguments are numbers, strings with or without
            quotes, and keywords as in `sweeps.integers`. `NAME=KIND(…) if OTHER=VALUE` is a conditional dimension.

    Returns:
        The space.

    Raises:
        UserError: If a text cannot be parsed, or a name occurs twice.

    Example:
        >>> read_space(["rate=log(1e-4, 1)", "order=choices(reshuffle, shuffle_once)"])
        Space({'rate': LogUniform(low=0.0001, high=1.0, ...), 'order': Choices(options=('reshuffle', ...), ...)})
        >>> read_space(["rate=log(1, 0.1)"])
        Traceback (most recent call last):
            ...
        jaxopt_study.cli._errors.UserError: --space "rate=log(1, 0.1)": log_uniform: expected finite low < high...
    """
    dimensions: dict[str, Dimension] = {}
    for text in texts:
        name, dimension = _read_dimension(text)
        if name in dimensions:
            raise UserError(f"--space names {name!r} twice. Give it once.")
        dimensions[name] = dimension
    try:
        return Space(dimensions)
    except (TypeError, ValueError) as error:
        raise UserError(f"--space: {error}") from None


def default_space(maker: Any) -> Space | None:
    """Return the learning rate as a space, over the range that the optimizer declares.

    Args:
        maker: A function of hyperparameters that returns an optimizer, or a `Transform`.

    Returns:
        The space; None if there is no learning rate, or more than one.

    Example:
        >>> from jaxopt_study import optimizers
        >>> default_space(optimizers.adam)
        Space({'learning_rate': LogUniform(low=1e-05, high=1.0, ...)})
    """
    if isinstance(maker, Transform):
        rates = [path for path in maker.hyperparams if path.rpartition(".")[2] == RATE]
        known = len(rates) == 1
    else:
        known = RATE in inspect.signature(maker).parameters
    return Space({RATE: sweeps.log_uniform(*(search_range(maker) or ANY_RANGE))}) if known else None


def ends_of(dimension: Dimension) -> tuple[float | int, float | int] | None:
    """Return the ends of a range; None for options, which have none."""
    inner = dimension.dimension if isinstance(dimension, Conditional) else dimension
    return (inner.low, inner.high) if isinstance(inner, LogUniform | Uniform | Integers) else None


def options_of(dimension: Dimension) -> tuple[Any, ...]:
    """Return the options of a dimension; none for a range."""
    inner = dimension.dimension if isinstance(dimension, Conditional) else dimension
    return inner.options if isinstance(inner, Choices) else ()


def at_end(name: str, dimension: Dimension, side: str, *, owner: str = "") -> str:
    """Return a warning about a selected value at an end of its range, with a wider range to try.

    Args:
        name: Name of the hyperparameter.
        dimension: Its range.
        side: "low" or "high".
        owner: Prefix of the name on the command line, such as "adam.".

    Example:
        >>> at_end("rate", sweeps.log_uniform(1e-6, 1e-4), "high")
        'rate lies at the upper end of its range, 1e-6–1e-4: try --space "rate=log(1e-6, .001)".'
    """
    low, high = ends_of(dimension) or (0, 0)
    text = f"{name} lies at the {'upper' if side == 'high' else 'lower'} end of its range, {number(low)}–{number(high)}"
    if not isinstance(dimension, LogUniform):
        return f"{text}: the best may lie beyond."
    low, high = (low / 10, high) if side == "low" else (low, high * 10)
    return f'{text}: try --space "{owner}{name}=log({number(low)}, {number(high)})".'


def _read_dimension(text: str) -> tuple[str, Dimension]:
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not name or not equals:
        raise UserError(f'--space "{text}" has no name. Write NAME=KIND(…), where KIND(…) is {FORMS}.')
    condition = _CONDITION.fullmatch(rest)
    expression = condition[1] if condition else rest
    try:
        node = parse(expression)
    except ValueError as error:
        raise UserError(f'--space "{text}" is not an expression ({error}); expected {FORMS}.') from None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in KINDS:
        raise UserError(f'--space "{text}": {expression!r} is not a range; expected {FORMS}.')
    try:
        arguments = [_literal(item) for item in node.args]
        keywords = {str(item.arg): _literal(item.value) for item in node.keywords}
        dimension = KINDS[node.func.id](*arguments, **keywords)
        if condition:
            value = _literal(parse(condition[3]))
            dimension = sweeps.conditional(dimension, on=condition[2], equals=value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f'--space "{text}": {error}') from None
    return name, dimension


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):  # a word without quotes
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise ValueError(f"{ast.unparse(node)!r} is neither a number nor a word") from None
