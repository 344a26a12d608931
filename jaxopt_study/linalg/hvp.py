"""Hessian-vector product (HVP) by `linearized_gradient`, Jacobian-vector product by `linearized`.

`single_product` is one HVP with no more stored than a gradient stores, twice. All take functions that have only a
reverse rule (`jax.custom_vjp`).
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxpr_as_fun
from jax.tree_util import Partial

from jaxopt_study._programs import contains
from jaxopt_study.types import Matvec


def linearized(function: Callable[[Any], Any], point: Any) -> tuple[Any, Matvec]:
    """Return a function's value and v ↦ J v, for use in the same trace.

    A function with `jax.custom_vjp` has no forward derivative. The map u ↦ Jᵀu is linear, so its reverse pass is J.

    Args:
        function: From one pytree of floating arrays to another.
        point: Point of linearisation.

    Returns:
        The value, and the product with the Jacobian. Cost: with `jax.custom_vjp` up to twice the memory and time.

    Example:
        >>> value, product = linearized(lambda x: x**2, 3.0)
        >>> print(value, product(1.0))
        9.0 6.0
    """
    value, product = jax.linearize(function, point)
    if not _needs_transposition(product, point):
        return value, product
    value, back = jax.vjp(function, point)
    zeros = jax.tree.map(lambda x: x * 0, value)
    return value, Partial(_first, jax.vjp(lambda u: back(u)[0], zeros)[1])


def linearized_gradient(function: Callable[[Any], Any], point: Any) -> tuple[Any, Matvec]:
    """Return a function's gradient and the product with its Hessian, for use in the same trace.

    Like `linearized` of the gradient; since a Hessian is symmetric, one reverse pass over the gradient suffices.

    Args:
        function: From a pytree of floating arrays to a scalar.
        point: Point of linearisation.

    Returns:
        The gradient, and v ↦ H v.
    """
    gradient = jax.grad(function)
    value, product = jax.linearize(gradient, point)
    if not _needs_transposition(product, point):
        return value, product
    return gradient_and_back(function, point)


def single_product(function: Callable[[Any], Any], point: Any, v: Any) -> Any:
    """Return H v by one forward pass over the gradient.

    A linearisation stores the intermediate values of the whole gradient, also those that `jax.checkpoint` computes
    again; a forward pass stores values and tangents where the gradient stores values.

    Args:
        function: From a pytree of floating arrays to a scalar.
        point: Point of differentiation.
        v: Like the point.

    Returns:
        H v. Cost: twice the operations and the memory of the gradient.
    """
    program, shape = jax.make_jaxpr(lambda x, u: jax.jvp(jax.grad(function), (x,), (u,))[1], return_shape=True)(
        point, v
    )
    if contains(program, "custom_lin"):
        return gradient_and_back(function, point)[1](v)
    results = jaxpr_as_fun(program)(*jax.tree.leaves((point, v)))
    return jax.tree.unflatten(jax.tree.structure(shape), results)


def gradient_and_back(function: Callable[[Any], Any], point: Any) -> tuple[Any, Matvec]:
    """Return a function's gradient and the product with its Hessian, by a reverse pass over the gradient.

    Args:
        function: From a pytree of floating arrays to a scalar.
        point: Point of differentiation.

    Returns:
        The gradient, and v ↦ H v. No forward derivative is needed.
    """
    value, back = jax.vjp(jax.grad(function), point)
    return value, Partial(_first, back)


def _needs_transposition(product: Matvec, point: Any) -> bool:
    # JAX puts `custom_lin` in place of a missing forward derivative, and raises when it is compiled.
    return contains(jax.make_jaxpr(product)(point), "custom_lin")


def _first(back: Any, u: Any) -> Any:
    return back(u)[0]
