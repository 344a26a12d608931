"""Public entry point `train`: validates arguments, chooses how to run, returns a `Trajectory`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study._checks import in_double
from jaxopt_study._programs import is_traced
from jaxopt_study._progress_bar import Bar
from jaxopt_study.problems import Problem
from jaxopt_study.training._batch_order import Order
from jaxopt_study.training._compiled_loop import whole_run
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._device_put import on_device
from jaxopt_study.training._motion import stalled
from jaxopt_study.training._plan import make_plan
from jaxopt_study.training._python_loop import drive
from jaxopt_study.training._records import missing, only_recorded
from jaxopt_study.training._run_spec import Carry, Constants, Plan
from jaxopt_study.training._step import all_finite, the_optimizer
from jaxopt_study.training._trajectory import EarlyStopping, Probe, TrainingInterrupted, Trajectory
from jaxopt_study.training._validate import check_arguments
from jaxopt_study.transforms import is_nnx, unwrapped
from jaxopt_study.types import Key, Params


def train(
    problem: Problem,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    *,
    num_steps: int,
    key: Key,
    batch_size: int | None = None,
    order: Order = "reshuffle",
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

    If the loss, gradient, new parameters or new model state of a step are not finite, the step is not applied: the run
    ends with θₜ, sₜ and the model state, which are finite even if the loss at θₜ is not, and sets `diverged`. Nothing
    is raised, and other runs under `vmap` continue. If the parameters stop changing although the gradient is not 0, the
    run sets `stalled`: the learning rate is 0, a statistic has overflowed and nothing else (such as weight decay) moves
    the parameters, or updates are below the resolution of the parameters, as after convergence.

    It does not average gradients over devices, save checkpoints or log. It returns the parameters that the optimizer
    trains, without converting them to evaluation parameters.

    Args:
        problem: The problem to minimise. Its data are arguments of the compiled program, not constants in it.
        optimizer: Any Optax transformation whose updates are *added* to the parameters. A `Transform` of this package
            is an argument of the compiled program, so that changing a hyperparameter does not recompile, and it may be
            traced. PRNG keys in the optimizer's state (gradient noise) have this run's key folded in, so that runs with
            different keys draw different noise. `update` also receives `value` (the loss), `grad` and `value_fn` (the
            loss on this batch), for optimizers that need them, such as `optax.polyak_sgd`. Per-example gradients are
            not available.
        num_steps: T ≥ 0. Outside `jit` and `vmap`, changing T does not recompile.
        key: Determines start, order of the examples, dropout and noise. Consumed; the same key reproduces the same run,
            alone or under `vmap`. It is split once, by `jax.random.split(key, 5)`, into the keys of `problem.init`, of
            `problem.init_state`, of the order of the examples, of the keys in the optimizer's state, and of
            `step_loss`, into which t is folded at step t. A probe gets no key: `CurvatureProbe` has its own seed.
        batch_size: B in 1 … N; None uses all examples at every step. Batches straddle the ends of epochs, so that every
            epoch has every example exactly once for any B.
        order: "reshuffle" shuffles anew every epoch, "shuffle_once" repeats the first shuffle, "with_replacement" draws
            independently; a `Curriculum` begins with the easy examples.
        params: Initial parameters, which are not overwritten; None calls `problem.init`. Arrays sharded over a mesh of
            devices keep their sharding. For `optax.lookahead` give `optax.LookaheadParams`, or plain parameters, of
            which the pair is made: the loss is taken at the fast parameters, evaluations at the slow ones. An
            `nnx.Module`'s parameters are `nnx.state(model, nnx.Param)`, and the optimizer inside an `nnx.Optimizer` is
            its `tx`.
        evaluate_every: Evaluate loss and metrics before the steps 0, e, 2e, … and at the end; None evaluates nothing,
            except that early stopping evaluates once per epoch.
        evaluate_on: One or several of "train", "validation", "test". None means "validation" if the problem has
            validation examples, otherwise "train".
        evaluate_batch_size: Number of examples evaluated at a time, to bound memory; None for all at once.
        early_stopping: Rule for stopping early and restoring the best parameters; None for none.
        record_params_every: Record the parameters at this cadence, for example for trajectories of planar problems.
        probe: A measurement along the run; a plain function means `Probe(function, every=1)`.
        progress: None shows a bar on runs of more than two seconds at a terminal or in a notebook; True and False force
            it; a function is called with (steps done, T, last loss) about every half second. Ignored inside `jit` and
            `vmap`.
        layout: Shapes of parameters and optimizer state inside the loop. "flat" carries every leaf as a vector, which
            on a CPU makes the step on convolutional leaves 3–4 times faster; "auto" does so if the optimizer provably
            does not depend on the shapes of leaves. Parameters and state are returned in their own shapes.
        loop: "compiled" runs the steps inside one program. "host" calls one compiled step at a time from Python, which
            on a CPU is faster for XLA's convolutions (slow inside compiled loops); "auto" uses it on a CPU if the
            program contains them. Inside `jit` and `vmap` the loop is always compiled.

    Returns:
        The trajectory. Cost: T gradients and updates, plus records. Memory: parameters and state once; they are
        overwritten in place.

    Raises:
        ValueError: If an argument is out of range, names examples or metrics that the problem does not have, the
            optimizer's update raises, or the loss looks for examples and the problem has none.
        TypeError: If the optimizer is not an Optax transformation, the parameters are not floating, or the loss is not
            a scalar.
        TrainingInterrupted: On Ctrl-C; a `KeyboardInterrupt` whose `trajectory` holds the finished part. A second
            Ctrl-C raises a plain `KeyboardInterrupt`, and so does the first if no step has been taken.

    Example:
        >>> problem = Problem("bowl", init=lambda key: jnp.array([3.0, -2.0]), loss=lambda p, _: 0.5 * jnp.sum(p**2))
        >>> run = train(problem, optax.sgd(0.5), num_steps=10, key=jax.random.key(0))
        >>> print(run.params * 2**10, bool(run.diverged))  # every step halves the distance
        [ 3. -2.] False
        >>> run = train(problem, optax.sgd(2.5), num_steps=1_000, key=jax.random.key(0))
        >>> print(bool(run.diverged), bool(jnp.isfinite(run.params).all()))  # the last finite parameters are kept
        True True
        >>> run = train(problem, optax.sgd(0.0), num_steps=10, key=jax.random.key(0))
        >>> print(bool(run.stalled), run.last_moved)
        True 0
    """
    check_arguments(problem, key, progress)
    if is_nnx(params, "State"):
        params = unwrapped(params)
    params = jax.tree.map(in_double, params)
    traced = is_traced((problem.data, problem.validation, problem.test, optimizer, key, params))
    plan, inputs = make_plan(
        problem, optimizer, num_steps=num_steps, batch_size=batch_size, order=order, params=params,
        evaluate_every=evaluate_every, evaluate_on=evaluate_on, evaluate_batch_size=evaluate_batch_size,
        early_stopping=early_stopping, snapshot_every=record_params_every, probe=probe, layout=layout, loop=loop,
        traced=traced,
    )  # fmt: skip
    num_steps = int(num_steps)
    if params is None and plan.sharded:  # a compiled program infers the mesh from its arguments
        params = problem.init(jax.random.split(key, 5)[0])
    if traced:
        constants, carry, records, last = whole_run(plan, inputs, params, key, num_steps)
        return _trajectory(plan, constants, carry, records, last, num_steps)
    inputs = on_device(inputs)
    with Bar(progress, problem.name) as bar:
        constants, carry, records, last, covered, interrupted = drive(plan, inputs, params, key, num_steps, bar)
    finished = _finish(plan, constants.optimizer, carry)
    if not finished.finite and not interrupted:
        # An update has overflowed. The slower, careful loop keeps old values and finds the step.
        careful = replace(plan, careful=True)
        constants, carry, records, last, covered, interrupted = drive(
            careful, inputs, params, key, num_steps, lambda *_: None
        )
        finished = _finish(careful, constants.optimizer, carry)
    records = _padded(plan, records, covered)
    trajectory = _trajectory(plan, constants, carry, records, jax.device_get(last), covered, finished)
    if interrupted:
        raise TrainingInterrupted(trajectory)
    return trajectory


def _padded(plan: Plan, records: dict[str, Any], num_steps: int) -> dict[str, Any]:
    """Return the records of a run that ended early, padded to their full length."""

    def pad(record: Any, count: int) -> Any:
        return jax.tree.map(lambda x: np.concatenate([x, missing(x, count - len(x))]) if count > len(x) else x, record)

    return {what: pad(record, -(-num_steps // plan.cadences.get(what, 1))) for what, record in records.items()}


def _trajectory(
    plan: Plan,
    constants: Constants,
    carry: Carry,
    records: dict[str, Any],
    last: dict[str, Any],
    num_steps: int,
    finished: "_Finished | None" = None,
) -> Trajectory:
    """Return the trajectory of a run, from NumPy records if it ran outside any trace."""
    end = _finish(plan, constants.optimizer, carry) if finished is None else finished
    # `device_put` instead of `jnp.asarray`, because `jax_debug_nans` would take its NaN for a computed one.
    xp, taken = (jnp, carry.num_steps) if finished is None else (np, int(carry.num_steps))

    def whole(what: str) -> Any:
        tail = jax.tree.map(lambda x: xp.asarray(x)[None], last[what])
        record = tail
        if what in records:
            record = jax.tree.map(lambda body, tail: xp.concatenate([body, tail]), records[what], tail)
        return jax.device_put(only_recorded(record, steps(what) <= taken))

    def steps(what: str) -> Any:
        every = plan.cadences[what]
        return np.minimum(np.arange(-(-num_steps // every) + 1) * every, num_steps).astype(np.int32)

    def every_step(what: str) -> Any:
        return jax.device_put(only_recorded(records[what], np.arange(num_steps, dtype=np.int32) < taken))

    def places(what: str) -> Any:
        return jnp.asarray(steps(what)) if what in kept else None

    best, kept = end.best, plan.cadences
    best_step: Any = None if best is None else best.step
    return Trajectory(
        params=end.params if best is None else best.params,
        opt_state=end.opt_state,
        model_state=carry.model_state if best is None else best.model_state,
        losses=every_step("losses") if "losses" in records else jnp.zeros(0),
        num_steps=carry.num_steps,
        diverged=end.diverged,
        diverged_at=carry.diverged_at,
        stalled=end.stalled,
        last_moved=carry.motion.last_moved,
        stopped_early=carry.stopped,
        evaluations=whole("evaluations") | {"step": jnp.asarray(steps("evaluations"))} if "evaluations" in kept else {},
        best_step=best_step,
        last_params=None if best is None else end.params,
        snapshots=whole("snapshots") if "snapshots" in kept else None,
        snapshot_steps=places("snapshots"),
        probes=whole("probes") if "probes" in kept else None,
        probe_steps=places("probes"),
        taps=every_step("taps") if "taps" in records else {},
    )


class _Finished(NamedTuple):
    """The final carry of the loop in the user's shapes, with derived results."""

    params: Any
    opt_state: Any
    best: Any
    finite: Any
    diverged: Any
    stalled: Any


@partial(jax.jit, static_argnames="plan")
def _finish(plan: Plan, leaves: Any, carry: Carry) -> _Finished:
    best = carry.best
    if best is not None:
        best = replace(best, params=plan.shaped(best.params))
    return _Finished(
        params=plan.shaped(carry.params),
        opt_state=plan.shaped_state(the_optimizer(plan, leaves), carry.opt_state),
        best=best,
        finite=all_finite(carry.params),
        diverged=carry.diverged_at >= 0,
        stalled=stalled(carry.motion, carry.num_steps),
    )
