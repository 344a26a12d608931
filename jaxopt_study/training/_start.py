"""Start of a run: the initial carry, and the values that all steps share."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxopt_study._programs import strongly_typed
from jaxopt_study.training._flat_parameters import flatten_leaves
from jaxopt_study.training._motion import at_rest
from jaxopt_study.training._observe import as_arrays, bound_probe, evaluate_carry, probe_arguments
from jaxopt_study.training._order_in_program import joined_order
from jaxopt_study.training._run_spec import Best, Carry, Constants, Inputs, Plan
from jaxopt_study.training._step import the_optimizer
from jaxopt_study.types import Key, Params


def start(plan: Plan, inputs: Inputs, params: Params, key: Key) -> tuple[Constants, Carry]:
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
            memory = probe.init(*probe_arguments(plan, inputs, constants, carry, jnp.int32(0)))
            carry = replace(carry, probe_memory=strongly_typed(as_arrays("init of the probe", probe.init, memory)))
    return constants, carry


def with_own_keys(opt_state: PyTree, key: Key) -> PyTree:
    """Return an optimizer state with a run's key folded into its PRNG keys, so that runs draw independently."""
    leaves, structure = jax.tree.flatten(opt_state)
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaves[i] = jax.random.fold_in(leaf, jax.random.bits(jax.random.fold_in(key, i), dtype=jnp.uint32))
    return jax.tree.unflatten(structure, leaves)
