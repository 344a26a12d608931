"""Train: the public door. It checks what it is given, decides how to run it, and hands back a trajectory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study.problems.problem import Problem
from jaxopt_study.programs import is_traced
from jaxopt_study.training.batches import Curriculum, Order
from jaxopt_study.training.curvature_probe import CurvatureProbe
from jaxopt_study.training.host import Bar, drive
from jaxopt_study.training.loops import whole_run
from jaxopt_study.training.placement import on_device
from jaxopt_study.training.plan import Carry, Constants, Plan
from jaxopt_study.training.planning import make_plan
from jaxopt_study.training.program import blank, the_optimizer
from jaxopt_study.training.trajectory import EarlyStopping, Probe, TrainingInterrupted, Trajectory
from jaxopt_study.types import Key, Params


def train(
    problem: Problem,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    *,
    num_steps: int,
    key: Key,
    batch_size: int | None = None,
    order: Order | Curriculum = "epochs",
    params: Params = None,
    evaluate_every: int | None = None,
    evaluate_on: str | Sequence[str] | None = None,
    evaluate_batch_size: int | None = None,
    early_stopping: EarlyStopping | None = None,
    record_params_every: int | None = None,
    probe: Probe | CurvatureProbe | Callable[..., Any] | None = None,
    progress: bool | Callable[[int, int, float], None] | None = None,
    layout: Literal["auto", "tree", "flat"] = "auto",
    loop: Literal["auto", "compiled", "host"] = "auto",
) -> Trajectory:
    """Minimise a problem's loss with an optimizer, in one compiled program.

    With batch Bₜ, optimizer state sₜ and θ̃ₜ = `gradient_point(θₜ, sₜ)` (θₜ itself unless the optimizer looks ahead):

        gₜ = ∇L(θ̃ₜ; Bₜ),    uₜ, sₜ₊₁ = optimizer.update(gₜ, sₜ, θₜ),    θₜ₊₁ = θₜ + uₜ

    The first step whose loss is not finite is not applied: the run ends there, keeps θₜ and sₜ, and says so in
    `diverged`. Nothing is raised, and other lanes of a `vmap` go on. Only the loss is watched: an update that
    overflows is noticed at the next loss, or at the end, where parameters that are not finite count as divergence too.

    It does not average gradients over devices, save checkpoints or log. It does not move θ to the optimizer's side: the
    parameters returned are those the optimizer holds.

    Args:
        problem: What is minimised. Its data are arguments of the compiled program, not constants in it.
        optimizer: Any Optax transformation whose updates are *added* to the parameters. A `Transform` of this package
            travels as an argument, so that a changed hyperparameter does not compile anything again, and it may be
            traced. PRNG keys in the optimizer's state (gradient noise) have this run's key folded in: runs with
            different keys draw different noise. `update` also receives `value` (the loss), `grad` and `value_fn` (the
            loss on this batch), for optimizers that ask for them, such as `optax.polyak_sgd`.
        num_steps: T ≥ 0. A changed T does not compile anything again outside `jit` and `vmap`.
        key: Decides start, order of the examples, dropout and noise. Consumed; the same key replays the same run.
        batch_size: B in 1 … N; None uses all examples at every step. Batches straddle the ends of epochs, so that every
            epoch holds every example exactly once for any B.
        order: "epochs" shuffles anew every epoch, "once" repeats the first shuffle, "replacement" draws independently;
            a `Curriculum` begins with the easy examples.
        params: The start; None asks `problem.init`. Not overwritten.
        evaluate_every: Evaluate loss and metrics before the steps 0, e, 2e, … and at the end; None does not, except
            that early stopping then evaluates once per epoch.
        evaluate_on: One or several of "train", "validation", "test". None means "validation" if the problem has such
            examples, else "train".
        evaluate_batch_size: Examples evaluated at a time, to bound memory; None for all at once.
        early_stopping: When to stop early, with the best parameters restored; None does not.
        record_params_every: Keep the parameters at this cadence, for trajectories in the plane.
        probe: A measurement made along the way; a bare function is `Probe(function, every=1)`.
        progress: None shows a bar on runs of more than two seconds at a terminal; True and False force it; a function
            is called with (steps done, T, last loss) every half second or so. Ignored inside `jit` and `vmap`.
        layout: In which shapes parameters and optimizer state travel through the loop. "flat" carries every leaf as a
            vector, which on a CPU makes the step on convolutional leaves 3–4 times faster; "auto" does so if the
            optimizer provably does not look at the shapes of leaves. Params and state are returned in their own shapes.
        loop: "compiled" runs the steps inside the program. "host" calls one compiled step at a time, which on a CPU is
            the faster way for XLA's convolutions (slow inside compiled loops); "auto" decides by looking for them.
            Inside `jit` and `vmap` the loop is always compiled.

    Returns:
        The trajectory. Cost: T gradients and updates, plus records. Memory: parameters and state once; they are
        overwritten in place.

    Raises:
        ValueError: If an argument is out of range, or asks for examples or metrics the problem does not have.
        TypeError: If the optimizer is not an Optax transformation, the parameters are not floating, or the loss is not
            a scalar.
        TrainingInterrupted: On Ctrl-C, a `KeyboardInterrupt` whose `trajectory` holds the finished part; a second
            Ctrl-C stops without it.

    Example:
        >>> problem = Problem("bowl", init=lambda key: jnp.array([3.0, -2.0]), loss=lambda p, _: 0.5 * jnp.sum(p**2))
        >>> run = train(problem, optax.sgd(0.5), num_steps=10, key=jax.random.key(0))
        >>> print(run.params * 2**10, bool(run.diverged))  # every step halves the distance
        [ 3. -2.] False
        >>> run = train(problem, optax.sgd(2.5), num_steps=500, key=jax.random.key(0))
        >>> print(bool(run.diverged), bool(jnp.isnan(run.losses[run.diverged_at])))
        True True
    """
    is_key = isinstance(key, jax.Array) and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == jnp.uint32)
    if not is_key:
        raise TypeError(f"train needs a PRNG key; received {key!r}. Use key=jax.random.key(0).")
    traced = is_traced((problem.data, problem.validation, problem.test, optimizer, key, params))
    plan, inputs = make_plan(
        problem, optimizer, num_steps=num_steps, batch_size=batch_size, order=order, params=params,
        evaluate_every=evaluate_every, evaluate_on=evaluate_on, evaluate_batch_size=evaluate_batch_size,
        early_stopping=early_stopping, snapshot_every=record_params_every, probe=probe, layout=layout, loop=loop,
        traced=traced,
    )  # fmt: skip
    if traced:
        constants, carry, records, last = whole_run(plan, inputs, params, key, num_steps)
        return _trajectory(plan, constants, carry, records, last, num_steps)
    inputs = on_device(inputs)
    with Bar(progress, problem.name) as bar:
        constants, carry, records, last, covered, interrupted = drive(plan, inputs, params, key, num_steps, bar)
    trajectory = _trajectory(plan, constants, carry, _padded(plan, records, covered), last, covered)
    if interrupted:
        raise TrainingInterrupted(trajectory)
    return trajectory


def _padded(plan: Plan, records: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """Return the records of a run that ended early, filled up to their full length."""

    def pad(record: Any, count: int) -> Any:
        return jax.tree.map(lambda x: np.concatenate([x, _missing(x, count - len(x))]) if count > len(x) else x, record)

    return {what: pad(record, -(-num_steps // plan.cadences.get(what, 1))) for what, record in records.items()}


def _missing(like: np.ndarray, count: int) -> np.ndarray:
    return np.full((count, *like.shape[1:]), np.asarray(blank(like)), like.dtype)


def _trajectory(
    plan: Plan, constants: Constants, carry: Carry, records: dict[str, Any], last: dict[str, Any], num_steps: int
) -> Trajectory:
    def whole(what: str) -> Any:
        end = jax.tree.map(lambda x: jnp.asarray(x)[None], last[what])
        if what not in records:
            return end
        return jax.tree.map(lambda body, tail: jnp.concatenate([jnp.asarray(body), tail]), records[what], end)

    def steps(what: str) -> Any:
        every = plan.cadences[what]
        return jnp.minimum(jnp.arange(-(-num_steps // every) + 1) * every, num_steps).astype(jnp.int32)

    params, opt_state, best, diverged_at = _finish(plan, constants.optimizer, carry)
    kept = plan.cadences
    return Trajectory(
        params=params if best is None else best.params,
        opt_state=opt_state,
        model_state=carry.model_state if best is None else best.model_state,
        losses=jnp.asarray(records["losses"]) if "losses" in records else jnp.zeros(0),
        num_steps=carry.num_steps,
        diverged=diverged_at >= 0,
        diverged_at=diverged_at,
        stopped_early=carry.stopped,
        evaluations=whole("evaluations") | {"step": steps("evaluations")} if "evaluations" in kept else {},
        best_step=None if best is None else best.step,
        last_params=None if best is None else params,
        snapshots=whole("snapshots") if "snapshots" in kept else None,
        snapshot_steps=steps("snapshots") if "snapshots" in kept else None,
        probes=whole("probes") if "probes" in kept else None,
        probe_steps=steps("probes") if "probes" in kept else None,
        taps=jax.tree.map(jnp.asarray, records.get("taps", {})),
    )


@partial(jax.jit, static_argnames="plan")
def _finish(plan: Plan, leaves: Any, carry: Carry) -> tuple[Any, Any, Any, Any]:
    """Return what the loop carried in the user's shapes."""
    best = carry.best
    if best is not None:
        best = replace(best, params=plan.shaped(best.params))
    opt_state = plan.shaped_state(the_optimizer(plan, leaves), carry.opt_state)
    # The last update has no loss after it that would tell.
    finite = jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda p: jnp.isfinite(p).all(), carry.params), True)
    diverged_at = jnp.where((carry.diverged_at < 0) & ~jnp.asarray(finite), carry.num_steps, carry.diverged_at)
    return plan.shaped(carry.params), opt_state, best, diverged_at
