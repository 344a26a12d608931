"""Records of a run that ended early: blank where nothing was recorded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def only_recorded(record: Any, valid: Any) -> Any:
    """Return a record, blank where it is not valid: NaN, or 0 where NaN cannot be.

    Args:
        record: A pytree of arrays of shape (count, …).
        valid: Shape (count,).

    Returns:
        NumPy arrays for NumPy arrays, written outside compiled programs: `jax_debug_nans` does not see them.
    """

    def kept(x: Any) -> Any:
        xp = np if isinstance(x, np.ndarray) and isinstance(valid, np.ndarray) else jnp
        if xp is np and valid.all():
            return x
        at = valid.reshape(-1, *(1,) * (x.ndim - 1))
        return xp.where(at, x, np.asarray(blank(x.dtype)))

    return jax.tree.map(kept, record)


def missing(like: np.ndarray, count: int) -> np.ndarray:
    """Return so many blank entries of a record."""
    return np.full((count, *like.shape[1:]), blank(like.dtype), like.dtype)


def blank(dtype: Any) -> Any:
    """Return the scalar that stands for "no record" among values of a kind."""
    return np.asarray(np.nan if jnp.issubdtype(dtype, jnp.inexact) else 0).astype(dtype)[()]
