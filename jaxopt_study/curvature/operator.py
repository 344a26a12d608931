"""A symmetric linear operator on pytrees."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array

from jaxopt_study.checks import check_integer, check_real, is_real_scalar
from jaxopt_study.curvature import vectors
from jaxopt_study.curvature.checks import check_block, check_positive, check_same_space, check_vector
from jaxopt_study.curvature.export import to_dense, to_scipy
from jaxopt_study.curvature.selection import Selection, select
from jaxopt_study.programs import jit_solver, wider
from jaxopt_study.types import Matvec, Params, Vector

Loop = Literal["compiled", "host"]


class Operator(ABC):
    """A symmetric linear operator H on vectors that are pytrees.

    Every operator is itself a JAX pytree: what is numeric in it (parameters, data, factors) are leaves, what is not
    (functions, sizes) is static. So an operator can be an argument of a compiled function, and the function is not
    compiled again for other parameters of the same shapes.

    Inside a compiled function call `linearize` once, outside of the loop, and apply what it returns. From Python,
    `op @ v` is one product, and `product` returns a function for many. Symmetry is believed, not checked: `audit` is
    for that.
    """

    __array_ufunc__ = None  # so that NumPy leaves `factor * op` to the operator

    @property
    @abstractmethod
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector: a pytree of `jax.ShapeDtypeStruct`."""

    @abstractmethod
    def linearize(self) -> Matvec:
        """Do the work that many products share, and return v ↦ H v, to be used in the same trace."""

    @property
    def loop(self) -> Loop:
        """Whether many products belong into one compiled loop, or are better called one by one from Python.

        It is "host" where XLA's own convolutions on a CPU make a loop inside a program several times slower.
        """
        return "compiled"

    @property
    def precision(self) -> str:
        """Precision of the matrix products inside: "highest" is full single or double precision everywhere."""
        return "highest"

    @property
    def size(self) -> int:
        """Number n of coordinates of a vector."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.like))

    @property
    def dtype(self) -> Any:
        """The dtype that holds every coordinate."""
        return wider(*(leaf.dtype for leaf in jax.tree.leaves(self.like)))

    def matvec(self, v: Vector) -> Vector:
        """Return H v, linearised for this one product; to be used inside a trace."""
        return self.linearize()(check_vector(self.like, v))

    def linearize_block(self) -> Matvec:
        """Do the work that many products share, for blocks of vectors.

        On a CPU the vectors of a block are multiplied one after the other, because `vmap` gains nothing there; on
        accelerators all at once, with b times the memory of one product.

        Returns:
            The product with a block: a pytree like a vector, each leaf with one more leading axis. For the same trace.
        """
        product = self.linearize()
        if self.loop == "host":
            return lambda block: vectors.stack(
                [product(jax.tree.map(lambda leaf, i=i: leaf[i], block)) for i in range(_length(block))]
            )
        if jax.default_backend() == "cpu":
            return lambda block: lax.map(product, block)
        return jax.vmap(product)

    def matmat(self, block: Vector) -> Vector:
        """Return H applied to each of a block of vectors.

        Args:
            block: A pytree like a vector, each leaf with one more leading axis of length b.

        Returns:
            The products, in the same form. Cost: one linearisation and b products.

        Raises:
            ValueError: If the block does not fit the operator.
        """
        block = check_block(self.like, block)
        return (
            _matmat(self, block)
            if self.loop == "compiled"
            else vectors.stack(list(map(self.product(), (vectors.row(block, i) for i in range(_length(block))))))
        )

    def product(self) -> Matvec:
        """Linearise once and return a compiled v ↦ H v, to be called from Python as often as wanted.

        Returns:
            A function of a vector, unchecked. It keeps the residuals of the linearisation on the device as long as it
            lives.
        """
        shared = _prepare(self)
        return lambda v: _apply(shared, v)

    @property
    def is_batched(self) -> bool:
        """Whether a product is summed over several batches of data."""
        return False

    def other_batches(self) -> "Operator | None":
        """Return the same operator over the same data in other batches, or None if there are none; for `audit`."""
        return None

    def __matmul__(self, v: Vector) -> Vector:
        return _matvec(self, check_vector(self.like, v))

    def __add__(self, other: "Operator") -> "Operator":
        if not isinstance(other, Operator):
            return NotImplemented
        check_same_space(self.like, other.like)
        from jaxopt_study.curvature.algebra import Sum  # it is made of operators, so it must be imported after them

        return Sum((self, other))

    def __sub__(self, other: "Operator") -> "Operator":
        if not isinstance(other, Operator):
            return NotImplemented
        return self + (-1.0) * other

    def __mul__(self, factor: Any) -> "Operator":
        if not is_real_scalar(factor):
            return NotImplemented
        from jaxopt_study.curvature.algebra import Scaled

        dtype = vectors.accumulator(self.dtype)
        most = float(jnp.finfo(dtype).max)
        return Scaled(
            self, jnp.asarray(check_real("A multiple of an operator", "the factor", factor, -most, most), dtype)
        )

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        return self * -1.0

    def __truediv__(self, factor: Any) -> "Operator":
        if not is_real_scalar(factor):
            return NotImplemented
        if not isinstance(factor, Tracer) and float(factor) == 0:
            raise ValueError("An operator divided by a number needs one that is not 0.")
        return self * (1.0 / factor)

    def restrict(self, selection: Selection) -> "Operator":
        """Return the diagonal block Sᵀ H S that belongs to some of the leaves.

        A vector of the restricted operator is a vector of H with `None` in the place of every leaf that was not chosen.

        Args:
            selection: A function of the path of a leaf, such as `lambda path: path.startswith("layer_0/")`, or a
                pytree of bools, which may be a prefix of the parameters.

        Returns:
            The block. Derivatives with respect to the other leaves are not taken where the operator knows its loss.

        Raises:
            ValueError: If nothing is chosen.
            TypeError: If the selection is neither a function nor a tree of bools.

        Example:
            >>> from jaxopt_study.curvature import hessian
            >>> params = {"a": jnp.ones(2), "b": jnp.ones(3)}
            >>> op = hessian(lambda p, _: jnp.sum(p["a"]) ** 2 + jnp.sum(p["b"] ** 3), params)
            >>> print(op.restrict(lambda path: path == "a").to_dense())
            [[2. 2.]
             [2. 2.]]
        """
        return self._restrict(select(self.like, selection))

    def _restrict(self, chosen: tuple[bool, ...]) -> "Operator":
        from jaxopt_study.curvature.algebra import Restricted

        return Restricted(self, chosen)

    def precondition(self, preconditioner: Params) -> "Operator":
        """Return P^-½ H P^-½ for a positive diagonal P, which has the eigenvalues of P⁻¹ H and stays symmetric.

        Args:
            preconditioner: P, a pytree like the parameters, of positive numbers; leaves may be scalars.

        Returns:
            The operator. An eigenvector v of it belongs to the eigenvector P^-½ v of P⁻¹ H.

        Raises:
            ValueError: If the structure is another one, or an entry is not positive.
        """
        preconditioner = check_positive(self.like, preconditioner)
        from jaxopt_study.curvature.algebra import Preconditioned

        return Preconditioned(self, preconditioner)

    def to_dense(self, *, max_size: int = 5_000) -> Array:
        """Return the n × n matrix; coordinates in the order of the leaves, each row by row."""
        return to_dense(self, max_size=check_integer("to_dense", "max_size", max_size, 0))

    def to_scipy(self) -> Any:
        """Return a `scipy.sparse.linalg.LinearOperator` on ravelled vectors, with one shared linearisation."""
        return to_scipy(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}(size={self.size}, dtype={self.dtype}, precision={self.precision!r})"


@jit_solver
def _matvec(op: Operator, v: Vector) -> Vector:
    return op.matvec(v)


@jit_solver
def _matmat(op: Operator, block: Vector) -> Vector:
    return op.linearize_block()(block)


_prepare = jax.jit(lambda op: op.linearize())
_apply = jax.jit(lambda product, v: product(v))


def _length(block: Vector) -> int:
    return jax.tree.leaves(block)[0].shape[0]
