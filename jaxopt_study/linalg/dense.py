"""Dense matrices and SciPy operators of an operator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._programs import wider
from jaxopt_study.linalg.sharding import replicate, shard_like
from jaxopt_study.types import Vector


def to_dense(op: Any, *, max_size: int = 5_000) -> Float[Array, "n n"]:
    """Return the matrix of an operator, from products with all unit vectors.

    Coordinates are in the order of `jax.flatten_util.ravel_pytree`: leaf after leaf, each in row-major order. The
    matrix is not symmetrised: its asymmetry shows the rounding errors.

    Args:
        op: The operator.
        max_size: Largest n allowed.

    Returns:
        An array (n, n). Cost: n products; 3 n² numbers of memory.

    Raises:
        ValueError: If n exceeds `max_size`.
    """
    if op.size > max_size:
        itemsize = np.dtype(op.dtype).itemsize
        raise ValueError(
            f"to_dense needs an operator of at most max_size = {max_size} coordinates; received one of {op.size:,}, a "
            f"matrix of {op.size**2 * itemsize / 1e9:.3g} GB. Increase max_size, or use a method that takes "
            "products only."
        )
    basis = unravel(op.like, jnp.eye(op.size, dtype=op.dtype))
    return ravel(op.matmat(basis), leading=1).T


def to_scipy(op: Any) -> Any:
    """Wrap an operator for SciPy's iterative solvers.

    Vectors are NumPy arrays (n,), coordinates as in `to_dense`. The operator is linearised once, by this call.

    Args:
        op: The operator.

    Returns:
        A `scipy.sparse.linalg.LinearOperator` of shape (n, n), its own adjoint. Cost: per product, one product and two
        copies of a vector between host and device.
    """
    from scipy.sparse.linalg import LinearOperator  # slow to import, and rarely needed

    product = op.product()
    like, dtype, n = op.like, op.dtype, op.size

    def matvec(x: Any) -> np.ndarray:
        return np.asarray(ravel(product(unravel(like, jnp.asarray(np.reshape(x, n), dtype=dtype)))))

    make: Any = LinearOperator  # its signature is that of the subclass it chooses
    return make((n, n), matvec=matvec, rmatvec=matvec, dtype=np.dtype(dtype))


def ravel(v: Vector, *, leading: int = 0) -> Float[Array, "*leading n"]:
    """Return the coordinates of a vector as one array, in the order of `to_dense`; leading axes are kept."""
    leaves = jax.tree.leaves(v)
    dtype = wider(*(leaf.dtype for leaf in leaves))
    return jnp.concatenate(
        [jnp.reshape(replicate(leaf), (*leaf.shape[:leading], -1)).astype(dtype) for leaf in leaves], axis=-1
    )


def unravel(structure: Any, x: Float[Array, "*leading n"]) -> Vector:
    """Return the vector, or block of vectors, whose coordinates are along the last axis of x."""
    leaves, treedef = jax.tree.flatten(structure)
    ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])
    parts = jnp.split(x, ends[:-1], axis=-1)
    return treedef.unflatten(
        [
            shard_like(jnp.reshape(part, (*x.shape[:-1], *leaf.shape)).astype(leaf.dtype), leaf)
            for part, leaf in zip(parts, leaves, strict=True)
        ]
    )
