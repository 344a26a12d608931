"""Validation of public arguments: type, range, finiteness and structure.

Every public function checks its arguments with these functions before anything is compiled. Each check returns the
value in canonical form, or raises TypeError for a value of the wrong kind and ValueError for one out of range. The
message names the called function, the expected and the received value, and the remedy. For traced values only the kind
is checked.
"""

import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study.types import Key, Params

MAX_COUNT = 2**31 - 1  # JAX counts and indexes in 32 bits

_INFINITY = math.inf


def describe_argument(value: Any) -> str:
    """Return a description of an argument, to complete "received …"."""
    if isinstance(value, int) and value.bit_length() > 1024:  # Python does not print very long integers
        return f"an integer of {value.bit_length():,} bits"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}…"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is not None and shape is not None:
        if shape == () and not isinstance(value, Tracer) and isinstance(value, np.ndarray | np.generic | jax.Array):
            return f"{value}, an array {dtype}[]"
        return f"an array {dtype}{list(shape)}"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    return f"a {type(value).__name__}"


def check_integer(
    who: str, name: str, value: Any, low: int | None = None, high: int | None = MAX_COUNT, *, remedy: str = ""
) -> int:
    """Return a static count as an `int`.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        value: An integer of Python or NumPy, or a concrete integer array of shape ().
        low: The least value allowed; None for no bound.
        high: The largest value allowed; None for no bound, for an integer used only in Python, such as a NumPy seed.
        remedy: A sentence to append to the message.

    Returns:
        The number as an `int`.

    Raises:
        TypeError: If the value is not a concrete integer; bools and floats raise, too.
        ValueError: If it is out of range.
    """
    expected = f"an integer{_integer_range(low, None if high == MAX_COUNT else high)}"
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be {expected}, known before compiling; received a traced value.")
    if isinstance(value, jax.Array | np.ndarray) and value.shape == () and jnp.issubdtype(value.dtype, jnp.integer):
        value = int(value)
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_):
        whole = isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer()
        hint = f" Give {int(value)}." if whole else _end(remedy)
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.{hint}")
    number = int(value)
    if high is not None and number > high:
        expected = f"an integer{_integer_range(low, high)}"
    elif low is None or number >= low:
        return number
    raise ValueError(f"{who} needs {name} to be {expected}; received {describe_argument(number)}.{_end(remedy)}")


def check_real(
    who: str,
    name: str,
    value: Any,
    low: float | int = -_INFINITY,
    high: float | int = _INFINITY,
    *,
    closed: str | None = None,
    remedy: str = "",
) -> Any:
    """Return one real number; raise ValueError unless it lies in an interval.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        value: A real number of Python, NumPy or JAX, or an array of shape (); the range of a traced one is not checked.
        low: Lower end of the interval.
        high: Upper end of the interval.
        closed: The included ends, "[]", "[)", "(]" or "()". The default includes finite ends and excludes infinite
            ones.
        remedy: A sentence to append to the message.

    Returns:
        The number as given, except that an integer beyond JAX's 32 bits becomes a `float`, and extended precision is
        converted as in `in_double`.

    Raises:
        TypeError: If the value is not one real number; bools raise, too.
        ValueError: If the value is out of range or NaN.
    """
    closed = closed or f"{'[' if math.isfinite(low) else '('}{']' if math.isfinite(high) else ')'}"
    expected = _interval(low, high, closed)
    if not is_real_scalar(value):
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.{_end(remedy)}")
    if not isinstance(value, Tracer):
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(
                f"{who} needs {name} to be {expected}; received an integer beyond 1e308.{_end(remedy)}"
            ) from None
        above = number >= low if closed[0] == "[" else number > low
        below = number <= high if closed[1] == "]" else number < high
        if not (above and below):
            raise ValueError(f"{who} needs {name} to be {expected}; received {value}.{_end(remedy)}")
        whole = isinstance(value, Integral) or (isinstance(value, np.ndarray) and value.dtype.kind in "iu")
        if whole and abs(number) > MAX_COUNT:
            return number
    return in_double(value)


def is_real_scalar(value: Any) -> bool:
    """Return whether a value is one real number of Python, NumPy or JAX, traced or not; a bool is not."""
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, Real):
        return True
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "shape", None) != ():
        return False
    return bool(jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer))


def check_bool(who: str, name: str, value: Any) -> bool:
    """Return a flag as a `bool`; raise TypeError for anything else, including traced and numeric values."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{who} needs {name} to be True or False; received {describe_argument(value)}.")
    return bool(value)


def check_choice(who: str, name: str, value: Any, choices: Collection[Any], *, remedy: str = "") -> Any:
    """Return a value if it is one of the given choices; otherwise raise ValueError that lists them."""
    known = isinstance(value, str | int | float | bool | None) and any(
        type(value) is type(choice) and value == choice for choice in choices
    )
    if not known:
        listed = ", ".join(map(repr, choices))
        raise ValueError(
            f"{who} needs {name} to be one of {listed}; received {describe_argument(value)}.{_end(remedy)}"
        )
    return value


def check_callable(who: str, name: str, value: Any, *, expected: str = "a function") -> Any:
    """Return a callable; raise TypeError for anything else."""
    if not callable(value):
        raise TypeError(f"{who} needs {name} to be {expected}; received {describe_argument(value)}.")
    return value


def check_key(who: str, key: Any, *, name: str = "key") -> Key:
    """Return one JAX random key.

    Args:
        who: The function that was called, for the message.
        key: From `jax.random.key` of any implementation, or from the older `jax.random.PRNGKey`.
        name: The argument's name.

    Returns:
        The key.

    Raises:
        TypeError: If the argument is not a key.
        ValueError: If there are several keys.
    """
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    old = dtype == jnp.uint32 and np.ndim(key) > 0 and np.shape(key)[-1] == _old_key_size()
    if not typed and not old:
        raise TypeError(
            f"{who} needs {name} to be a random key of JAX; received {describe_argument(key)}. Give "
            "jax.random.key(0), with another seed for other draws."
        )
    if np.ndim(key) != (0 if typed else 1):
        raise ValueError(
            f"{who} needs {name} to be one key; received an array of keys of shape {np.shape(key)}. Give one of them, "
            "as in key[0], or vmap over them."
        )
    return jnp.asarray(key)


def _old_key_size() -> int:
    return jax.eval_shape(lambda: jax.random.PRNGKey(0)).shape[0]


def check_params(who: str, params: Any, *, name: str = "params", finite: bool = True) -> Params:
    """Return parameters as JAX arrays; raise unless all leaves are real floating-point arrays.

    Args:
        who: The function that was called, for the message.
        params: A pytree of floating-point arrays; NumPy arrays and Python floats are converted.
        name: The argument's name.
        finite: Whether NaN and infinity in concrete arrays raise.

    Returns:
        The parameters as JAX arrays.

    Raises:
        TypeError: If a leaf is not an array, is complex, or is not floating-point.
        ValueError: If there are no leaves, or a number is not finite.
    """
    params = jax.tree.map(in_double, params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"{who} needs {name} with at least one array; received a pytree without leaves.")
    for path, leaf in leaves:
        at = f"{name}{jax.tree_util.keystr(path)}"
        try:
            dtype = jnp.result_type(leaf)
        except (TypeError, OverflowError) as error:
            raise TypeError(
                f"{who} needs {name} to be arrays; {at} is {describe_argument(leaf)}. Move what is not trained out of "
                "the parameters into the loss."
            ) from error
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(
                f"{who} needs {name} to be real; {at} is {dtype}. Give the real and the imaginary part as two leaves."
            )
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{who} needs {name} to be floating-point; {at} is {dtype}. Convert it, or remove it from the "
                "parameters."
            )
        if finite and not isinstance(leaf, Tracer) and not is_finite(leaf):
            raise ValueError(
                f"{who} needs {name} to be finite; {at} holds NaN or infinity. Take parameters from before the run "
                "diverged."
            )
        if not isinstance(leaf, jax.Array):
            check_kept(at, np.asarray(leaf))
    return jax.tree.map(jnp.asarray, params)


def in_double(value: Any) -> Any:
    """Return NumPy's extended-precision numbers in double precision, and anything else unchanged."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.char in "gG":
        with np.errstate(over="ignore"):
            return value.astype(np.float64 if value.dtype.char == "g" else np.complex128)
    return value


def is_finite(leaf: Any) -> bool:
    """Return whether every number of a concrete array is finite, on a CPU without compiling."""
    if isinstance(leaf, jax.Array) and any(device.platform != "cpu" for device in leaf.devices()):
        return bool(jnp.isfinite(leaf).all())
    array = np.asarray(leaf)
    return bool(np.isfinite(array if array.dtype.kind in "fciub" else array.astype(np.float32)).all())


def check_kept(where: str, array: Any) -> None:
    """Raise ValueError if converting a NumPy array to JAX's default 32 bits would change its numbers.

    Args:
        where: Description of the array, for the message.
        array: The array; integers must not wrap around, and finite numbers must stay finite.
    """
    target = jax.dtypes.canonicalize_dtype(array.dtype)
    if target == array.dtype or not array.size:
        return
    if array.dtype.kind in "iu":
        kept = jnp.iinfo(target).min <= array.min() and array.max() <= jnp.iinfo(target).max
    else:
        with np.errstate(over="ignore"):
            kept = bool((np.isfinite(array.astype(target)) | ~np.isfinite(array)).all())
    if not kept:
        raise ValueError(
            f"{where} has {array.dtype} values that overflow {target}, the dtype that JAX would use. Shift or scale "
            'them, renumber labels, or call jax.config.update("jax_enable_x64", True) first.'
        )


def check_structure(who: str, name: str, value: Any, like: Any, *, of: str = "params") -> Any:
    """Return a pytree as arrays; raise unless its structure and shapes equal those of another one.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        value: The pytree.
        like: A pytree of arrays or `jax.ShapeDtypeStruct`s.
        of: Name of the other pytree in the message.

    Returns:
        The pytree with arrays as leaves.

    Raises:
        ValueError: If structure or shapes differ.
    """
    expected, received = jax.tree.structure(like), jax.tree.structure(value)
    if expected != received:
        raise ValueError(f"{who} needs {name} to have the structure of {of}, {expected}; received {received}.")
    for (path, leaf), x in zip(jax.tree_util.tree_leaves_with_path(like), jax.tree.leaves(value), strict=True):
        if np.shape(x) != np.shape(leaf):
            raise ValueError(
                f"{who} needs {name}{jax.tree_util.keystr(path)} to have the shape of {of}, {np.shape(leaf)}; received "
                f"{np.shape(x)}."
            )
    return jax.tree.map(jnp.asarray, value)


def _integer_range(low: int | None, high: int | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return "" if low is high is None else f" ≥ {low}" if low is not None else f" ≤ {high}"


def _interval(low: float | int, high: float | int, closed: str) -> str:
    if low == -_INFINITY and high == _INFINITY:
        return "a real number" if closed == "[]" else "a finite real number"
    if high == _INFINITY:
        sign = "≥" if closed[0] == "[" else ">"
        return f"a real number {sign} {low:g}" if closed[1] == "]" else f"a finite real number {sign} {low:g}"
    return f"a real number in {closed[0]}{low:g}, {high:g}{closed[1]}"


def _end(remedy: str) -> str:
    return f" {remedy}" if remedy else ""


def check_static_real(
    who: str,
    name: str,
    value: Any,
    low: float | int = -_INFINITY,
    high: float | int = _INFINITY,
    *,
    closed: str | None = None,
    remedy: str = "",
) -> float:
    """Return one real number, which must be known before compiling, as a `float`; otherwise as `check_real`."""
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be a number known before compiling; received a traced value.")
    return float(check_real(who, name, value, low, high, closed=closed, remedy=remedy))


def check_static(who: str, name: str, value: Any) -> Any:
    """Return a value known before compiling; raise TypeError for a traced one."""
    if isinstance(value, Tracer):
        raise TypeError(f"{who} needs {name} to be known before compiling; received a traced value.")
    return value


def check_text(who: str, name: str, value: Any) -> str:
    """Return a string; raise TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{who} needs {name} to be text; received {describe_argument(value)}.")
    return value


def check_mapping(who: str, name: str, value: Any) -> Mapping[Any, Any]:
    """Return a mapping; raise TypeError for anything else."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{who} needs {name} to be a mapping; received {describe_argument(value)}.")
    return value


def check_numbers(who: str, name: str, values: Any, *, finite: bool = True) -> np.ndarray:
    """Return real numbers, or nested sequences of them, as a double-precision array.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        values: The numbers.
        finite: Whether NaN and infinity raise.

    Returns:
        The array.

    Raises:
        TypeError: If the values are not concrete real numbers.
        ValueError: If the values do not form an array, or one is not finite.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values)):
        raise TypeError(f"{who} needs {name} to be known before compiling; received traced values.")
    if np.ma.is_masked(values):
        raise ValueError(f"{who} needs {name} without masked entries; received some. Remove or fill them.")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{who} needs {name} to be numbers that form one array; received {describe_argument(values)} with parts of "
            "different lengths."
        ) from error
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(
            f"{who} needs {name} to be real numbers; received {describe_argument(values)} of {array.dtype}."
        )
    array = array.astype(float)
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{who} needs {name} to be finite; received NaN or infinity among them.")
    return array
