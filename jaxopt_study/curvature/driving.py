"""Run a solver that asks for one product after the other: in one compiled loop, or from Python."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array

from jaxopt_study.curvature import vectors
from jaxopt_study.curvature.layout import Layout, seed_words
from jaxopt_study.curvature.operator import Operator
from jaxopt_study.programs import jit_solver
from jaxopt_study.types import Key, Vector


class Method(NamedTuple):
    """A solver as four functions; `plan` has a `layout` and a `block_size`, `state` a flag `done`.

    Both ways of running it call the same four, and only they know what is computed.
    """

    initial: Callable[..., Any]  # (plan, seed, start) -> state
    wanted: Callable[..., Vector]  # (plan, state) -> the block to be multiplied next, in the layout of the plan
    advance: Callable[..., Any]  # (plan, limits, seed, state, products) -> state
    result: Callable[..., Any]  # (plan, limits, state) -> what the user gets


def run(method: Method, op: Operator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    """Run a solver to its end, in the way that suits the operator.

    Returns:
        What the method's `result` makes of the last state.
    """
    if op.loop == "host":
        return _from_python(method, op, plan, limits, key, start)
    return _compiled(method, op, plan, limits, key, start)


def trace(method: Method, op: Operator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    """Run a solver inside a trace: the operator is linearised once, and its product occurs once in the program.

    Returns:
        What the method's `result` makes of the last state.
    """
    seed = seed_words(key)
    product = _in_layout(plan.layout, op, plan.block_size)
    last = lax.while_loop(
        lambda state: ~state.done,
        lambda state: method.advance(plan, limits, seed, state, product(method.wanted(plan, state))),
        method.initial(plan, seed, start),
    )
    return method.result(plan, limits, last)


_compiled = jit_solver(trace, static_argnums=(0, 2))


def _in_layout(layout: Layout, op: Operator, b: int) -> Callable[[Vector], Vector]:
    if b > 1:
        product = op.linearize_block()
        return lambda block: jax.vmap(layout.pack)(product(jax.vmap(layout.unpack)(block)))
    product = op.linearize()

    def of_one(block: Vector) -> Vector:
        image = layout.pack(product(layout.unpack(vectors.row(block, 0))))
        return jax.tree.map(lambda leaf: leaf[None], image)

    return of_one


def _from_python(method: Method, op: Operator, plan: Any, limits: Any, key: Key, start: Vector | None) -> Any:
    product = op.product()
    state, asked, seed = _begin(method, plan, key, start)
    while not bool(state.done):
        images = vectors.stack([product(vector) for vector in asked])
        state, asked = _advance(method, plan, limits, seed, state, images)
    return _finish(method, plan, limits, state)


def _asked(method: Method, plan: Any, state: Any) -> list[Vector]:
    block = method.wanted(plan, state)
    return [plan.layout.unpack(vectors.row(block, i)) for i in range(plan.block_size)]


@partial(jit_solver, static_argnums=(0, 1))
def _begin(method: Method, plan: Any, key: Key, start: Vector | None) -> tuple[Any, list[Vector], Array]:
    seed = seed_words(key)
    state = method.initial(plan, seed, start)
    return state, _asked(method, plan, state), seed


@partial(jit_solver, static_argnums=(0, 1), donate_argnums=4)
def _advance(
    method: Method, plan: Any, limits: Any, seed: Array, state: Any, images: Vector
) -> tuple[Any, list[Vector]]:
    state = method.advance(plan, limits, seed, state, jax.vmap(plan.layout.pack)(images))
    return state, _asked(method, plan, state)


@partial(jit_solver, static_argnums=(0, 1))
def _finish(method: Method, plan: Any, limits: Any, state: Any) -> Any:
    return method.result(plan, limits, state)
