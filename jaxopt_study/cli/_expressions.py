"""Optimizers written on the command line: `adam`, `"adam(1e-3, convention='saito2016')"`, `module:function`."""

import ast
import re
from collections.abc import Callable
from typing import Any

import optax

from jaxopt_study import optimizers, transforms
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._user_modules import import_maker, import_optimizer
from jaxopt_study.transforms import vocabulary

_PATH = re.compile(r"[\w.]+:[\w.]+")
DEFAULT_RATE = 0.01  # for a bare name of an optimizer whose learning rate has no default


def read_optimizer(text: str) -> optax.GradientTransformation:
    """Build an optimizer from its expression, without evaluating the text as a program.

    Args:
        text: A name such as `adam`; a call of an optimizer or atom with numbers, strings and further calls as
            arguments; the same with `optax.` in front; or `module:function`.

    Returns:
        The optimizer. A bare name that needs a learning rate gets .01.

    Raises:
        UserError: If the text cannot be parsed, or the optimizer cannot be built.

    Example:
        >>> read_optimizer("chain(ema(0.9), scale_by_learning_rate(0.1))")
        chain(ema(0.9), scale_by_learning_rate(0.1))
        >>> read_optimizer("__import__('os').getcwd()")
        Traceback (most recent call last):
        ...
        jaxopt_study.cli._errors.UserError: "__import__('os').getcwd()" calls "__import__('os').getcwd", ...
    """
    if _PATH.fullmatch(text):
        return import_optimizer(text)
    try:
        expression = parse(text)
    except ValueError as error:
        raise UserError(
            f"{text!r} is not an expression ({error}). Write adam, 'adam(1e-3)' or module:function."
        ) from None
    try:
        built = (
            _bare(expression, text)
            if isinstance(expression, ast.Name | ast.Attribute)
            else _value(expression, text, whole=True)
        )
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{text!r} cannot be built: {error}") from None
    except Exception as error:  # Optax's constructors raise anything, if their arguments make no sense
        raise UserError(f"{text!r} cannot be built: {type(error).__name__}: {error}") from None
    if not isinstance(built, optax.GradientTransformation):
        raise UserError(f"{text!r} is {built!r}, not an optimizer. Write adam, 'adam(1e-3)' or module:function.")
    return built


def read_maker(text: str) -> Callable[..., optax.GradientTransformation] | transforms.Transform:
    """Return the constructor of an optimizer, for a search of its hyperparameters.

    Args:
        text: A name such as `adam` or `optax.adam`, whose arguments are the hyperparameters; an expression as in
            `read_optimizer`, whose numbers are; or `module:function`, a user's function of hyperparameters.

    Returns:
        A function of hyperparameters, or a `Transform`, whose hyperparameters are named by their paths.

    Raises:
        UserError: If the text cannot be parsed, or the optimizer cannot be built.

    Example:
        >>> read_maker("adam") is optimizers.adam
        True
        >>> read_maker("chain(ema(0.9), scale_by_learning_rate(0.1))").hyperparams["ema.decay"]
        0.9
    """
    if _PATH.fullmatch(text):
        return import_maker(text)
    try:
        expression = parse(text)
    except ValueError:
        expression = None
    if isinstance(expression, ast.Name | ast.Attribute):
        return _constructor(expression, text, whole=True)
    built = read_optimizer(text)
    if not isinstance(built, transforms.Transform):
        raise UserError(
            f"{text!r} is a bare Optax transformation, whose hyperparameters are unknown. Give its function "
            "without arguments."
        )
    return built


def short_name(text: str) -> str:
    """Return the name of an optimizer for folders and titles.

    Args:
        text: An expression as in `read_optimizer`.

    Example:
        >>> short_name("adam(1e-3)"), short_name("mine:build")
        ('adam', 'build')
    """
    return text.partition("(")[0].rpartition(":")[2] or "optimizer"


def specification(optimizer: optax.GradientTransformation) -> dict[str, Any]:
    """Return the description of an optimizer for a record.

    Args:
        optimizer: Any Optax transformation.

    Returns:
        "expression", the expression that builds it, and "spec", its JSON document; None for a bare transformation.
    """
    if not isinstance(optimizer, transforms.Transform):
        return {"expression": None, "spec": None}
    try:
        return {"expression": repr(optimizer), "spec": optimizer.to_json()}
    except ValueError:  # a part of it is a bare Optax transformation or a function without a name
        return {"expression": repr(optimizer), "spec": None}


def parse(text: str) -> ast.expr:
    """Return the syntax tree of one expression.

    Args:
        text: The expression.

    Raises:
        ValueError: If the text is not an expression; the message is a few words.
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        ast.unparse(expression)  # error messages unparse it, which needs the most stack
        return expression
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def atoms() -> dict[str, Callable[..., Any]]:
    """Return the constructors of atoms, and of functions such as schedules, by name."""
    public = {name: getattr(transforms, name) for name in transforms.__all__}
    return {name: value for name, value in public.items() if hasattr(value, "constructor")}


def _bare(expression: ast.expr, text: str) -> Any:
    constructor = _constructor(expression, text, whole=True)
    try:
        return constructor()
    except TypeError as error:
        if "learning_rate" not in str(error):
            raise
        return constructor(DEFAULT_RATE)


def _value(node: ast.expr, text: str, *, whole: bool = False) -> Any:
    if isinstance(node, ast.Call):
        if any(isinstance(item, ast.Starred) for item in node.args) or any(item.arg is None for item in node.keywords):
            raise UserError(f"{text!r} unpacks arguments with *; write them out.")
        constructor = _constructor(node.func, text, whole=whole)
        arguments = [_value(item, text) for item in node.args]
        return constructor(*arguments, **{str(item.arg): _value(item.value, text) for item in node.keywords})
    function = vocabulary.written(vocabulary.functions()).get(_spoken(node))
    if function is not None:
        return function  # a statistic, as in ema(0.999, of=jnp.square)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise UserError(
            f"{text!r} has the argument {ast.unparse(node)!r}; arguments are numbers, strings, elementwise functions "
            "such as jnp.square or jax.nn.relu, and calls of optimizers and atoms. For anything else write a function "
            "and name it as module:function."
        ) from None


def _constructor(node: ast.expr, text: str, *, whole: bool = False) -> Callable[..., Any]:
    module, _, name = _spoken(node).rpartition(".")
    tables = {"optimizers": optimizers.named(), "transforms": atoms()}
    # `nesterov` is an optimizer and an atom: alone the first is meant, and the second in a chain, as chains print.
    order = [module] if module else ["optimizers", "transforms"] if whole else ["transforms", "optimizers"]
    for table in order:
        if name in tables.get(table, {}):
            return tables[table][name]
    of_optax = vocabulary.written(vocabulary.optax_constructors()).get(f"{module}.{name}")
    if of_optax is not None:
        return transforms.from_optax(of_optax)
    if isinstance(node, ast.Call) and _spoken(node.func) == "from_optax" and len(node.args) == 1 and not node.keywords:
        return _constructor(node.args[0], text)  # as an expression prints: from_optax(optax.adam)(0.1)
    raise UserError(
        f"{text!r} calls {ast.unparse(node)!r}, which is neither an optimizer or atom of this package nor a "
        "transformation or schedule of Optax that may be named here. `jaxopt-study optimizers` lists optimizers; name "
        "your own as module:function."
    )


def _spoken(node: ast.AST) -> str:
    """Return a name with its module, such as "jnp.square"; "" for anything else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
