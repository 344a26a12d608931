"""Operators and their algebra: sums, multiples, diagonal blocks and preconditioning."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import Partial
from jaxtyping import Array, Float, Num

from jaxopt_study._checks import check_real, is_real_scalar
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_positive, check_same_space
from jaxopt_study.linalg.operator import LinearOperator, Loop
from jaxopt_study.linalg.partition import Selection, combine, partition, select
from jaxopt_study.types import Matvec, Params, Vector


class Operator(LinearOperator):
    """A symmetric linear operator H on vectors that are pytrees.

    Every operator is a JAX pytree: parameters, data and factors are leaves, functions and sizes are static. An operator
    can therefore be an argument of a compiled function, which is not compiled again for parameters of the same shapes.

    Inside a compiled function call `linearize` once, outside of the loop, and apply its result. From Python, `op @ v`
    is one product, and `product` returns a function for many. Symmetry is assumed; `audit` checks it. Operators can be
    added, scaled, restricted to some leaves and preconditioned.
    """

    def other_batches(self) -> "Operator | None":
        """Return the same operator over the same data in other batches, or None if there are none; for `audit`."""
        return None

    def __add__(self, other: "Operator") -> "Operator":
        if not isinstance(other, Operator):
            return NotImplemented
        check_same_space(self.like, other.like)
        return Sum((self, other))

    def __sub__(self, other: "Operator") -> "Operator":
        if not isinstance(other, Operator):
            return NotImplemented
        return self + (-1.0) * other

    def __mul__(self, factor: Any) -> "Operator":
        if not is_real_scalar(factor):
            return NotImplemented
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
            raise ValueError("An operator must be divided by a nonzero number; received 0.")
        return self * (1.0 / factor)

    def restrict(self, selection: Selection) -> "Operator":
        """Return the diagonal block Sᵀ H S of the selected leaves.

        A vector of the restricted operator is a vector of H with `None` in place of every other leaf.

        Args:
            selection: A function of the path of a leaf, such as `lambda path: path.startswith("layer_0/")`, or a
                pytree of bools, which may be a prefix of the parameters.

        Returns:
            The block. An operator of a loss takes no derivatives with respect to the other leaves.

        Raises:
            ValueError: If no leaf is selected.
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

    def _restrict(self, mask: tuple[bool, ...]) -> "Operator":
        return Restricted(self, mask)

    def precondition(self, preconditioner: Params) -> "Operator":
        """Return P^-½ H P^-½ for a positive diagonal P, a symmetric operator with the eigenvalues of P⁻¹ H.

        Args:
            preconditioner: P, a pytree like the parameters, of positive numbers; leaves may be scalars.

        Returns:
            The operator. Its eigenvector v corresponds to the eigenvector P^-½ v of P⁻¹ H.

        Raises:
            ValueError: If the structure differs, or an entry is not positive.
        """
        preconditioner = check_positive(self.like, preconditioner)
        return Preconditioned(self, preconditioner)


def _register(*numeric: str, static: tuple[str, ...] = ()) -> Callable[[type], type]:
    return lambda cls: jax.tree_util.register_dataclass(cls, data_fields=numeric, meta_fields=static)


@_register("parts")
@dataclass(frozen=True, eq=False, repr=False)
class Sum(Operator):
    """The sum of operators on the same vectors."""

    parts: tuple[Operator, ...]

    @property
    def like(self) -> Any:
        return self.parts[0].like

    @property
    def loop(self) -> Loop:
        return "host" if any(part.loop == "host" for part in self.parts) else "compiled"

    @property
    def precision(self) -> str:
        return _lowest(*(part.precision for part in self.parts))

    @property
    def product_error(self) -> float:
        return max(part.product_error for part in self.parts)

    def linearize(self) -> Matvec:
        return Partial(_sum_product, tuple(part.linearize() for part in self.parts))

    def product(self) -> Matvec:
        products = tuple(part.product() for part in self.parts)
        return lambda v: _add([product(v) for product in products])

    @property
    def is_semidefinite(self) -> bool:
        return all(part.is_semidefinite for part in self.parts)

    @property
    def is_batched(self) -> bool:
        return any(part.is_batched for part in self.parts)

    @property
    def is_streamed(self) -> bool:
        return any(part.is_streamed for part in self.parts)

    def mean_over_data(self, function: Callable[[Any], Any]) -> Any:
        return _add([part.mean_over_data(function) for part in self.parts]) if self.is_streamed else function(self)

    def unrepeatable(self) -> str | None:
        return next((told for part in self.parts if (told := part.unrepeatable())), None)

    def other_batches(self) -> Operator | None:
        others = tuple(part.other_batches() for part in self.parts)
        if all(other is None for other in others):
            return None
        return Sum(tuple(other or part for other, part in zip(others, self.parts, strict=True)))

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        return Sum(tuple(part._restrict(mask) for part in self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class Wrapped(Operator):
    """Base of the operators made from one other operator."""

    inner: Operator

    @property
    def like(self) -> Any:
        return self.inner.like

    @property
    def loop(self) -> Loop:
        return self.inner.loop

    @property
    def precision(self) -> str:
        return self.inner.precision

    @property
    def product_error(self) -> float:
        return self.inner.product_error

    def product(self) -> Matvec:
        product = self.inner.product()
        return lambda v: self._around(product, v)

    def linearize(self) -> Matvec:
        return Partial(type(self)._around, self, self.inner.linearize())

    @property
    def is_semidefinite(self) -> bool:
        return self.inner.is_semidefinite

    @property
    def is_linearized(self) -> bool:
        return self.inner.is_linearized

    @property
    def is_batched(self) -> bool:
        return self.inner.is_batched

    @property
    def is_streamed(self) -> bool:
        return self.inner.is_streamed

    def mean_over_data(self, function: Callable[[Any], Any]) -> Any:
        return self.inner.mean_over_data(lambda inner: function(replace(self, inner=inner)))

    def unrepeatable(self) -> str | None:
        return self.inner.unrepeatable()

    def other_batches(self) -> Operator | None:
        other = self.inner.other_batches()
        return None if other is None else replace(self, inner=other)

    @abstractmethod
    def _around(self, product: Matvec, v: Vector) -> Vector:
        """Return the product of this operator, from that of the inner one."""


@_register("inner", "factor")
@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Wrapped):
    """An operator times a number."""

    factor: Float[Array, "*batch"]  # leading axes where operators are stacked

    @property
    def is_semidefinite(self) -> bool:
        return False  # the sign of the factor may be traced

    def _around(self, product: Matvec, v: Vector) -> Vector:
        return vectors.scale(self.factor, product(v))

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        return Scaled(self.inner._restrict(mask), self.factor)


@_register("inner", "preconditioner")
@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Wrapped):
    """P^-½ H P^-½ for a positive diagonal P."""

    preconditioner: Params

    def _around(self, product: Matvec, v: Vector) -> Vector:
        return _over_root(product(_over_root(v, self.preconditioner)), self.preconditioner)

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        return Preconditioned(self.inner._restrict(mask), partition(self.preconditioner, mask)[0])


@_register("inner", static=("mask",))
@dataclass(frozen=True, eq=False, repr=False)
class Restricted(Wrapped):
    """Sᵀ H S, where S inserts zeros for the leaves outside of the mask."""

    mask: tuple[bool, ...]

    @property
    def like(self) -> Any:
        return partition(self.inner.like, self.mask)[0]

    def _around(self, product: Matvec, v: Vector) -> Vector:
        rest = partition(vectors.zeros_like(self.inner.like), self.mask)[1]
        return partition(product(combine(self.inner.like, self.mask, v, rest)), self.mask)[0]

    def _restrict(self, mask: tuple[bool, ...]) -> Operator:
        remaining = iter(mask)
        return Restricted(self.inner, tuple(was and next(remaining) for was in self.mask))


@jax.jit
def _over_root(v: Vector, preconditioner: Params) -> Vector:
    """Return P^-½ v."""

    def divide(x: Float[Array, "*shape"], p: Num[Array, "..."]) -> Float[Array, "*shape"]:
        wide, root = vectors.promoted(x, jnp.sqrt(p))
        return (wide / root).astype(x.dtype)

    return jax.tree.map(divide, v, preconditioner)


def _sum_product(products: tuple[Matvec, ...], v: Vector) -> Vector:
    return _add([product(v) for product in products])


def _add(terms: list[Vector]) -> Vector:
    return jax.tree.map(lambda first, *rest: sum(rest, first), *terms)


def _lowest(*precisions: str) -> str:
    return next((precision for precision in precisions if precision != "highest"), "highest")
