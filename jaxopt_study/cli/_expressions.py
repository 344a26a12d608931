"""Optimizers named on the command line: `adam`, `"adam(1e-3, convention='saito2016')"`, `module:function`."""

import ast
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optax

from jaxopt_study import optimizers, transforms
from jaxopt_study.cli._errors import UserError
from jaxopt_study.transforms import vocabulary

_PATH = re.compile(r"[\w.]+:[\w.]+")
DEFAULT_RATE = 0.01  # for a bare name of an optimizer whose learning rate has no default


def read_optimizer(text: str) -> optax.GradientTransformation:
    """Build the optimizer that a text names, without evaluating the text as a program.

    It may be the name of an optimizer of this package, a call of it or of an atom with numbers, strings and further
    calls as arguments, the same with `optax.` in front, or `module:function`.

    Args:
        text: For instance `adam`, `chain(ema(0.9), scale_by_learning_rate(0.1))` or `mine:build`.

    Returns:
        The optimizer. A bare name that needs a learning rate gets .01.

    Raises:
        UserError: If it cannot be understood or built; the message says why.

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
        raise UserError(f"{text!r} is no expression ({error}). Write adam, 'adam(1e-3)' or module:function.") from None
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
    """Return what makes an optimizer from hyperparameters that may vary.

    Args:
        text: A name such as `adam` or `optax.adam`, whose arguments may vary; an expression as of `read_optimizer`, the
            numbers in which may; or `module:function`, a user's function of hyperparameters.

    Returns:
        A function of hyperparameters, or a `Transform`, of which they are paths.

    Raises:
        UserError: If it cannot be understood or built; the message says why.

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
        raise UserError(f"{text!r} does not say what its hyperparameters are. Name its function without arguments.")
    return built


def short_name(text: str) -> str:
    """Return what an optimizer is called in folders and titles, as of `read_optimizer`.

    Args:
        text: What the command line says.

    Example:
        >>> short_name("adam(1e-3)"), short_name("mine:build")
        ('adam', 'build')
    """
    return text.partition("(")[0].rpartition(":")[2] or "optimizer"


def specification(optimizer: optax.GradientTransformation) -> dict[str, Any]:
    """Describe an optimizer for a record.

    Args:
        optimizer: Any Optax transformation.

    Returns:
        "expression", what builds it, and "spec", its JSON document; None where it is a bare function that does not say.
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

    Returns:
        The tree.

    Raises:
        ValueError: If it is none; the message is a few words.
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        ast.unparse(expression)  # which messages do; it takes most of the stack
        return expression
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deeply") from None


def import_optimizer(path: str) -> optax.GradientTransformation:
    """Build the optimizer that a user's function without arguments returns.

    Args:
        path: `module:function`; modules of the current folder can be named.

    Returns:
        Any Optax transformation.

    Raises:
        UserError: If the module or function is missing or fails, or returns something else.
    """
    return call_maker(path, import_maker(path))


def import_maker(path: str) -> Callable[..., Any]:
    """Return a user's function that makes an optimizer.

    Args:
        path: `module:function`; modules of the current folder can be named.

    Returns:
        The function.

    Raises:
        UserError: If the module or function is missing, or is no function.
    """
    found = import_named(path, what="an optimizer")
    if isinstance(found, optax.GradientTransformation):
        raise UserError(f"{path!r} is an optimizer, not a function that returns one: write a function.")
    if not callable(found):
        raise UserError(f"{path!r} is {found!r}; expected a function that returns an optimizer.")
    return found


def call_maker(path: str, maker: Callable[..., Any], **hyperparameters: Any) -> optax.GradientTransformation:
    """Build an optimizer with a user's function.

    Args:
        path: What the function is called.
        maker: The function.
        **hyperparameters: Its arguments.

    Returns:
        Any Optax transformation.

    Raises:
        UserError: If the function fails or returns something else.
    """
    try:
        built = maker(**hyperparameters)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in hyperparameters.items())
        how = f"with {given}" if given else "without arguments"
        raise UserError(f"{path!r}: calling it {how} fails with {type(error).__name__}: {error}") from error
    if not isinstance(built, optax.GradientTransformation):
        raise UserError(
            f"{path!r} returned {built!r} of type {type(built).__name__}; expected an Optax transformation, such as "
            "optimizers.adam(1e-3) or optax.adam(1e-3)."
        )
    return built


def import_named(path: str, *, what: str) -> Any:
    """Return what a user's module calls by a name.

    Args:
        path: `module:name`; modules of the current folder can be named.
        what: What messages say that it should be.

    Returns:
        Whatever it is.

    Raises:
        UserError: If the module or the name is missing, or importing it fails.
    """
    module_name, separator, name = path.partition(":")
    if not separator or not module_name or not name:
        raise UserError(f"{path!r} does not name {what}: write module:function, such as mine:build for mine.py.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == module_name.partition(".")[0] or missing == module_name:
            raise UserError(
                f"{path!r}: there is no module {missing!r}. Run in the folder that holds {missing}.py, or install it."
            ) from None
        raise UserError(f"{path!r}: the module {module_name!r} needs {missing!r}, which is not installed.") from None
    except Exception as error:
        raise UserError(f"{path!r}: importing {module_name!r} fails with {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"{path!r}: {module_name!r} has no {name!r}. Functions there: {_functions(found)}.")
        found = getattr(found, part)
    return found


def atoms() -> dict[str, Callable[..., Any]]:
    """Return what optimizers are built from.

    Returns:
        Constructors of transformations and of functions between them, by name.
    """
    found = {name: getattr(transforms, name) for name in transforms.__all__}
    return {name: value for name, value in found.items() if hasattr(value, "constructor")}


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
            raise UserError(f"{text!r} unpacks arguments; write them out.")
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
        f"{text!r} calls {ast.unparse(node)!r}, which is no optimizer or atom of this package, and no transformation "
        "or schedule of Optax that may be named here. `jaxopt-study optimizers` lists them; your own is named "
        "module:function."
    )


def _spoken(node: ast.AST) -> str:
    """Return a name with its module, such as "jnp.square"; "" for anything else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _functions(module: Any) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return ", ".join(names) or "none"
