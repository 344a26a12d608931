"""One step of a run, as a pure function of its carry.

`_start`, `_step` and `_observe` are independent of the loop: `_compiled_loop` composes them into a compiled loop and
into a Python loop, so both run the same arithmetic.
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
from jaxtyping import Array, Bool, PyTree

from jaxopt_study.dynamics import call_update, differentiated, keep_dtypes
from jaxopt_study.linalg.sharding import rows
from jaxopt_study.training._motion import moved, still_finite
from jaxopt_study.training._order_in_program import is_known, joined_order
from jaxopt_study.training._run_spec import Carry, Constants, Inputs, Plan, Step
from jaxopt_study.transforms import gradient_point, read_taps
from jaxopt_study.types import Batch, Key, ModelState, Params


def the_optimizer(plan: Plan, leaves: Any) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer from the plan or the inputs, made to accept extra arguments."""
    if plan.optimizer is not None:
        return optax.with_extra_args_support(plan.optimizer)
    # A fresh copy for every trace: values computed from its hyperparameters in one trace must not leak into another.
    return optax.with_extra_args_support(jax.tree.map(lambda leaf: leaf, leaves))


def batch_at(plan: Plan, inputs: Inputs, constants: Constants, t: Step) -> Batch:
    """Return the batch of step t: the examples whose numbers the plan's order of `_batch_order` gives."""
    if plan.batch_size is None:
        return inputs.data
    num_examples = len(jax.tree.leaves(inputs.data)[0])
    order = joined_order(plan.order, inputs.order)
    indices = order.indices(constants.order, t, plan.batch_size, num_examples)
    if is_known(order):
        return jax.tree.map(lambda x: rows(jnp.asarray(x), indices), inputs.data)
    outside = jnp.any((indices < 0) | (indices >= num_examples))  # then the batch is NaN, and the run has diverged
    rows_of_batch = jax.tree.map(lambda x: rows(jnp.asarray(x), jnp.clip(indices, 0, num_examples - 1)), inputs.data)
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return jax.tree.map(lambda x: jnp.where(outside, jnp.nan, x) if floating(x) else x, rows_of_batch)


def step(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Step) -> tuple[Carry, dict[str, Any]]:
    """Return carry, loss and taps after step t; the step is not applied if the run has ended or ends with it.

    A step ends the run if its loss, its gradient or its new model state is not finite. Only a careful plan also checks
    that the new parameters are finite: this is known only after the update, so XLA must keep both old and new state,
    which takes 50 % longer for a small batch.
    """
    optimizer = the_optimizer(plan, constants.optimizer)
    batch = batch_at(plan, inputs, constants, t)
    key = jax.random.fold_in(constants.step_key, t)

    def loss_at(params: Params) -> tuple[Any, ModelState]:
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


def training_loss(
    plan: Plan, params: Params, model_state: ModelState, batch: Batch, key: Key
) -> tuple[Any, ModelState]:
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


def _kept_finite(new: ModelState, old: ModelState) -> Bool[Array, ""]:
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


def all_finite(params: Params) -> Bool[Array, ""]:
    """Return whether all parameters are finite, in one pass over them."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.isfinite(x).all(), params), jnp.bool_(True))


def _check_state(old: PyTree, new: PyTree) -> None:
    if jax.tree.structure(old) != jax.tree.structure(new) or [x.shape for x in jax.tree.leaves(old)] != [
        jnp.shape(x) for x in jax.tree.leaves(new)
    ]:
        raise TypeError(
            "The optimizer's update must return a state with the structure and shapes of its init, "
            f"{jax.tree.map(jnp.shape, old)}; received {jax.tree.map(jnp.shape, new)}. Keep structure and shapes from "
            "step to step."
        )
