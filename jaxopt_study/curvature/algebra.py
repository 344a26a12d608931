"""Operators made of other operators; what their methods promise is written at `Operator`."""

# ruff: noqa: D102

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from jaxopt_study.curvature import vectors
from jaxopt_study.curvature.operator import Loop, Operator
from jaxopt_study.curvature.selection import merge, split
from jaxopt_study.types import Matvec, Params, Vector


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

    def linearize(self) -> Matvec:
        return Partial(_sum_product, tuple(part.linearize() for part in self.parts))

    def product(self) -> Matvec:
        products = tuple(part.product() for part in self.parts)
        return lambda v: _add([product(v) for product in products])

    @property
    def is_batched(self) -> bool:
        return any(part.is_batched for part in self.parts)

    def other_batches(self) -> Operator | None:
        others = tuple(part.other_batches() for part in self.parts)
        if all(other is None for other in others):
            return None
        return Sum(tuple(other or part for other, part in zip(others, self.parts, strict=True)))

    def _restrict(self, chosen: tuple[bool, ...]) -> Operator:
        return Sum(tuple(part._restrict(chosen) for part in self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class Wrapped(Operator):
    """What is common to the operators made of one other."""

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

    def product(self) -> Matvec:
        product = self.inner.product()
        return lambda v: self._around(product, v)

    def linearize(self) -> Matvec:
        return Partial(type(self)._around, self, self.inner.linearize())

    @property
    def is_batched(self) -> bool:
        return self.inner.is_batched

    def other_batches(self) -> Operator | None:
        other = self.inner.other_batches()
        return None if other is None else replace(self, inner=other)

    @abstractmethod
    def _around(self, product: Matvec, v: Vector) -> Vector:
        """Return what the operator makes of the other one's product."""


@_register("inner", "factor")
@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Wrapped):
    """An operator times a number."""

    factor: Array

    def _around(self, product: Matvec, v: Vector) -> Vector:
        return vectors.scale(self.factor, product(v))

    def _restrict(self, chosen: tuple[bool, ...]) -> Operator:
        return Scaled(self.inner._restrict(chosen), self.factor)


@_register("inner", "preconditioner")
@dataclass(frozen=True, eq=False, repr=False)
class Preconditioned(Wrapped):
    """P^-½ H P^-½ for a positive diagonal P."""

    preconditioner: Params

    def _around(self, product: Matvec, v: Vector) -> Vector:
        def divide(x: Array, p: Array) -> Array:
            return (x / jnp.sqrt(p)).astype(x.dtype)

        u = product(jax.tree.map(divide, v, self.preconditioner))
        return jax.tree.map(divide, u, self.preconditioner)

    def _restrict(self, chosen: tuple[bool, ...]) -> Operator:
        return Preconditioned(self.inner._restrict(chosen), split(self.preconditioner, chosen)[0])


@_register("inner", static=("chosen",))
@dataclass(frozen=True, eq=False, repr=False)
class Restricted(Wrapped):
    """Sᵀ H S, where S puts zeros in the place of the leaves that were not chosen."""

    chosen: tuple[bool, ...]

    @property
    def like(self) -> Any:
        return split(self.inner.like, self.chosen)[0]

    def _around(self, product: Matvec, v: Vector) -> Vector:
        rest = split(vectors.zeros_like(self.inner.like), self.chosen)[1]
        return split(product(merge(self.inner.like, self.chosen, v, rest)), self.chosen)[0]

    def _restrict(self, chosen: tuple[bool, ...]) -> Operator:
        remaining = iter(chosen)
        return Restricted(self.inner, tuple(was and next(remaining) for was in self.chosen))


def _sum_product(products: tuple[Matvec, ...], v: Vector) -> Vector:
    return _add([product(v) for product in products])


def _add(terms: list[Vector]) -> Vector:
    return jax.tree.map(lambda first, *rest: sum(rest, first), *terms)


def _lowest(*precisions: str) -> str:
    return next((precision for precision in precisions if precision != "highest"), "highest")
