"""Records along a run: snapshots, evaluations with the best parameters so far, and measurements of a probe."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from jaxopt_study._checks import describe_argument
from jaxopt_study.dynamics import keep_dtypes
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._evaluate import evaluated, measure_once
from jaxopt_study.training._run_spec import Best, Carry, Constants, Inputs, Plan, Step
from jaxopt_study.training._step import batch_at, the_optimizer
from jaxopt_study.training._trajectory import EarlyStopping


def observe(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Step, what: str) -> tuple[Carry, PyTree]:
    """Return carry and record before step t; an evaluation may end the run or update the best parameters."""
    if what == "snapshots":
        return carry, plan.shaped(carry.params)
    if what == "probes" and plan.probe is not None:
        arguments = probe_arguments(plan, inputs, constants, carry, t)
        memory, values = bound_probe(plan, inputs, constants).measure(carry.probe_memory, arguments)
        memory = _remembered(plan.probe, memory, carry.probe_memory)
        memory = _keep(carry.active, memory, carry.probe_memory)
        return replace(carry, probe_memory=memory), as_arrays("the probe", _function_of(plan.probe), values)
    values = evaluate_carry(plan, inputs, carry)
    return _track_best(plan.early_stopping, carry, values, t), values


def bound_probe(plan: Plan, inputs: Inputs, constants: Constants) -> Any:
    """Return the probe, bound to optimizer, loss and data if it measures the problem itself."""
    if isinstance(plan.probe, CurvatureProbe):
        return plan.probe.bind(the_optimizer(plan, constants.optimizer), plan.loss, inputs.data)
    return plan.probe


def _function_of(probe: Any) -> Any:
    return probe.measure if isinstance(probe, CurvatureProbe) else probe.fn


def as_arrays(what: str, fn: Any, values: Any) -> PyTree:
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


def _remembered(probe: Any, new: Any, old: PyTree) -> PyTree:
    """Return a probe's new memory as arrays; raise unless its structure and dtypes match those of the old memory."""
    fn = describe_argument(_function_of(probe))
    new = as_arrays("the memory of the probe", _function_of(probe), new)
    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            f"train: the memory that {fn} returns must match the structure that the probe's init returned, "
            f"{jax.tree.structure(old)}; received {jax.tree.structure(new)}."
        )
    for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
        if after.shape != before.shape or _kind(after) > _kind(before):
            raise ValueError(
                f"train: the memory{jax.tree_util.keystr(path)} that {fn} returns must match that of the probe's init, "
                f"{describe_argument(before)}; received {describe_argument(after)}. Return the wider dtype from init."
            )
    return new


def _kind(x: Shaped[Array, "..."]) -> int:
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, jax.dtypes.prng_key)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(x.dtype, kind))


def probe_arguments(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Step) -> tuple[Any, ...]:
    opt_state = plan.shaped_state(the_optimizer(plan, constants.optimizer), carry.opt_state)
    state = (carry.model_state,) if plan.init_state else ()
    return plan.shaped(carry.params), opt_state, batch_at(plan, inputs, constants, t), *state


def evaluate_carry(plan: Plan, inputs: Inputs, carry: Carry) -> dict[str, Array]:
    """Return loss and metrics on every requested split."""
    params = evaluated(plan.shaped(carry.params))
    state = (carry.model_state,) if plan.init_state else ()
    functions = (("loss", plan.loss), *plan.metrics)
    evaluations: dict[str, Any] = {}
    for split in plan.evaluate_on:
        examples = inputs.data if split == "train" else inputs.examples[split]
        values = measure_once(functions, params, state, examples, plan.evaluate_batch_size)
        evaluations |= {f"{split}_{name}": value for name, value in values.items()}
    return evaluations


def _track_best(rule: EarlyStopping | None, carry: Carry, values: dict[str, Array], t: Step) -> Carry:
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


def _keep(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), keep_dtypes(new, old), old)
