"""Run a solver that asks for one product after the other: in one compiled loop, or from Python."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxopt_study._programs import jit_solver
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.layout import Layout, seed_words
from jaxopt_study.linalg.operator import LinearOperator
from jaxopt_study.types import Key, Vector


class Method(NamedTuple):
    """A solver as four functions; `plan` has a `layout` and a `block_size`, `state` a flag `done`.

    Both ways of running it call the same four, and only they know what is computed. What they compute with is H/s,
    where s is the power of two next to the largest entry of the first product: numbers of order one, whatever the
    operator's scale, and the same ones for H and 2H. `result` multiplies by s what has the dimension of an eigenvalue.
    """

    initial: Callable[..., Any]  # (plan, seed, start) -> state
    wanted: Callable[..., Vector]  # (plan, state) -> the block to be multiplied next, in the layout of the plan
    advance: Callable[..., Any]  # (plan, limits, seed, state, products/s) -> state
    result: Callable[..., Any]  # (plan, limits, state, s) -> what the user gets


class _Run(NamedTuple):
    state: Any
    unit: Array  # s; 0 as long as every product was zero


def run(method: Method, op: LinearOperator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    """Run a solver to its end, in the way that suits the operator.

    Returns:
        What the method's `result` makes of the last state.
    """
    if op.loop == "host":
        return _from_python(method, op, plan, limits, key, start)
    return _compiled(method, op, plan, limits, key, start)


def trace(method: Method, op: LinearOperator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    """Run a solver inside a trace: the operator is linearised once, and its product occurs once in the program.

    Returns:
        What the method's `result` makes of the last state.
    """
    seed = seed_words(key)
    product = _in_layout(plan.layout, op, plan.block_size)
    last = lax.while_loop(
        lambda run: ~run.state.done,
        lambda run: _taken(method, plan, limits, seed, run, product(method.wanted(plan, run.state))),
        _started(method, plan, seed, start),
    )
    return _ended(method, plan, limits, last)


_compiled = jit_solver(trace, static_argnums=(0, 2))


def _started(method: Method, plan: Any, seed: Array, start: Vector | None) -> _Run:
    return _Run(method.initial(plan, seed, start), jnp.zeros((), plan.layout.scalar))


def _taken(method: Method, plan: Any, limits: Any, seed: Array, run: _Run, products: Vector) -> _Run:
    unit = vectors.settled_unit(run.unit, products)
    return _Run(method.advance(plan, limits, seed, run.state, vectors.in_units(unit, products)), unit)


def _ended(method: Method, plan: Any, limits: Any, run: _Run) -> Any:
    return method.result(plan, limits, run.state, jnp.where(run.unit > 0, run.unit, 1))


def _in_layout(layout: Layout, op: LinearOperator, b: int) -> Callable[[Vector], Vector]:
    if b > 1:
        product = op.linearize_block()
        return lambda block: jax.vmap(layout.pack)(product(jax.vmap(layout.unpack)(block)))
    product = op.linearize()

    def of_one(block: Vector) -> Vector:
        image = layout.pack(product(layout.unpack(vectors.row(block, 0))))
        return jax.tree.map(lambda leaf: leaf[None], image)

    return of_one


def _from_python(method: Method, op: LinearOperator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    product = op.product()
    run, asked, seed = _begin(method, plan, key, start)
    while not bool(run.state.done):
        images = vectors.stack([product(vector) for vector in asked])
        run, asked = _advance(method, plan, limits, seed, run, images)
    return _finish(method, plan, limits, run)


def _asked(method: Method, plan: Any, run: _Run) -> list[Vector]:
    block = method.wanted(plan, run.state)
    return [plan.layout.unpack(vectors.row(block, i)) for i in range(plan.block_size)]


@partial(jit_solver, static_argnums=(0, 1))
def _begin(method: Method, plan: Any, key: Key, start: Vector | None) -> tuple[_Run, list[Vector], Array]:
    seed = seed_words(key)
    run = _started(method, plan, seed, start)
    return run, _asked(method, plan, run), seed


@partial(jit_solver, static_argnums=(0, 1), donate_argnums=4)
def _advance(
    method: Method, plan: Any, limits: Any, seed: Array, run: _Run, images: Vector
) -> tuple[_Run, list[Vector]]:
    run = _taken(method, plan, limits, seed, run, jax.vmap(plan.layout.pack)(images))
    return run, _asked(method, plan, run)


@partial(jit_solver, static_argnums=(0, 1))
def _finish(method: Method, plan: Any, limits: Any, run: _Run) -> Any:
    return _ended(method, plan, limits, run)
