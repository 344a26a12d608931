"""Reading expressions from JSON text; pickling uses the same text."""

import copyreg
import inspect
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import files
from jaxopt_study.transforms import vocabulary
from jaxopt_study.transforms._constructors import from_optax
from jaxopt_study.transforms._expression import Expression, Function, Transform, construct
from jaxopt_study.transforms._printing import resolve
from jaxopt_study.transforms._spec import Constructor, Spec
from jaxopt_study.transforms._to_json import FORMAT, is_saved, to_json

_LISTED = ("jaxopt_study", "optax", "jax", "jaxlib", "numpy", "builtins")  # never trusted as a whole


def from_json(text: str, *, trusted: tuple[str, ...] = ()) -> Any:
    """Build the transformation or function that JSON text describes.

    The text is untrusted data. It may call only this package's constructors and Optax's constructors of transformations
    and schedules, and refer only to elementwise functions of JAX; all of them are listed in `transforms.vocabulary`. No
    module is imported because the text names it.

    Args:
        text: The text that `to_json` returned.
        trusted: Your own code that the text may also name: functions, as in "mine:tripled", or modules with everything
            defined in them and in their submodules, as in "mine". They are imported, and the text may call them with
            any arguments. Third-party packages such as "jax" are not accepted as a whole: name the function.

    Returns:
        An expression equal to the one that was saved.

    Raises:
        TypeError: If `text` is not a string, or `trusted` is not a tuple of strings.
        ValueError: If the text is not a saved expression, names something that does not exist, or something that is
            neither listed nor trusted.

    Example:
        >>> tx = ema(0.9)
        >>> from_json(tx.to_json()) == tx
        True
    """
    if not isinstance(text, str):
        raise TypeError(f"from_json needs the text that to_json returned; received {type(text).__name__}.")
    _check_trusted(trusted)
    try:
        document = files.parse_json(text, constants=True)
    except ValueError as error:
        raise ValueError(f"Not JSON: {error}. Expected the text that to_json returned.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        received = _shown(document.get("format")) if isinstance(document, dict) else repr(type(document).__name__)
        raise ValueError(f"Expected a document of format {FORMAT!r}, received {received}.")
    built = _decode(document.get("expression"), trusted)
    if not isinstance(built, Expression):
        raise ValueError(f"Not a saved expression: {_shown(document.get('expression'))}.")
    return built


def _check_trusted(trusted: tuple[str, ...]) -> None:
    if not isinstance(trusted, tuple | list) or not all(isinstance(name, str) for name in trusted):
        raise TypeError(
            f"from_json needs trusted to be a tuple of names, as in trusted=('mine',); received {trusted!r}."
        )
    for name in trusted:
        if not all(part.isidentifier() for part in name.partition(":")[0].split(".")):
            raise ValueError(f"from_json needs trusted to name modules, as in trusted=('mine',); received {name!r}.")
        if ":" not in name and name.partition(".")[0] in _LISTED:
            raise ValueError(
                f"{name!r} cannot be trusted as a whole, because some of its functions run code or write files. Name "
                "the function, as in trusted=('jax.nn:glu',)."
            )


_NODES: dict[frozenset[str], str] = {
    frozenset(keys): keys[0]
    for keys in (
        ("call", "arguments"), ("from_optax", "arguments"), ("function",), ("key", "impl"), ("array", "dtype", "jax"),
        ("tuple",), ("dict",), ("items",),
    )
}  # fmt: skip


def _decode(value: Any, trusted: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_decode(item, trusted) for item in value]
    if not isinstance(value, dict):
        return value
    kind = _NODES.get(frozenset(value))
    inside = None if kind is None else value[kind]
    if kind in {"call", "from_optax"} and isinstance(inside, str) and isinstance(value["arguments"], dict):
        return _build(kind, inside, value["arguments"], trusted)
    if kind == "function" and isinstance(inside, str):
        return vocabulary.functions().get(inside) or _trusted(inside, trusted)
    if kind == "key":
        return _key(inside, value["impl"])
    if kind == "array":
        return _array(inside, value["dtype"], value["jax"])
    if kind == "tuple" and isinstance(inside, list):
        return tuple(_decode(item, trusted) for item in inside)
    if kind == "dict" and isinstance(inside, dict):
        return {key: _decode(item, trusted) for key, item in inside.items()}
    if kind == "items" and isinstance(inside, list):
        return _items(inside, trusted)
    raise ValueError(f"Not part of a saved expression: {_shown(value)}.")


def _items(pairs: list[Any], trusted: tuple[str, ...]) -> dict[Any, Any]:
    decoded: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"Not part of a saved expression: {_shown(pair)}, where a key and a value are expected.")
        key, item = (_decode(part, trusted) for part in pair)
        try:
            twice = key in decoded
        except TypeError:  # for example, a list cannot be a key
            twice = True
        if twice:
            raise ValueError(f"Invalid or repeated key of a saved dictionary: {_shown(key)}.")
        decoded[key] = item
    return decoded


def _key(data: Any, impl: Any) -> jax.Array:
    try:
        numbers = np.array(data)
        if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > np.iinfo(np.uint32).max:
            raise ValueError("its numbers do not form a key")
        return jax.random.wrap_key_data(jnp.asarray(numbers.astype(np.uint32)), impl=str(impl))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"Not a saved random key: {_shown({'key': data, 'impl': impl})}: {error}.") from error


def _array(content: Any, dtype: Any, on_device: Any) -> Any:
    try:
        if not isinstance(dtype, str) or not isinstance(on_device, bool) or not isinstance(content, _ARRAY):
            raise ValueError("expected numbers, the name of a dtype, and true or false")
        kind = jnp.dtype(dtype)
        if not is_saved(kind):
            raise ValueError(f"{dtype!r} is not a dtype of real numbers")
        plain = np.array(content)
        if plain.dtype.kind not in "biuf" or (plain.size and plain.dtype.kind == "f" and kind.kind in "biu"):
            raise ValueError(f"its numbers are not of dtype {dtype}")
        array = plain.astype(kind) if plain.dtype.kind == "b" else np.array(content, dtype=kind)
        return jnp.asarray(array) if on_device else array
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"Not a saved array: {_shown({'array': content, 'dtype': dtype})}: {error}.") from error


_ARRAY = list | int | float


def _build(kind: str, path: str, written: dict[str, Any], trusted: tuple[str, ...]) -> Any:
    listed = vocabulary.own_constructors() if kind == "call" else vocabulary.optax_constructors()
    function = listed.get(path) or _trusted(path, trusted)
    constructor: Any = getattr(function if kind == "call" else from_optax(function), "constructor", None)
    if not isinstance(constructor, Constructor):
        raise ValueError(f"{path!r} is not a constructor of transformations.")
    parameters = constructor.signature.parameters
    unknown = [name for name in written if name not in parameters]
    missing = [name for name, p in parameters.items() if name not in written and p.default is inspect.Parameter.empty]
    if unknown or missing:
        raise ValueError(
            f"{constructor.name}: the saved text must have this version's arguments, {', '.join(parameters)}; received "
            f"{_shown(', '.join(written))}. Another version saved it: {'rename' if unknown else 'add'} "
            f"{_shown(unknown or missing)} in it."
        )
    arguments = {name: _decode(item, trusted) for name, item in written.items()}
    for name, value in arguments.items():
        needed = _VARIADIC.get(parameters[name].kind)
        if needed is not None and not isinstance(value, needed):
            raise ValueError(f"{constructor.name}: {name} must be a {needed.__name__}; received {_shown(value)}.")
    try:
        return construct(Spec(constructor, arguments))
    except Exception as error:  # Optax's constructors may raise any exception for invalid arguments
        raise ValueError(
            f"{constructor.name} cannot be built from the arguments in the text: {type(error).__name__}: {error}"
        ) from error


_VARIADIC = {inspect.Parameter.VAR_POSITIONAL: tuple, inspect.Parameter.VAR_KEYWORD: dict}


def _trusted(path: str, trusted: tuple[str, ...]) -> Any:
    """Return the object at a trusted path, importing its module."""
    module, _, name = path.partition(":")
    whole = [one for one in trusted if module == one or module.startswith(f"{one}.")]
    if path not in trusted and not whole:
        raise ValueError(
            f"{_shown(path)} is neither a constructor nor an elementwise function that a saved expression may name. "
            "If it is your own code, trust it explicitly: from_json(text, trusted=('mine:function',))."
        )
    if name.startswith("__") or ".__" in name:
        raise ValueError(f"{_shown(path)} is not one of your own functions.")
    function = resolve(path)
    if function is None:
        raise ValueError(f"{path!r} does not exist here. It was saved by another version, or its package is missing.")
    if isinstance(function, ModuleType) or not callable(function):
        raise ValueError(f"{path!r} is not a function or constructor.")
    # A trusted module may itself have imported anything ("mine:os.system"), so the module that defines the function is
    # checked, too.
    home = str(getattr(function, "__module__", None))
    if path not in trusted and not any(home == one or home.startswith(f"{one}.") for one in whole):
        raise ValueError(f"{path!r} comes from {home!r}, which is not trusted; trusted are: {', '.join(trusted)}.")
    return function


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}…"


def _reduced(expression: Any) -> Any:
    return from_json, (to_json(expression),)


for _kind in (Transform, Function):
    copyreg.pickle(_kind, _reduced)
