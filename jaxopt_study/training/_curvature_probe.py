"""Curvature along a run: sharpness, preconditioned sharpness and step accounts, inside the compiled program."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float

from jaxopt_study._checks import (
    check_bool,
    check_callable,
    check_choice,
    check_integer,
    check_real,
    check_static,
    describe_argument,
)
from jaxopt_study.curvature import Operator, Stream, eigenpairs, hessian, is_stream
from jaxopt_study.dynamics import (
    LinearStep,
    account_step,
    at_point,
    call_update,
    differentiated,
    frozen_leaves,
    outermost,
    period,
    preconditioner_diagonal,
    refuse_period,
)
from jaxopt_study.linalg import vectors
from jaxopt_study.training._trajectory import Probe
from jaxopt_study.transforms import gradient_point


@dataclass(frozen=True)
class CurvatureProbe:
    """Measure the curvature of the loss along a run, with `train(..., probe=CurvatureProbe(every=10))`.

    Before the steps 0, every, 2·every, … and at the end it records, with Hessian H and gradient g at the point θ̃ where
    the step takes its gradient, and D the diagonal of the step's gains ∂θ′/∂g with second moments frozen:

        eigenvalues      the largest of H, (k,), descending, with residuals ‖Hv − λv‖ and flags `converged`
        gain_sharpness   the largest eigenvalue of D^½ H D^½, dimensionless, with `gain_residual`; the step is at the
                         edge of stability at `dynamics.stability_limit(optimizer)`: 2 for gradient descent
        gain_diagonal    whether the update is elementwise; `gain_sharpness` is meaningful only if it is
        step_eigenvalues of the linearised training step, (2,), complex: the largest in modulus, which is the spectral
                         radius of `dynamics.stability`, and the farthest from 1; with `step_errors`. Beyond 1 the run
                         escapes along negative curvature, beyond −1 or off the real axis it oscillates. `unstable` is
                         whether one of them exceeds 1 in modulus by more than its error: the alarm of a run is
                         `run.probe_steps[run.probes["unstable"]]`
        linear, quadratic, realised, realised_error
                         gᵀu and ½uᵀHu of the coming update u, and the change of the loss that it makes
        gradient_norm    ‖g‖
        num_matvecs      number of Hessian-vector products
        measured         the result of `measure(H, key)`, if given

    Every solve starts from the eigenvectors of the previous one, plus a random direction, so that a new eigenvector can
    become the largest. The run itself is not changed. The model state is held fixed, and the loss is the problem's
    evaluation loss, without dropout. If the optimizer's steps differ, as inside `optax.MultiSteps`, gain and step
    account are those of the next step, which may be zero.

    `measure` may be any traceable function of products with H, such as `curvature.trace`, `morse_index`, `sharpness` or
    `ill_conditioning`. `curvature.audit`, and `dynamics.stability` for an optimizer whose steps differ, run only from
    Python: record parameters with `train(…, record_params_every=…)` and call them on the snapshots.

    Attributes:
        every: Steps between measurements, ≥ 1.
        num_eigenvalues: k ≥ 1.
        data: Measure on "all" training examples, on the "batch" of the next step, or on the examples of a loader: any
            batches that can be read again, as in `curvature.hessian`. `train` then takes single steps from Python, and
            cannot be inside `jax.jit` or `jax.vmap`; not with `stability_matvecs`.
        batch_size: Number of examples read at a time with "all"; None for all at once.
        tol: Tolerance of the residual, relative to the largest eigenvalue's magnitude.
        max_matvecs: Largest number of products in each of the two solves.
        gains: Whether to solve for `gain_sharpness`.
        stability_matvecs: Number of products for `step_eigenvalues`, for example 24, plus four to recompute their
            residuals; 0 for none. The same number of vectors of parameters and optimizer state is held in memory. On
            CPU and GPU.
        account: Whether to account for the step.
        seed: Seed of the random directions.
        measure: A function of the Hessian, as an operator, and a key, that returns a pytree of arrays; None for none.
            Its products are not in `num_matvecs`.

    Example:
        >>> from jaxopt_study import curvature, optimizers, problems, training
        >>> def traced(op, key):
        ...     return curvature.sharpness(op, key=key).lower.round(2)
        >>> probe = training.CurvatureProbe(every=5, gains=False, account=False, measure=traced)
        >>> bowl = problems.Problem(
        ...     "bowl", init=lambda key: jnp.ones(3), loss=lambda p, _: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2) / 2
        ... )
        >>> run = training.train(
        ...     bowl, optimizers.sgd(0.1), num_steps=10, key=jax.random.key(0), probe=probe, progress=False
        ... )
        >>> print(run.probe_steps, run.probes["measured"])
        [ 0  5 10] [3. 3. 3.]
    """

    every: int = 1
    num_eigenvalues: int = 1
    data: Any = "all"
    batch_size: int | None = None
    tol: float = 1e-2
    max_matvecs: int = 60
    gains: bool = True
    stability_matvecs: int = 0
    account: bool = True
    seed: int = 0
    measure: Callable[[Operator, Any], Any] | None = None
    roles: tuple[tuple[bool, ...], tuple[bool, ...]] = field(default=((), ()), repr=False)  # found by `prepare`

    def __post_init__(self):
        who = "CurvatureProbe"
        for name in ("every", "num_eigenvalues", "max_matvecs"):
            check_integer(who, name, getattr(self, name), 1)
        check_integer(who, "stability_matvecs", self.stability_matvecs, 0)
        if is_stream(self.data) and not self.reads_loader:
            object.__setattr__(self, "data", Stream(who, self.data))  # hashable, as the plan of a run has to be
        if not self.reads_loader:
            remedy = "Or give batches that can be read again, such as a loader."
            check_choice(who, "data", self.data, ("all", "batch"), remedy=remedy)
        elif self.stability_matvecs or self.batch_size is not None:
            raise ValueError(
                f"{who} with a loader takes no stability_matvecs, which needs a compiled loop, and no batch_size. "
                "Record parameters with train(…, record_params_every=…), and call dynamics.stability on them."
            )
        if self.batch_size is not None:
            check_integer(who, "batch_size", self.batch_size, 1, remedy="Use None for all examples at once.")
        check_static(who, "tol", self.tol)
        check_real(who, "tol", self.tol, 0, 1, closed="()")
        for name in ("gains", "account"):
            check_bool(who, name, getattr(self, name))
        check_integer(who, "seed", self.seed, 0, 2**32 - 1)
        if not _is_roles(self.roles):
            raise TypeError(
                f"{who}: do not pass `roles`, which `train` detects; received {describe_argument(self.roles)}."
            )
        if self.measure is not None:
            check_callable(who, "measure", self.measure, expected="a function of (Hessian, key), or None")

    @property
    def reads_loader(self) -> bool:
        """Whether it reads its data from Python, so that no compiled program can measure."""
        return isinstance(self.data, Stream)

    def prepare(self, optimizer: optax.GradientTransformation, params: Any) -> "CurvatureProbe":
        """Return the probe that knows which parts of an optimizer's state are statistics; `train` calls this."""
        known = jax.tree.map(_known, optimizer) if jax.tree.leaves(optimizer) else optimizer
        with jax.ensure_compile_time_eval():
            if self.stability_matvecs:
                refuse_period("CurvatureProbe(stability_matvecs=…)", known, params)
            steps = period("CurvatureProbe", known, params, composes=False)
            return replace(self, roles=frozen_leaves(known, params, "statistics", steps))

    def bind(self, optimizer: optax.GradientTransformation, loss: Callable[..., Any], data: Any) -> Probe:
        """Return the measurement for an optimizer, loss and data; `train` calls this."""

        def examples(batch: Any) -> Any:
            if self.reads_loader:
                return self.data.source
            return data if self.data == "all" else batch

        def init(params: Any, opt_state: Any, batch: Any, *model_state: Any) -> dict[str, Any]:
            del batch, model_state
            key = jax.random.key(self.seed)
            starts = {"hessian": self.num_eigenvalues} | ({"gains": 1} if self.gains else {})
            draws = {
                name: vectors.stack(
                    [
                        vectors.random_like(
                            differentiated(params), key=jax.random.fold_in(key, i), distribution="sphere"
                        )
                        for i in range(count)
                    ]
                )
                for name, count in starts.items()
            }
            if self.stability_matvecs:
                pair = LinearStep(params, opt_state, None, optimizer, loss, *self.roles).like
                draws["step"] = vectors.zeros_like(pair)
            return {"starts": draws, "count": jnp.int32(0)}

        def measure(memory: Any, params: Any, opt_state: Any, batch: Any, *model_state: Any) -> tuple[Any, Any]:
            at = partial(_with_state, loss, model_state) if model_state else loss
            measured, starts = self._measure(optimizer, at, memory, params, opt_state, examples(batch))
            return {"starts": starts, "count": memory["count"] + 1}, measured

        return Probe(measure, self.every, init)

    def _measure(
        self, optimizer: Any, loss: Callable[..., Any], memory: Any, params: Any, opt_state: Any, data: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self.seed + 1), memory["count"]))
        point = differentiated(gradient_point(params, opt_state))
        op: Any = hessian(loss, point, data, batch_size=self.batch_size)
        step = LinearStep(params, opt_state, op, optimizer, loss, *self.roles).informed()
        here = at_point(step)
        solve = partial(eigenpairs, tol=self.tol, max_matvecs=self.max_matvecs)
        pairs = solve(op, self.num_eigenvalues, key=keys[0], start=memory["starts"]["hessian"])
        starts = {"hessian": pairs.vectors}
        measured = {
            "eigenvalues": pairs.values,
            "residuals": pairs.residuals,
            "converged": pairs.converged,
            "gradient_norm": vectors.norm(here.grads),
            "num_matvecs": pairs.num_matvecs,
        }
        if self.gains:
            response, diagonal = preconditioner_diagonal(here, step.like)
            own = solve(op.precondition(_inverse(response)), 1, key=keys[1], start=memory["starts"]["gains"])
            starts["gains"] = own.vectors
            measured |= {
                "gain_sharpness": own.values[0],
                "gain_residual": own.residuals[0],
                "gain_diagonal": diagonal,
                "num_matvecs": measured["num_matvecs"] + own.num_matvecs,
            }
        if self.stability_matvecs:
            balanced = step.balanced()
            new = vectors.random_like(balanced.like, key=jax.random.fold_in(keys[1], 1), distribution="sphere")
            start = vectors.add(memory["starts"]["step"], new)
            seed = jax.random.bits(jax.random.fold_in(keys[1], 2))
            outer = outermost(balanced, start, self.stability_matvecs, seed=seed)
            starts["step"] = outer.start
            measured |= {
                "step_eigenvalues": outer.values,
                "step_errors": outer.errors,
                "unstable": (jnp.abs(outer.values) - outer.errors > 1).any(),
                "num_matvecs": measured["num_matvecs"] + outer.num_matvecs,
            }
        if self.measure is not None:
            measured["measured"] = self.measure(op, jax.random.fold_in(keys[0], 1))
        if self.account:
            value_fn = lambda p: op.mean(partial(loss, differentiated(p)))
            updates, _ = call_update(optimizer, here.grads, opt_state, params, here.value, value_fn)
            at, updates = differentiated(params), differentiated(updates)
            account = account_step(loss, at, updates, data, batch_size=self.batch_size, num_samples=2)
            measured |= {name: getattr(account, name) for name in ("linear", "quadratic", "realised", "realised_error")}
        return measured, starts


def _is_roles(roles: Any) -> bool:
    pair = isinstance(roles, tuple) and len(roles) == 2 and all(isinstance(part, tuple) for part in roles)
    return pair and all(isinstance(flag, bool) for part in roles for flag in part)


def _with_state(loss: Callable[..., Any], model_state: tuple[Any, ...], params: Any, batch: Any) -> Any:
    return loss(params, batch, *model_state)


def _known(leaf: Any) -> Any:
    # Stands in for a hyperparameter that is traced: what is a statistic does not depend on it.
    return np.full(leaf.shape, 0.5, leaf.dtype) if isinstance(leaf, Tracer) else leaf


def _inverse(response: Any) -> Any:
    def inverse(d: Float[Array, "..."]) -> Float[Array, "..."]:
        size = jnp.abs(d.astype(vectors.accumulator(d.dtype)))  # half precision has no reciprocal of a small rate
        return jnp.minimum(1 / size, 1e-3 * jnp.finfo(size.dtype).max)  # a large number where nothing moves

    return jax.tree.map(inverse, response)
