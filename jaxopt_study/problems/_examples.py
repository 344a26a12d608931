"""Conversion of a user's examples to arrays, with errors for data that cannot be trained on."""

import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study._checks import check_kept, describe_argument, in_double, is_finite
from jaxopt_study.types import Batch

_sound: dict[tuple[int, bool], Any] = {}  # immutable arrays already checked to be finite and in range


def as_examples(where: str, examples: Batch) -> Batch:
    """Return examples as a pytree of numeric arrays with a common leading axis.

    Torch tensors and pandas frames and series become NumPy arrays, without importing either library. A frame in place
    of the whole pytree raises, because it could mean a dictionary of columns or one array.

    Args:
        where: Description of the examples, for messages.
        examples: A pytree of arrays.

    Returns:
        The same pytree; NumPy and JAX arrays are not copied.

    Raises:
        TypeError: If a leaf is not an array of numbers.
        ValueError: If there are no examples, leading axes differ, or a number is masked, not finite, or outside the
            range of JAX's default 32 bits.
    """
    if hasattr(examples, "columns") and hasattr(examples, "to_numpy"):
        raise TypeError(
            f"{where} must be a pytree of arrays; received {describe_argument(examples)}. Give its columns by name, "
            f"as in {{name: frame[name] for name in frame.columns}}, or as one array with frame.to_numpy()."
        )
    leaves_with_paths, structure = jax.tree_util.tree_flatten_with_path(examples)
    leaves = [as_array(f"{where}{jax.tree_util.keystr(path)}", leaf) for path, leaf in leaves_with_paths]
    shapes = [np.shape(leaf) for leaf in leaves]
    if not leaves or any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(
            f"{where} must be arrays with a common leading axis of examples; received shapes "
            f"{shapes[:8] + ['…'] * (len(shapes) > 8)}. A list is a pytree of its elements; convert it to an array "
            "with np.asarray."
        )
    if shapes[0][0] == 0:
        raise ValueError(f"{where} holds no examples; use None for a problem without data.")
    for (path, _), leaf in zip(leaves_with_paths, leaves, strict=True):
        _check_numbers(f"{where}{jax.tree_util.keystr(path)}", leaf)
    converted = any(leaf is not given for leaf, (_, given) in zip(leaves, leaves_with_paths, strict=True))
    return structure.unflatten(leaves) if converted else examples


def as_array(where: str, leaf: Any) -> Any:
    """Return a numeric NumPy or JAX array from an array-like object.

    Raises:
        TypeError: If the object does not hold real numbers in dense form.
        ValueError: If entries are masked.
    """
    home = type(leaf).__module__.partition(".")[0]
    kind: Any = leaf.dtype if isinstance(leaf, jax.Array) else None
    if kind is not None and jnp.issubdtype(kind, jax.dtypes.prng_key):
        raise TypeError(f"{where} must be an array of numbers; received {describe_argument(leaf)}.")
    if hasattr(leaf, "toarray") or hasattr(leaf, "todense"):
        raise TypeError(f"{where} is sparse; received {describe_argument(leaf)}. Make it dense with its toarray().")
    foreign: Any = leaf
    if home == "torch":
        try:
            leaf = np.asarray(foreign.detach().cpu())
        except TypeError as error:  # brain floats and sparse tensors
            raise TypeError(
                f"{where} must be an array of numbers; received a tensor that NumPy cannot convert ({error}). Convert "
                "it with its float() or to_dense()."
            ) from error
    elif home in {"pandas", "polars", "pyarrow"} and hasattr(leaf, "to_numpy"):
        leaf = foreign.to_numpy()
    elif home == "tensorflow" and hasattr(leaf, "numpy"):
        leaf = foreign.numpy()
    if isinstance(leaf, np.ma.MaskedArray):
        if np.ma.is_masked(leaf):
            raise ValueError(
                f"{where} has masked entries. Remove these examples, or fill the entries and pass the loss a mask as "
                "a further array."
            )
        leaf = leaf.data
    leaf = in_double(leaf)
    if isinstance(leaf, bool | int | float | complex | np.generic):
        return np.asarray(leaf)
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or getattr(leaf, "shape", None) is None:
        raise TypeError(
            f"{where} must be an array of numbers; received {describe_argument(leaf)}. Convert it with np.asarray, "
            "and encode text as integers."
        )
    if isinstance(leaf, np.ndarray) and dtype.kind in "OUSMmV" and not jnp.issubdtype(dtype, jnp.number):
        remedy = (
            "Encode text and categories as integers, and times as numbers, column by column. Fill missing values, "
            "then convert mixed and nullable numeric columns with astype(float)."
        )
        raise TypeError(f"{where} must be an array of numbers; received one of {dtype}. {remedy}")
    return leaf


def _check_numbers(where: str, given: Any) -> None:
    if isinstance(given, Tracer) or not isinstance(given, np.ndarray | jax.Array):
        return
    leaf: Any = given
    inexact, on_device = jnp.issubdtype(leaf.dtype, jnp.inexact), isinstance(leaf, jax.Array)
    key = id(leaf), jax.config.read("jax_enable_x64")  # the setting decides the range of the copy on the device
    if key in _sound or (on_device and not (inexact and leaf.is_fully_addressable)):
        return
    if inexact and not (np.isfinite(leaf).all() if np.iscomplexobj(leaf) else is_finite(leaf)):
        raise ValueError(
            f"{where} has NaN or infinity. Remove these examples, or replace the numbers and pass the loss a mask as "
            "a further array."
        )
    if not on_device:
        check_kept(where, leaf)
    if on_device or not leaf.flags.writeable:
        _sound[key] = True
        weakref.finalize(leaf, _sound.pop, key, None)
