"""Interface of a symmetric linear operator on pytrees, as solvers use it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, describe_argument
from jaxopt_study._programs import jit_convolutions, jit_solver, wider
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_block, check_vector
from jaxopt_study.linalg.dense import to_dense, to_scipy
from jaxopt_study.types import Matvec, Vector

Loop = Literal["compiled", "host"]


@runtime_checkable
class LinearMap(Protocol):
    """Interface of a linear map on pytrees, symmetric or not: all that a loop of products needs."""

    @property
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector."""
        ...

    @property
    def loop(self) -> Loop:
        """Loop for many products: "compiled" for one compiled loop, "host" for a Python loop."""
        ...

    def linearize(self) -> Matvec:
        """Return v ↦ A v, for use in the same trace."""
        ...

    def product(self) -> Matvec:
        """Return a compiled v ↦ A v, for use from Python."""
        ...


class LinearOperator(ABC):
    """A symmetric linear operator H on vectors that are pytrees, with all that a solver needs."""

    __array_ufunc__ = None  # NumPy then leaves `factor * op` to the operator

    @property
    @abstractmethod
    def like(self) -> Any:
        """Structure, shapes, dtypes and shardings of a vector: a pytree of `jax.ShapeDtypeStruct`."""

    @abstractmethod
    def linearize(self) -> Matvec:
        """Do the work that products share and return v ↦ H v, for use in the same trace."""

    @property
    def loop(self) -> Loop:
        """Loop for many products: "compiled" for one compiled loop, "host" for a Python loop.

        It is "host" for XLA's convolutions on a CPU, which run several times slower inside a compiled loop.
        """
        return "compiled"

    @property
    def precision(self) -> str:
        """Matmul precision of a product: "highest" is full single or double precision everywhere."""
        return "highest"

    @property
    def product_error(self) -> float:
        """Error of a product relative to ‖H‖, beyond rounding."""
        return 0.0

    @property
    def size(self) -> int:
        """Number n of coordinates of a vector."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.like))

    @property
    def dtype(self) -> Any:
        """Dtype that holds every coordinate."""
        return wider(*(leaf.dtype for leaf in jax.tree.leaves(self.like)))

    def matvec(self, v: Vector) -> Vector:
        """Return H v, linearised for this one product; for use inside a trace."""
        return self.linearize()(check_vector(self.like, v))

    def linearize_block(self) -> Matvec:
        """Do the work that products share and return the product with blocks of vectors.

        On a CPU the vectors of a block are multiplied one after another, because `vmap` gains nothing there; on
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
        """Linearise once and return a compiled v ↦ H v, for many calls from Python.

        Returns:
            A function of a vector, which is not checked. The function keeps the residuals of the linearisation on the
            device.
        """
        # A loop in Python, of data in memory, is one around convolutions.
        prepare, apply = _convolutional if self.loop == "host" and not self.is_streamed else _plain
        shared = prepare(self)
        return lambda v: apply(shared, v)

    @property
    def is_semidefinite(self) -> bool:
        """Whether it is known that no eigenvalue is negative."""
        return False

    @property
    def is_linearized(self) -> bool:
        """Whether `linearize` returns a program of `jax.linearize`, in which all constants that are added are 0."""
        return False

    @property
    def is_batched(self) -> bool:
        """Whether a product sums over several batches of data."""
        return False

    @property
    def is_streamed(self) -> bool:
        """Whether a product reads its data from Python, so that no compiled program can hold it."""
        return False

    def mean_over_data(self, function: Callable[[Any], Any]) -> Any:
        """Return a function of this operator that is linear in it, such as a product.

        Args:
            function: Takes operators that compiled programs can hold: this one, or those of its batches.

        Returns:
            The function's value; over streamed data the mean of its values for the batches.
        """
        return function(self)

    def unrepeatable(self) -> str | None:
        """Return how the data differ when they are read again; None if they do not; for `audit`."""
        return None

    def other_batches(self) -> "LinearOperator | None":
        """Return the same operator over the same data in other batches, or None if there are none; for `audit`."""
        return None

    def __matmul__(self, v: Vector) -> Vector:
        v = check_vector(self.like, v)
        return self.product()(v) if self.is_streamed else _matvec(self, v)

    def to_dense(self, *, max_size: int = 5_000) -> Float[Array, "n n"]:
        """Return the n × n matrix; coordinates are in the order of the leaves, each in row-major order."""
        return to_dense(self, max_size=check_integer("to_dense", "max_size", max_size, 0))

    def to_scipy(self) -> Any:
        """Return a `scipy.sparse.linalg.LinearOperator` on ravelled vectors, with one shared linearisation."""
        return to_scipy(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}(size={self.size}, dtype={self.dtype}, precision={self.precision!r})"


@jit_solver
def _matvec(op: LinearOperator, v: Vector) -> Vector:
    return op.matvec(v)


@jit_solver
def _matmat(op: LinearOperator, block: Vector) -> Vector:
    return op.linearize_block()(block)


def _prepare(op: LinearOperator) -> Matvec:
    return op.linearize()


def _apply(product: Matvec, v: Vector) -> Vector:
    return product(v)


_plain = jax.jit(_prepare), jax.jit(_apply)
_convolutional = jit_convolutions(_prepare), jit_convolutions(_apply)


def _length(block: Vector) -> int:
    return jax.tree.leaves(block)[0].shape[0]


def check_operator(name: str, op: Any) -> Any:
    """Return an operator; raise for anything else.

    Args:
        name: The function that was called, for the message.
        op: An operator.

    Returns:
        The operator.

    Raises:
        TypeError: If the argument is a matrix, a function or anything else.
        ValueError: If the operator's vectors have no coordinates.
    """
    if not isinstance(op, LinearOperator):
        raise TypeError(
            f"{name} needs an operator; received {describe_argument(op)}. Make one with from_matrix(matrix), "
            "from_matvec(function, like) or hessian(loss, params, data)."
        )
    if op.size == 0:
        raise ValueError(
            f"{name} needs an operator of size n ≥ 1; received one whose leaves are all empty. Give "
            "parameters with at least one number."
        )
    return op
