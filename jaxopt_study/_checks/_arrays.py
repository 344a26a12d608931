"""Checks of random keys, parameters and arrays: dtype, shape, structure and finiteness."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study._checks._describe import describe_argument
from jaxopt_study.types import Key, Params


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
        if finite and not is_finite(leaf):
            raise ValueError(
                f"{who} needs {name} to be finite; {at} holds NaN or infinity. Take parameters from before the run "
                "diverged."
            )
        if not isinstance(leaf, jax.Array):
            check_kept(at, np.asarray(leaf))
    return jax.tree.map(jnp.asarray, params)


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


def is_finite(leaf: Any) -> bool:
    """Return whether every number of an array is finite, on a CPU without compiling; a traced one counts as such."""
    if isinstance(leaf, Tracer):
        return True
    if isinstance(leaf, jax.Array) and any(device.platform != "cpu" for device in leaf.devices()):
        return bool(jnp.isfinite(leaf).all())
    array = np.asarray(leaf)
    return bool(np.isfinite(array if array.dtype.kind in "fciub" else array.astype(np.float32)).all())


def in_double(value: Any) -> Any:
    """Return NumPy's extended-precision numbers in double precision, and anything else unchanged."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.char in "gG":
        with np.errstate(over="ignore"):
            return value.astype(np.float64 if value.dtype.char == "g" else np.complex128)
    return value
