"""Loops over steps, compiled as one program or run step by step from Python."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxopt_study._programs import RANDOM_DRAWS, jit_convolutions
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._observe import observe
from jaxopt_study.training._run_spec import Carry, Constants, Inputs, Plan, Step
from jaxopt_study.training._start import start
from jaxopt_study.training._step import step
from jaxopt_study.transforms import read_taps
from jaxopt_study.types import Key, Params

begin = jax.jit(start, static_argnames="plan", compiler_options=RANDOM_DRAWS)


def records_like(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry) -> dict[str, Any]:
    """Return the shapes of one record of each kind, without tracing a step."""
    like = {"losses": jax.ShapeDtypeStruct((), plan.loss_dtype), "taps": jax.eval_shape(read_taps, carry.opt_state)}
    for what in plan.cadences:
        if what == "probes" and reads_loader(plan):
            continue  # measured from Python only
        like[what] = jax.eval_shape(partial(observe, plan, what=what), inputs, constants, carry, jnp.int32(0))[1]
    return like


def advance(
    plan: Plan,
    inputs: Inputs,
    constants: Constants,
    carry: Carry,
    first: Step,
    stop: Step,
    capacity: int,
) -> tuple[Carry, dict[str, Any]]:
    """Return carry and records after the steps first … stop − 1 of one compiled loop.

    The bounds may be traced, so one program serves all parts of all runs of a plan. Records are arrays of fixed length,
    of which the caller reads the written part.
    """
    like = records_like(plan, inputs, constants, carry)
    if capacity == 0:
        return carry, jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), like)
    length = {what: -(-capacity // plan.cadences.get(what, 1)) + (what in plan.cadences) for what in like}
    records = _room(like, length)

    def body(t: Step, loop: tuple[Carry, dict[str, Any]]) -> tuple[Carry, dict[str, Any]]:
        carry, records = loop
        records = dict(records)
        for what, every in plan.cadences.items():
            slot = t // every - (first + every - 1) // every

            def record(operands: Any, what: str = what, slot: Step = slot) -> Any:
                carry, buffer = operands
                carry, value = observe(plan, inputs, constants, carry, t, what)
                return carry, _write(buffer, slot, value)

            operands = carry, records[what]
            carry, records[what] = (
                record(operands) if every == 1 else jax.lax.cond(t % every == 0, record, lambda same: same, operands)
            )
        carry, values = step(plan, inputs, constants, carry, t)
        return carry, records | {what: _write(records[what], t - first, value) for what, value in values.items()}

    return jax.lax.fori_loop(first, stop, body, (carry, records))


def conclude(
    plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, num_steps: Step
) -> tuple[Carry, dict[str, Any]]:
    """Return the carry and the records made after the last step."""
    last = {}
    for what in plan.cadences:
        carry, last[what] = observe(plan, inputs, constants, carry, num_steps, what)
    return carry, last


@partial(jax.jit, static_argnames=("plan", "num_steps"))
def whole_run(
    plan: Plan, inputs: Inputs, params: Params, key: Key, num_steps: int
) -> tuple[Constants, Carry, dict, dict]:
    """Return a whole run without the Python loop, for `vmap` and `jit`."""
    constants, carry = start(plan, inputs, params, key)
    if len(set(plan.cadences.values())) == 1:
        return constants, *segments(plan, inputs, constants, carry, num_steps)
    carry, records = advance(plan, inputs, constants, carry, 0, num_steps, num_steps)
    records = {
        what: jax.tree.map(lambda x, n=-(-num_steps // every): x[:n], records[what])
        for what, every in ({"losses": 1, "taps": 1} | plan.cadences).items()
    }
    carry, last = conclude(plan, inputs, constants, carry, num_steps)
    return constants, carry, records, last


def segments(
    plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, num_steps: int
) -> tuple[Carry, dict[str, Any], dict[str, Any]]:
    """Return the combined result of `advance` and `conclude` when all records have the same cadence.

    The loop runs over segments of steps, each of which begins with its records; the last segment has records only.
    Everything then occurs only once in the program, which halves the compile time of evaluations.
    """
    every = next(iter(plan.cadences.values()))
    count = -(-num_steps // every) + 1
    like = records_like(plan, inputs, constants, carry)
    length = {what: count if what in plan.cadences else num_steps for what in like}

    def segment(k: Step, loop: tuple[Carry, dict[str, Any]]) -> tuple[Carry, dict[str, Any]]:
        first = jnp.minimum(k * every, num_steps)
        carry, records = loop
        for what in plan.cadences:
            carry, value = observe(plan, inputs, constants, carry, first, what)
            records = records | {what: _write(records[what], k, value)}

        def body(t: Step, loop: tuple[Carry, dict[str, Any]]) -> tuple[Carry, dict[str, Any]]:
            carry, records = loop
            carry, values = step(plan, inputs, constants, carry, t)
            return carry, records | {what: _write(records[what], t, value) for what, value in values.items()}

        return jax.lax.fori_loop(first, jnp.minimum(first + every, num_steps), body, (carry, records))

    room = {what: max(n, 1) for what, n in length.items()}  # a loop of zero steps is traced, too
    carry, records = jax.lax.fori_loop(0, count, segment, (carry, _room(like, room)))
    return (
        carry,
        {what: jax.tree.map(lambda x, n=length[what] - (what in plan.cadences): x[:n], records[what]) for what in like},
        {what: jax.tree.map(lambda x: x[-1], records[what]) for what in plan.cadences},
    )


@partial(jax.jit, static_argnames="plan", donate_argnames="carry")
def next_chunk(
    plan: Plan,
    inputs: Inputs,
    constants: Constants,
    carry: Carry,
    first: Step,
    stop: Step,
) -> tuple[Carry, dict[str, Any]]:
    """Return carry and records after some steps in a compiled loop that overwrites the carry."""
    return advance(plan, inputs, constants, carry, first, stop, plan.capacity)


@partial(jax.jit, static_argnames="plan", donate_argnames="carry")
def next_step(plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Step) -> tuple[Carry, dict[str, Any]]:
    """Return carry and record after one step that overwrites the carry."""
    return step(plan, inputs, constants, carry, t)


next_chunk_with_convolutions, _next_step_with_convolutions = (
    jit_convolutions(inspect.unwrap(program), static_argnums=0, donate_argnums=3) for program in (next_chunk, next_step)
)


@partial(jax.jit, static_argnames=("plan", "what"), donate_argnames="carry")
def next_record(
    plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, t: Step, what: str
) -> tuple[Carry, PyTree]:
    """Return carry and one record; overwrites the carry."""
    return observe(plan, inputs, constants, carry, t, what)


def last_records(
    plan: Plan, inputs: Inputs, constants: Constants, carry: Carry, num_steps: Step
) -> tuple[Carry, dict[str, Any]]:
    """Return carry and last records; overwrites the carry."""
    finish = conclude if reads_loader(plan) else _concluded
    return finish(plan, inputs, constants, carry, num_steps)


_concluded = jax.jit(conclude, static_argnames="plan", donate_argnames="carry")


def reads_loader(plan: Plan) -> bool:
    """Return whether the probe reads its data from Python, so that records are made there."""
    return isinstance(plan.probe, CurvatureProbe) and plan.probe.reads_loader


def host_chunk(
    plan: Plan,
    inputs: Inputs,
    constants: Constants,
    carry: Carry,
    first: int,
    stop: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[Carry, dict[str, Any], int]:
    """Return the same as `next_chunk`, with one call per step first … stop − 1, and the step at which it stopped.

    Interrupts are checked before every step except the first.
    """
    record = observe if reads_loader(plan) else next_record
    advance_once = _next_step_with_convolutions if plan.convolutional else next_step
    collected: dict[str, list] = {"losses": [], "taps": []} | {what: [] for what in plan.cadences}
    for t in range(first, stop):
        if t > first and interrupted():
            stop = t
            break
        step_number = np.int32(t)
        for what, every in plan.cadences.items():
            if t % every == 0:
                carry, value = record(plan, inputs, constants, carry, step_number, what)
                collected[what].append(value)
        carry, values = advance_once(plan, inputs, constants, carry, step_number)
        for what, value in values.items():
            collected[what].append(value)
    records = {what: jax.tree.map(lambda *xs: np.stack(xs), *values) for what, values in collected.items() if values}
    return carry, records, stop


def _room(like: dict[str, Any], length: dict[str, int]) -> dict[str, Any]:
    # Zeros, not NaN, which would trigger `jax_debug_nans`; the number of steps tells which slots are valid.
    return {
        what: jax.tree.map(lambda x, n=length[what]: jnp.zeros((n, *x.shape), x.dtype), like[what]) for what in like
    }


def _write(buffer: PyTree, slot: Step, value: PyTree) -> PyTree:
    return jax.tree.map(lambda b, v: b.at[slot].set(v.astype(b.dtype), mode="promise_in_bounds"), buffer, value)
