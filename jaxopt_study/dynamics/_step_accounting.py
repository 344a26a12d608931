"""Predicted and actual decrease of the loss in one step."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from jaxopt_study._checks import check_integer, check_params
from jaxopt_study._display import displayed, plotted
from jaxopt_study._programs import jit_for_few_calls, nan_is_an_answer, wider
from jaxopt_study.curvature import Hessian, operator_of_data
from jaxopt_study.dynamics import _cards
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.checks import check_vector, describe
from jaxopt_study.linalg.hash_normal import draw_like
from jaxopt_study.linalg.hvp import linearized_gradient
from jaxopt_study.types import Batch, LossFn, Params, Vector


class Accounting(NamedTuple):
    """Predicted and realised change of the loss in one step, with rounding errors.

    Attributes:
        linear: gᵀu, negative for a step of descent.
        quadratic: ½uᵀHu.
        realised: f(θ + u) − f(θ).
        linear_error: Standard deviation of the rounding error of `linear`, at least that of its terms.
        quadratic_error: The same for `quadratic`.
        realised_error: The same for `realised`, at least the rounding error of the loss.
    """

    linear: Float[Array, ""]
    quadratic: Float[Array, ""]
    realised: Float[Array, ""]
    linear_error: Float[Array, ""]
    quadratic_error: Float[Array, ""]
    realised_error: Float[Array, ""]

    __repr__, _repr_html_ = displayed(_cards.accounting)
    plot = plotted

    @property
    def predicted(self) -> Float[Array, ""]:
        """Change of the quadratic model: gᵀu + ½uᵀHu."""
        return self.linear + self.quadratic

    @property
    def predicted_error(self) -> Float[Array, ""]:
        """Standard deviation of the rounding error of `predicted`."""
        return jnp.hypot(self.linear_error, self.quadratic_error)

    @property
    def ratio(self) -> Float[Array, ""]:
        """Realised over predicted change: 1 where the quadratic model holds; NaN where both are 0."""
        return self.realised / self.predicted

    @property
    def ratio_error(self) -> Float[Array, ""]:
        """Standard deviation of the rounding error of `ratio`."""
        return jnp.hypot(self.realised_error, self.ratio * self.predicted_error) / jnp.abs(self.predicted)


@nan_is_an_answer
def account_step(
    loss: LossFn,
    params: Params,
    updates: Vector,
    data: Batch | None = None,
    *,
    batch_size: int | None = None,
    num_samples: int = 4,
) -> Accounting:
    """Compare the change of the loss in a step with that of its quadratic model.

    With update u, as `optax.apply_updates` adds it, gradient g and Hessian H at θ:

        predicted = gᵀu + ½uᵀHu,  realised = f(θ + u) − f(θ)

    Their difference is of third order. The difference of two losses cancels digits: late in a run, in single precision,
    all of them. Both are therefore evaluated at several points that differ from θ by one rounding of each parameter;
    the result is their mean, and the error is their spread. u is first rounded to the step that the addition θ + u
    takes. For smaller errors use parameters in double precision.

    Args:
        loss: loss(params, data) → scalar, without randomness.
        params: θ before the step.
        updates: u, like the parameters, signs as applied.
        data: Data of the loss: arrays, or batches, as in `curvature.hessian`; the step may have used a part of them.
        batch_size: Examples per batch, for a loss that is a mean over examples; None for all at once.
        num_samples: Number of evaluations, ≥ 2.

    Returns:
        Both terms and the realised change, with errors. Cost: `num_samples` times a gradient, a Hessian-vector product
        and two losses; memory of the product.

    Raises:
        TypeError: If parameters, updates or data are not arrays, or the loss does not take two arguments or does not
            return a real scalar.
        ValueError: If `updates` does not fit the parameters or is not finite, or `num_samples` is less than 2.

    Example:
        >>> loss = lambda p, _: jnp.sum(p**4)
        >>> account = account_step(loss, jnp.array([1.0]), jnp.array([-0.1]))
        >>> print(f"{account.linear:.3f} {account.quadratic:.3f} {account.realised:.4f} {account.ratio:.3f}")
        -0.400 0.060 -0.3439 1.011

    References:
        Goodfellow, Bengio and Courville (2016), Deep Learning, section 8.2.1 (the two terms); Vignes (1993), A
        stochastic arithmetic for reliable scientific computation, Math. Comput. Simul. 35 (errors from perturbed
        evaluations).
    """
    num_samples = check_integer("account_step", "num_samples", num_samples, 2, remedy="A standard deviation takes two.")
    op: Any = operator_of_data(_Step(loss), params, data, batch_size=batch_size, remat=None, precision="highest")
    params = op.params
    updates = check_vector(describe(params), updates, what="update")
    check_params("account_step", updates, name="updates")
    samples = op.mean_over_data(lambda part: [_account(part, updates, seed) for seed in range(num_samples)])
    terms, sizes, rounding = (jnp.stack(parts) for parts in zip(*samples, strict=True))
    sizes = jnp.max(sizes, axis=0)
    # At least the rounding error of gradients, sums and losses, which a few samples may not show.
    tiny = jnp.finfo(terms.dtype).tiny
    floor = jnp.where(sizes > 0, jnp.maximum(rounding[0] * sizes / np.sqrt(2.0).astype(terms.dtype), tiny), 0)
    away, unit = vectors.unscaled(terms - jnp.mean(terms, axis=0, keepdims=True))  # squares stay in range
    errors = jnp.maximum(unit * jnp.sqrt(jnp.sum(away**2, axis=0) / (num_samples - 1)), floor)
    return Accounting(*jnp.mean(terms, axis=0), *errors)


class _Step(Hessian):
    """The loss of a step, with the checks of a Hessian's loss."""

    name: ClassVar[str] = "account_step"


@jit_for_few_calls
def _account(op: Any, updates: Vector, seed: Int[ArrayLike, ""]) -> tuple[Float[Array, "3"], ...]:
    """Return the three terms, the sizes of what they are sums of, and the relative rounding errors of these."""
    params, loss = op.params, op.loss
    signs = jax.tree.map(jnp.sign, draw_like(params, seed))
    before = jax.tree.map(lambda p, s: p * (1 + jnp.finfo(p.dtype).eps * s).astype(p.dtype), params, signs)
    # Without the barrier XLA may keep sums of half precision in more digits than a step stores.
    before, after = lax.optimization_barrier((before, vectors.add(before, updates)))
    applied = vectors.subtract(after, before)

    def of_batch(batch: Batch) -> tuple[Float[Array, "3"], ...]:
        start, end = loss(before, batch), loss(after, batch)
        grads, product = linearized_gradient(lambda p: loss(p, batch), before)
        curved = product(applied)
        terms = vectors.inner(grads, applied), 0.5 * vectors.inner(curved, applied), end - start
        dtype = vectors.accumulator(wider(*(term.dtype for term in terms)))
        grads, curved, length = (jax.tree.map(jnp.abs, x) for x in (grads, curved, applied))
        level = jnp.maximum(jnp.abs(start), jnp.abs(end))
        sizes = vectors.inner(grads, length), 0.5 * vectors.inner(curved, length), level
        together = [jnp.stack([x.astype(dtype) for x in part]) for part in (terms, sizes)]
        of_loss = float(jnp.finfo(level.dtype).eps)  # which may be in half precision, whatever the parameters are
        of_gradient = max(of_loss, vectors.epsilon(params))
        return *together, jnp.array([of_gradient, of_gradient, of_loss], dtype)

    return op.mean(of_batch)
