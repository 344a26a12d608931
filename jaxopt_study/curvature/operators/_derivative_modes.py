"""Modes of differentiation of a Hessian-vector product."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxopt_study._programs import contains
from jaxopt_study.curvature.operators._empirical_risk import BatchOperator, EmpiricalRiskOperator
from jaxopt_study.curvature.operators._finite_difference import usual_step, with_measured_step
from jaxopt_study.curvature.operators._function_checks import check_scalar
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.hvp import gradient_and_back, linearized_gradient, single_product
from jaxopt_study.types import Batch, Matvec, Params, Vector

Mode = Literal["auto", "forward_over_reverse", "reverse_over_reverse", "finite_difference"]


@dataclass(frozen=True)
class Hessian(BatchOperator):
    """The Hessian of a loss over one batch, by the first mode that the loss allows."""

    name: ClassVar[str] = "hessian"
    loss: Callable[..., Any]

    @property
    def forward(self) -> Callable[..., Any]:
        """The loss itself."""
        return self.loss

    def check(self, result: Any) -> None:
        """Raise unless the result is a real scalar."""
        check_scalar(self.name, "loss", result)

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        """Return the linearised gradient."""
        return linearized_gradient(lambda p: self.loss(combined(p), batch), params)[1]

    def once(self, combined: Callable[[Params], Params], params: Params, batch: Batch, v: Vector) -> Vector:
        """Return H v by one forward pass over the gradient."""
        return single_product(lambda p: self.loss(combined(p), batch), params, v)

    def settled(self, op: EmpiricalRiskOperator, program: Any) -> EmpiricalRiskOperator:
        """Return the operator in a mode that the loss allows."""
        if not any(contains(program, name) for name in _OPAQUE) or (why := _why_not(op)) is None:
            return op
        return _by_finite_differences(op, program, why)


@dataclass(frozen=True)
class _ForwardOverReverse(Hessian):
    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        return jax.linearize(jax.grad(lambda p: self.loss(combined(p), batch)), params)[1]

    def once(self, combined: Callable[[Params], Params], params: Params, batch: Batch, v: Vector) -> Vector:
        return jax.jvp(jax.grad(lambda p: self.loss(combined(p), batch)), (params,), (v,))[1]

    def settled(self, op: EmpiricalRiskOperator, program: Any) -> EmpiricalRiskOperator:
        return _or_raise(op, program)


@dataclass(frozen=True)
class _ReverseOverReverse(Hessian):
    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        return gradient_and_back(lambda p: self.loss(combined(p), batch), params)[1]

    def once(self, combined: Callable[[Params], Params], params: Params, batch: Batch, v: Vector) -> Vector:
        return self(combined, params, batch)(v)

    def settled(self, op: EmpiricalRiskOperator, program: Any) -> EmpiricalRiskOperator:
        return _or_raise(op, program)


@dataclass(frozen=True)
class FiniteDifferences(Hessian):
    """The Hessian of a loss over one batch, from gradients at two points.

    With the unit vector u = v/‖v‖ and the step h:

        H v ≈ ‖v‖ (∇L(θ + h u) − ∇L(θ − h u)) / 2h

    Attributes:
        step: h, a power of two; None for ε^⅓ ‖θ‖, where parameters are traced.
        error: Error of a product relative to ‖H‖, a power of two.
    """

    step: float | None = None
    error: float = 0.0

    def __call__(self, combined: Callable[[Params], Params], params: Params, batch: Batch) -> Matvec:
        """Return v ↦ H v."""
        return partial(self.once, combined, params, batch)

    def once(self, combined: Callable[[Params], Params], params: Params, batch: Batch, v: Vector) -> Vector:
        """Return H v."""
        unit, length = vectors.normalize(v)
        step = usual_step(params) if self.step is None else jnp.asarray(self.step, length.dtype)
        return vectors.scale(length, self.difference(combined, params, batch, unit, step))

    def difference(
        self, combined: Callable[[Params], Params], params: Params, batch: Batch, unit: Vector, step: Float[Array, ""]
    ) -> Vector:
        """Return the central difference of the gradient along a unit vector."""
        gradient = jax.grad(lambda p: self.loss(combined(p), batch))
        shift = vectors.scale(step, unit)
        change = vectors.subtract(gradient(vectors.add(params, shift)), gradient(vectors.subtract(params, shift)))
        return vectors.scale(0.5 / step, change)

    def settled(self, op: EmpiricalRiskOperator, program: Any) -> EmpiricalRiskOperator:
        """Return the operator with the measured step."""
        return _by_finite_differences(op, program, "it has no gradient")


MODES: dict[str, type[Hessian]] = {
    "auto": Hessian,
    "forward_over_reverse": _ForwardOverReverse,
    "reverse_over_reverse": _ReverseOverReverse,
    "finite_difference": FiniteDifferences,
}
_OPAQUE = ("custom_vjp", "callback", "pallas_call", "ffi_call")  # primitives that may lack a derivative


def _by_finite_differences(op: EmpiricalRiskOperator, program: Any, why: str) -> EmpiricalRiskOperator:
    try:
        return with_measured_step(replace(op, batch_operator=FiniteDifferences(op.batch_operator.loss), remat=True))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _impossible(op.batch_operator.name, program, why) from error


def _or_raise(op: EmpiricalRiskOperator, program: Any) -> EmpiricalRiskOperator:
    if any(contains(program, name) for name in _OPAQUE) and (why := _why_not(op)) is not None:
        raise _impossible(op.batch_operator.name, program, why, ' Use mode="auto".')
    return op


def _why_not(op: EmpiricalRiskOperator) -> str | None:
    """Return why a product cannot be differentiated; None if it can."""
    try:
        product = jax.make_jaxpr(lambda op, v: op.matvec(v))(op, vectors.zeros_like(op.like))
    except (TypeError, ValueError, NotImplementedError) as error:  # JAX has no one error for a missing rule
        return str(error).partition("\n")[0]
    return "a jax.custom_vjp has no forward derivative" if contains(product, "custom_lin") else None


def _impossible(name: str, program: Any, why: str, remedy: str = "") -> TypeError:
    names = ", ".join(sorted(name for name in _OPAQUE if contains(program, name)))
    held = f"; its program contains {names}" if names else ""
    return TypeError(
        f"{name} cannot differentiate the loss in this mode: {why}{held}."
        + (remedy or " Give the function a gradient with jax.custom_vjp; its products are then finite differences.")
    )
