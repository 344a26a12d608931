"""Operators for the world outside: a matrix, and SciPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._programs import wider
from jaxopt_study.linalg import vectors
from jaxopt_study.types import Vector


def to_dense(op: Any, *, max_size: int = 5_000) -> Float[Array, "n n"]:
    """Return the matrix of an operator, column by column the products with the unit vectors.

    Coordinates run through the leaves in the order of `jax.tree.leaves`, each leaf row by row, as in
    `jax.flatten_util.ravel_pytree`. The matrix is not symmetrised: its asymmetry shows the rounding errors.

    Args:
        op: The operator.
        max_size: The largest n for which the matrix is made.

    Returns:
        An array (n, n). Cost: n products; 3 n² numbers of memory.

    Raises:
        ValueError: If n exceeds `max_size`.
    """
    if op.size > max_size:
        itemsize = np.dtype(op.dtype).itemsize
        raise ValueError(
            f"to_dense makes matrices of at most max_size = {max_size} rows; this operator has {op.size:,}, "
            f"{op.size**2 * itemsize / 1e9:.3g} GB. Raise max_size if that is meant, or use a method that needs only "
            "products."
        )
    basis = unravel(op.like, jnp.eye(op.size, dtype=op.dtype))
    return ravel(op.matmat(basis), leading=1).T


def to_scipy(op: Any) -> Any:
    """Wrap an operator for SciPy's iterative solvers.

    Vectors are NumPy arrays (n,), coordinates as in `to_dense`. The linearisation is done once, here, and kept.

    Args:
        op: The operator.

    Returns:
        A `scipy.sparse.linalg.LinearOperator` of shape (n, n), its own adjoint. Cost: per product, one product and two
        copies of a vector between host and device.
    """
    from scipy.sparse.linalg import LinearOperator  # slow to import, and rarely needed

    product = op.product()
    like, dtype, n = op.like, op.dtype, op.size

    def matvec(x: Any) -> Any:
        return np.asarray(ravel(product(unravel(like, jnp.asarray(np.reshape(x, n), dtype=dtype)))))

    make: Any = LinearOperator  # its signature is that of the subclass it chooses
    return make((n, n), matvec=matvec, rmatvec=matvec, dtype=np.dtype(dtype))


def ravel(v: Vector, *, leading: int = 0) -> Float[Array, "*leading n"]:
    """Return the coordinates of a vector as one array, leaf after leaf, row by row; leading axes are kept."""
    leaves = jax.tree.leaves(v)
    dtype = wider(*(leaf.dtype for leaf in leaves))
    return jnp.concatenate(
        [jnp.reshape(vectors.gathered(leaf), (*leaf.shape[:leading], -1)).astype(dtype) for leaf in leaves], axis=-1
    )


def unravel(like: Any, x: Float[Array, "*leading n"]) -> Vector:
    """Return the vector, or block of vectors, of which the last axis of x holds the coordinates."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])
    parts = jnp.split(x, ends[:-1], axis=-1)
    return structure.unflatten(
        [
            vectors.placed(jnp.reshape(part, (*x.shape[:-1], *leaf.shape)).astype(leaf.dtype), leaf)
            for part, leaf in zip(parts, leaves, strict=True)
        ]
    )
