"""Blank entries in the records of a run that ended early."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree, Shaped


def only_recorded(record: PyTree, valid: Bool[Array, " count"] | Bool[np.ndarray, " count"]) -> PyTree:
    """Return a record with invalid entries blank: NaN, or 0 for integers.

    Args:
        record: A pytree of arrays of shape (count, …).
        valid: Shape (count,).

    Returns:
        The record; NumPy arrays stay NumPy arrays, and are written outside compiled programs, so that `jax_debug_nans`
        does not see the NaN.
    """

    def kept(x: Any) -> Any:
        xp = np if isinstance(x, np.ndarray) and isinstance(valid, np.ndarray) else jnp
        if xp is np and valid.all():
            return x
        at = valid.reshape(-1, *(1,) * (x.ndim - 1))
        return xp.where(at, x, np.asarray(blank(x.dtype)))

    return jax.tree.map(kept, record)


def missing(like: Shaped[np.ndarray, "records ..."], count: int) -> Shaped[np.ndarray, "count ..."]:
    """Return a record with the given number of blank entries."""
    return np.full((count, *like.shape[1:]), blank(like.dtype), like.dtype)


def blank(dtype: Any) -> Any:
    """Return the scalar that means "no record" for values of a dtype."""
    return np.asarray(np.nan if jnp.issubdtype(dtype, jnp.inexact) else 0).astype(dtype)[()]
