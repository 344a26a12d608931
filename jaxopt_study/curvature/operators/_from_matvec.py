"""Operators from a user's function or matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxopt_study._checks import check_callable, check_choice, check_params, describe_argument, in_double
from jaxopt_study._programs import wider
from jaxopt_study.curvature.operators._operator import Loop, Operator
from jaxopt_study.linalg.checks import describe
from jaxopt_study.types import Matvec, Vector


@partial(jax.tree_util.register_dataclass, data_fields=("function",), meta_fields=("leaves", "structure", "loop_kind"))
@dataclass(frozen=True, eq=False, repr=False)
class _FromMatvec(Operator):
    function: Partial
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    structure: Any
    loop_kind: Loop

    @property
    def like(self) -> Any:
        return self.structure.unflatten(self.leaves)

    @property
    def loop(self) -> Loop:
        return self.loop_kind

    @property
    def precision(self) -> str:
        return "the function's own"

    def linearize(self) -> Matvec:
        return self.function


@partial(jax.tree_util.register_dataclass, data_fields=("matrix",), meta_fields=())
@dataclass(frozen=True, eq=False, repr=False)
class _FromMatrix(Operator):
    matrix: Float[Array, "*batch n n"]  # leading axes where operators are stacked

    @property
    def like(self) -> Any:
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)

    def linearize(self) -> Matvec:
        return Partial(_multiply, self.matrix)


def from_matvec(matvec: Callable[[Any], Any], like: Any, *, loop: Loop = "compiled") -> Operator:
    """Make an operator from a function v ↦ H v.

    Linearity and symmetry are not checked here; `audit` checks them. The function sets its own matmul precision.

    Args:
        matvec: A traceable function from vectors to vectors; wrap a NumPy function in `jax.pure_callback`. Arrays in
            its closure become constants of every program; pass large ones as arguments of a `jax.tree_util.Partial`.
        like: A vector of arrays or `jax.ShapeDtypeStruct`s, for structure, shapes and dtypes.
        loop: "compiled" to call the function inside a compiled loop, "host" to call it from a Python loop.

    Returns:
        The operator. Cost of a product: one call.

    Raises:
        ValueError: If `like` has no leaves, the function changes structure, shapes or dtypes, or `loop` is unknown.
        TypeError: If a leaf of `like` is not a real floating array, or JAX cannot trace the function.

    Example:
        >>> op = from_matvec(lambda v: {"x": 2.0 * v["x"]}, {"x": jnp.zeros(3)})
        >>> print((op @ {"x": jnp.ones(3)})["x"])
        [2. 2. 2.]
    """
    check_callable("from_matvec", "matvec", matvec)
    check_choice("from_matvec", "loop", loop, ("compiled", "host"))
    like = jax.tree.map(in_double, like)
    check_params(
        "from_matvec",
        jax.tree.map(lambda leaf: np.zeros((), leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, like),
        name="like",
        finite=False,
    )
    like = describe(jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf), like))
    leaves, structure = jax.tree.flatten(like)
    function = matvec if isinstance(matvec, Partial) else Partial(matvec)
    result = jax.eval_shape(partial(_arrays_from, function), like)
    given, treedef = jax.tree.flatten(result)
    if treedef != structure or any(
        x.shape != y.shape or x.dtype != y.dtype for x, y in zip(leaves, given, strict=True)
    ):
        raise ValueError(
            "matvec must return a vector with the structure, shapes and dtypes of the one it takes, "
            f"{[f'{x.dtype}{list(x.shape)}' for x in leaves]} in {structure}; received "
            f"{[f'{x.dtype}{list(x.shape)}' for x in given]} in {treedef}."
        )
    return _FromMatvec(function, tuple(leaves), structure, loop)


def from_matrix(matrix: ArrayLike) -> Operator:
    """Make an operator from a symmetric matrix; vectors are arrays (n,).

    Args:
        matrix: A, an array (n, n), symmetric up to rounding.

    Returns:
        The operator. Cost of a product: one read of the matrix.

    Raises:
        ValueError: If the matrix is not square, not finite or not symmetric.
        TypeError: If it is not real.

    Example:
        >>> op = from_matrix(jnp.diag(jnp.array([3.0, -1.0])))
        >>> print(op @ jnp.ones(2), (op / 2).to_dense()[0])
        [ 3. -1.] [1.5 0. ]
    """
    given = matrix
    try:
        matrix = jnp.asarray(in_double(given))
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            f"from_matrix needs a square matrix of real numbers; received {describe_argument(given)}."
        ) from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"from_matrix needs a square matrix (n, n) with n ≥ 1; received shape {matrix.shape}.")
    if jnp.iscomplexobj(matrix):
        raise TypeError("from_matrix needs a real matrix; received a complex one.")
    if not jnp.issubdtype(matrix.dtype, jnp.floating):
        matrix = matrix.astype(float)
    if not isinstance(matrix, Tracer):
        host = np.asarray(matrix.astype(wider(matrix.dtype, jnp.float32)))
        if not np.isfinite(host).all():
            raise ValueError("from_matrix needs a finite matrix; received NaN or infinity.")
        largest = np.abs(host).max()
        gap = 2 * np.abs(host / 2 - host.T / 2).max()  # of halves, because a difference of large numbers may overflow
        if gap > np.sqrt(jnp.finfo(matrix.dtype).eps) * largest:
            raise ValueError(
                f"from_matrix needs a symmetric matrix; received one with max |A − Aᵀ| = {gap:.3g} where "
                f"max |A| = {largest:.3g}. Give (A + Aᵀ)/2 for its symmetric part."
            )
    return _FromMatrix(matrix)


def _arrays_from(function: Matvec, v: Vector) -> Vector:
    try:
        image = function(v)
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "from_matvec needs matvec to be a function that JAX can trace, for both kinds of loop; it raises "
            f"{type(error).__name__}, as NumPy and Python's branches do on traced values. Write it in jax.numpy, or "
            "wrap it in jax.pure_callback: lambda v: jax.pure_callback(matvec, v, v)."
        ) from error
    for leaf in jax.tree.leaves(image):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, float | int):
            raise TypeError(f"matvec must return a vector like its argument; received {describe_argument(leaf)}.")
    return image


def _multiply(matrix: Float[Array, "n n"], v: Float[Array, " n"]) -> Float[Array, " n"]:
    return lax.dot(matrix, v, precision=lax.Precision.HIGHEST)
