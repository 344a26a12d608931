"""Pure functions of a run's carry: start, step and record.

They are independent of the loop: `_compiled_loop` composes them into a compiled loop and into a Python loop, so both
run the same arithmetic.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from traceback import walk_tb
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.errors import JAXIndexError, JAXTypeError

from jaxopt_study._checks import describe_argument
from jaxopt_study._programs import strongly_typed
from jaxopt_study.dynamics import call_update, differentiated, keep_dtypes
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._evaluate import evaluated, measure, rows
from jaxopt_study.training._flat_parameters import flatten_leaves
from jaxopt_study.training._motion import at_rest, moved, still_finite
from jaxopt_study.training._order_in_program import is_known, joined_order
from jaxopt_study.training._run_spec import Best, Carry, Constants, Inputs, Plan
from jaxopt_study.training._trajectory import EarlyStopping
from jaxopt_study.transforms import gradient_point, read_taps


def start(plan: Plan, inputs: Inputs, params: Any, key: Any) -> tuple[Constants, Carry]:
    """Return the initial carry, with newly allocated leaves that the loop may overwrite."""
    init_key, state_key, order_key, noise_key, step_key = jax.random.split(key, 5)
    if params is None:
        params = plan.init(init_key)
    if plan.paired:
        params = optax.LookaheadParams.init_synced(params)
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    optimizer = inputs.optimizer
    order = None
    if plan.batch_size is not None:
        order = joined_order(plan.order, inputs.order).init(order_key, len(jax.tree.leaves(inputs.data)[0]))
    if plan.layout == "flat":
        params = flatten_leaves(params)
    carry = Carry(
        params=params,
        opt_state=with_own_keys(the_optimizer(plan, optimizer).init(params), noise_key),
        model_state=plan.init_state(state_key) if plan.init_state else None,
        num_steps=jnp.int32(0),
        diverged_at=jnp.int32(-1),
        stopped=jnp.bool_(False),
        best=None,
        motion=at_rest(params, plan.sharded),
    )
    carry = strongly_typed(carry)
    if plan.early_stopping:
        values = jax.eval_shape(lambda: evaluate_carry(plan, inputs, carry))
        best = Best(
            params=jax.tree.map(jnp.copy, carry.params),
            model_state=jax.tree.map(jnp.copy, carry.model_state),
            found=jnp.bool_(False),
            value=jnp.zeros((), values[plan.early_stopping.metric].dtype),
            step=jnp.int32(0),
            failures=jnp.int32(0),
        )
        carry = replace(carry, best=best)
    constants = Constants(optimizer, order, step_key)
    if plan.probe is not None:
        probe = bound_probe(plan, inputs, constants)
        if probe.init is not None:
            memory = probe.init(*_probe_arguments(plan, inputs, constants, carry, jnp.int32(0)))
            carry = replace(carry, probe_memory=strongly_typed(_as_arrays("init of the probe", probe.init, memory)))
    return constants, carry


def the_optimizer(plan: Plan, leaves: Any) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer from the plan or the inputs, made to accept extra arguments."""
    if plan.optimizer is not None:
        return optax.with_extra_args_support(plan.optimizer)
    # A fresh copy for every trace: values computed from its hyperparameters in one trace must not leak into another.
    return optax.with_extra_args_support(jax.tree.map(lambda leaf: leaf, leaves))


def with_own_keys(opt_state: Any, key: Any) -> Any:
    """Return an optimizer state with a run's key folded into its PRNG keys, so that runs draw independently."""
    leaves, structure = jax.tree.flatten(opt_state)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaves[i] = jax.random.fold_in(leaf, jax.random.bits(jax.random.fold_in(key, i), dtype=jnp.uint32))
    return jax.tree.unflatten(structure, leaves)


def batch_at(plan: Plan, inputs: Inputs, constants: Constants, t: Any) -> Any:
    """Return the batch of step t."""
    if plan.batch_size is None:
        return inputs.data
    num_examples = len(jax.tree.leaves(inputs.data)[0])
    order = joined_order(plan.order, inputs.order)
    indices = order.indices(constants.order, t, plan.batch_size, num_examples)
    if is_known(order):
        return jax.tree.map(lambda x: rows(jnp.asarray(x), indices), inputs.data)
    outside = jnp.any((indices < 0) | (indices >= num_examples))  # then the batch is NaN, and the run has diverged
    found = jax.tree.map(lambda x: rows(jnp.asarray(x), jnp.clip(indices, 0, num_examples - 1)), inputs.data)
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.where(outside, jnp.nan, x) if floating(x) else x, found)


def step(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Any) -> tuple[Carry, dict[str, Any]]:
    """Return carry, loss and taps after step t; the step is not applied if the run has ended or ends with it.

    A step ends the run if its loss, its gradient or its new model state is not finite. Only a careful plan also checks
    that the new parameters are finite: this is known only after the update, so XLA must keep both old and new state,
    which takes 50 % longer for a small batch.
    """
    optimizer = the_optimizer(plan, constants.optimizer)
    batch = batch_at(plan, inputs, constants, t)
    key = jax.random.fold_in(constants.step_key, t)

    def loss_at(params: Any) -> tuple[Any, Any]:
        return training_loss(plan, params, carry.model_state, batch, key)

    point = differentiated(gradient_point(carry.params, carry.opt_state))
    shaped = plan.shaped_part
    (loss, model_state), grads = jax.value_and_grad(lambda p: loss_at(shaped(p)), has_aux=True)(point)
    sound = jnp.isfinite(loss) & still_finite(grads, plan.sharded) & _kept_finite(model_state, carry.model_state)
    old = carry.params, carry.opt_state, carry.model_state

    def apply(old: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        value_fn = lambda params: loss_at(shaped(differentiated(params)))[0]
        with _naming_the_optimizer():
            updates, opt_state = call_update(optimizer, grads, carry.opt_state, carry.params, loss, value_fn)
        _check_state(carry.opt_state, opt_state)
        new = keep_dtypes((optax.apply_updates(carry.params, updates), opt_state, model_state), old)
        if not plan.careful:
            return new, jnp.bool_(True)
        finite = all_finite(new[0])
        return jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old), finite

    # A branch, because a select between old and new makes XLA keep both: twice the run time and six times the compile
    # time.
    (params, opt_state, model_state), applied = jax.lax.cond(
        carry.active & sound, apply, lambda old: (old, jnp.bool_(False)), old
    )
    num_steps = carry.num_steps + applied.astype(carry.num_steps.dtype)
    after = replace(
        carry,
        params=params,
        opt_state=opt_state,
        model_state=model_state,
        num_steps=num_steps,
        diverged_at=jnp.where(carry.active & ~applied, t, carry.diverged_at).astype(jnp.int32),
        motion=moved(carry.motion, params, grads, num_steps, applied, plan.sharded),
    )
    return after, {"losses": loss, "taps": read_taps(opt_state)}


def observe(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Any, what: str) -> tuple[Carry, Any]:
    """Return carry and record before step t; an evaluation may end the run or update the best parameters."""
    if what == "snapshots":
        return carry, plan.shaped(carry.params)
    if what == "probes" and plan.probe is not None:
        arguments = _probe_arguments(plan, inputs, constants, carry, t)
        memory, values = bound_probe(plan, inputs, constants).measure(carry.probe_memory, arguments)
        memory = _remembered(plan.probe, memory, carry.probe_memory)
        memory = _keep(carry.active, memory, carry.probe_memory)
        return replace(carry, probe_memory=memory), _as_arrays("the probe", _function_of(plan.probe), values)
    values = evaluate_carry(plan, inputs, carry)
    return _track_best(plan.early_stopping, carry, values, t), values


def bound_probe(plan: Plan, inputs: Inputs, constants: Constants) -> Any:
    """Return the probe, bound to optimizer, loss and data if it measures the problem itself."""
    if isinstance(plan.probe, CurvatureProbe):
        return plan.probe.bind(the_optimizer(plan, constants.optimizer), plan.loss, inputs.data)
    return plan.probe


def _function_of(probe: Any) -> Any:
    return probe.measure if isinstance(probe, CurvatureProbe) else probe.fn


def _as_arrays(what: str, fn: Any, values: Any) -> Any:
    """Return the result of a probe's function as arrays; raise TypeError that names it for anything else."""

    def check(path: Any, value: Any) -> Any:
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"train needs {what} to return arrays; received {describe_argument(value)} from "
                f"{describe_argument(fn)}{jax.tree_util.keystr(path)}."
            ) from error

    return jax.tree_util.tree_map_with_path(check, values)


def _remembered(probe: Any, new: Any, old: Any) -> Any:
    """Return a probe's new memory as arrays; raise unless its structure and dtypes match those of the old memory."""
    fn = describe_argument(_function_of(probe))
    new = _as_arrays("the memory of the probe", _function_of(probe), new)
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"train needs the memory that {fn} returns to have the structure returned by init, "
            f"{jax.tree.structure(old)}; received {jax.tree.structure(new)}."
        )
    for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
        if after.shape != before.shape or _kind(after) > _kind(before):
            raise ValueError(
                f"train needs the memory{jax.tree_util.keystr(path)} that {fn} returns to be like that of init, "
                f"{describe_argument(before)}; received {describe_argument(after)}. Return the wider dtype from init."
            )
    return new


def _kind(x: Any) -> int:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, jax.dtypes.prng_key)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(x.dtype, kind))


def _probe_arguments(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Any) -> tuple[Any, ...]:
    opt_state = plan.shaped_state(the_optimizer(plan, constants.optimizer), carry.opt_state)
    state = (carry.model_state,) if plan.init_state else ()
    return plan.shaped(carry.params), opt_state, batch_at(plan, inputs, constants, t), *state


def evaluate_carry(plan: Plan, inputs: Inputs, carry: Carry) -> dict[str, Any]:
    """Return loss and metrics on every requested split."""
    params = evaluated(plan.shaped(carry.params))
    state = (carry.model_state,) if plan.init_state else ()
    found: dict[str, Any] = {}
    for split in plan.evaluate_on:
        examples = inputs.data if split == "train" else inputs.examples[split]
        functions = {"loss": plan.loss, **dict(plan.metrics)}
        values = measure(functions, params, state, examples, plan.evaluate_batch_size)
        found |= {f"{split}_{name}": value for name, value in values.items()}
    return found


def training_loss(plan: Plan, params: Any, model_state: Any, batch: Any, key: Any) -> tuple[Any, Any]:
    """Return the loss that a step differentiates, and the new model state."""
    if plan.step_loss is not None:
        return plan.step_loss(params, model_state, batch, key)
    return plan.loss(params, batch), model_state


@contextmanager
def _naming_the_optimizer() -> Iterator[None]:
    """Name the transformation whose update failed during tracing; errors of this package and JAX pass unchanged."""
    try:
        yield
    except (JAXTypeError, JAXIndexError, FloatingPointError):
        raise
    except Exception as error:  # a user's transformation may raise anything
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        if frames[-1].f_globals.get("__name__", "").startswith("jaxopt_study."):
            raise
        updates = [name for frame in frames if "<locals>.update" in (name := frame.f_code.co_qualname)]
        owner = updates[-1].partition(".<locals>")[0] if updates else "the optimizer"
        raise ValueError(
            f"train cannot take a step: the update of {owner} raises {type(error).__name__}: {error}. Its arguments "
            "are the mean gradient of a batch, state, parameters, value, grad and value_fn; per-example gradients "
            "are not available."
        ) from error


def _kept_finite(new: Any, old: Any) -> Any:
    """Return whether all carried numbers that were finite are still finite."""

    def kept(x: Any, y: Any) -> Any:
        if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
            return True
        return (jnp.isfinite(x) | ~jnp.isfinite(y)).all()

    if jax.tree.structure(new) != jax.tree.structure(old):
        raise TypeError(
            "step_loss must return a model state with the structure returned by init_state, "
            f"{jax.tree.structure(old)}; received {jax.tree.structure(new)}. Keep the structure from step to step."
        )
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(kept, new, old), jnp.bool_(True))


def all_finite(params: Any) -> Any:
    """Return whether all parameters are finite, in one pass over them."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), params), jnp.bool_(True))


def _check_state(old: Any, new: Any) -> None:
    if jax.tree.structure(old) != jax.tree.structure(new) or [x.shape for x in jax.tree.leaves(old)] != [
        jnp.shape(x) for x in jax.tree.leaves(new)
    ]:
        raise TypeError(
            "The optimizer's update must return a state with the structure and shapes of its init, "
            f"{jax.tree.map(jnp.shape, old)}; received {jax.tree.map(jnp.shape, new)}. Keep structure and shapes from "
            "step to step."
        )


def _track_best(rule: EarlyStopping | None, carry: Carry, values: dict[str, Any], t: Any) -> Carry:
    best = carry.best
    if rule is None or best is None:
        return carry
    value = values[rule.metric]
    gain = best.value - value if rule.mode == "min" else value - best.value
    better = carry.active & jnp.isfinite(value) & (~best.found | (gain > rule.min_delta))
    failures = jnp.where(better, 0, best.failures + carry.active.astype(jnp.int32))
    best = Best(
        params=_keep(better, carry.params, best.params),
        model_state=_keep(better, carry.model_state, best.model_state),
        found=best.found | better,
        value=jnp.where(better, value, best.value),
        step=jnp.where(better, t, best.step).astype(jnp.int32),
        failures=failures,
    )
    return replace(carry, best=best, stopped=carry.stopped | (carry.active & (failures >= rule.patience)))


def _keep(condition: Any, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, jnp.asarray(a).astype(b.dtype), b), new, old)
