"""Loop around an iterative method by reverse communication, compiled or in Python.

A method that needs a sequence of products with H is written without a loop, as a `Solver`: it returns the next block to
multiply and takes the products, which ARPACK calls reverse communication. This module has the loop, one
`lax.while_loop` around the product or, where `op.loop` is "host", a Python loop that calls a compiled product.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from jaxopt_study._programs import jit_solver
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.chunks import Chunks
from jaxopt_study.linalg.layout import Layout, seed_words
from jaxopt_study.linalg.operator import LinearMap
from jaxopt_study.types import Key, Matvec, Vector

LANES = "lanes"  # axis over which `run_each` vectorises solves; a solver may reduce over it


@runtime_checkable
class State(Protocol):
    """State of a solver between products: any pytree with a flag that ends the loop."""

    @property
    def done(self) -> Bool[Array, ""]:
        """Whether no further product is needed."""
        ...


@runtime_checkable
class Solver(Protocol):
    """An iterative method as its step between two products: the next block to multiply, and the state after it.

    A solver is hashable, for instance a frozen dataclass, and a static argument of compiled functions: its fields are
    fixed at compile time. `limits` are the numbers that may change without compiling again.

    With `scaled`, a solver receives products with H/s, where s is the power of two next to the largest entry of the
    first nonzero product: numbers of order one at any scale of the operator, and the same ones for H and 2H. `result`
    then multiplies by s every quantity with the dimension of an eigenvalue. Without `scaled`, s is 1.
    """

    @property
    def layout(self) -> Layout | Chunks:
        """Layout of the solver's vectors."""
        ...

    @property
    def block_size(self) -> int:
        """Number b of vectors in a block."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether the solver receives products with H/s."""
        ...

    def initial(self, seed: Any, start: Any, /) -> Any:
        """Return the state before the first product.

        Args:
            seed: Seed of random directions for `Layout.random`; None if the caller gave no key.
            start: The caller's start.
        """
        ...

    def next_block(self, state: Any, /) -> Vector:
        """Return the next block of b vectors to multiply, in the solver's layout."""
        ...

    def update(self, limits: Any, seed: Any, state: Any, products: Vector, /) -> Any:
        """Return the state after the products with `next_block(state)`, with `done` set after the last one."""
        ...

    def result(self, limits: Any, state: Any, unit: Float[Array, ""], /) -> Any:
        """Return the result from the last state and the unit s of the products."""
        ...


class _Run(NamedTuple):
    state: Any
    unit: Float[Array, "*lanes"]  # s; 0 while all products were zero


def run(
    solver: Solver,
    op: LinearMap,
    limits: Any,
    key: Key | None,
    start: Any = None,
    *,
    product: Matvec | None = None,
) -> Any:
    """Run a solver to its end, in the operator's kind of loop.

    Args:
        solver: The method.
        op: The linear map; for blocks of more than one vector a `LinearOperator`.
        limits: Limits for the solver.
        key: Key of the solver's random directions, not consumed; None for a solver without any.
        start: Start for the solver's `initial`.
        product: `op.product()`, for a Python loop with an operator that is already linearised.

    Returns:
        The solver's `result`. Cost: one linearisation and the products.
    """
    if op.loop == "host":
        return _from_python(solver, product or op.product(), limits, key, start)
    return _compiled(solver, op, limits, key, start)


def run_each(solver: Solver, op: LinearMap, limits: Any, keys: Key, at_once: int = 1) -> Any:
    """Run a solver once for each of p keys, with one linearisation.

    Args:
        solver: The method.
        op: The linear map.
        limits: Limits for the solver.
        keys: p keys.
        at_once: Number of solves, a divisor of p, that a compiled loop vectorises over the axis `LANES`; it ends with
            the last of them.

    Returns:
        The results, stacked along a leading axis of length p.
    """
    if op.loop == "host":
        product = op.product()
        return _stacked([_from_python(solver, product, limits, key, None) for key in keys])
    return _compiled_each(solver, op, limits, keys, at_once)


def trace(solver: Solver, op: LinearMap, limits: Any, key: Key | None, start: Any = None) -> Any:
    """Run a solver inside a trace: the operator is linearised once, and its product occurs once in the program.

    Returns:
        The solver's `result`.
    """
    return _loop(solver, _in_layout(solver, op), limits, key, start)


def trace_each(solver: Solver, product: Matvec, limits: Any, keys: Key) -> Any:
    """Run a solver of single vectors once for each of p keys inside a trace, with a product of the user's structure.

    Returns:
        The results, stacked along a leading axis of length p.
    """
    in_layout = _of_one_vector(solver.layout, product)
    return lax.map(lambda key: _loop(solver, in_layout, limits, key, None), keys)


_compiled = jit_solver(trace, static_argnums=(0,))


@partial(jit_solver, static_argnums=(0, 4))
def _compiled_each(solver: Solver, op: LinearMap, limits: Any, keys: Key, at_once: int) -> Any:
    product = _in_layout(solver, op)
    one = lambda key: _loop(solver, product, limits, key, None)
    if at_once == 1:
        return lax.map(one, keys)
    blocks = keys.reshape(-1, at_once, *keys.shape[1:])
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lax.map(jax.vmap(one, axis_name=LANES), blocks))


def _loop(solver: Solver, product: Matvec, limits: Any, key: Key | None, start: Any) -> Any:
    seed = _seed(key)
    last = lax.while_loop(
        lambda run: ~run.state.done,
        lambda run: _updated(solver, limits, seed, run, product(solver.next_block(run.state))),
        _started(solver, seed, start),
    )
    return _ended(solver, limits, last)


def _seed(key: Key | None) -> UInt32[Array, "2"] | None:
    return None if key is None else seed_words(key)


def _started(solver: Solver, seed: UInt32[Array, "2"] | None, start: Any) -> _Run:
    return _Run(solver.initial(seed, start), jnp.zeros((), solver.layout.scalar))


def _updated(solver: Solver, limits: Any, seed: UInt32[Array, "2"] | None, run: _Run, products: Vector) -> _Run:
    if not solver.scaled:
        return _Run(solver.update(limits, seed, run.state, products), run.unit)
    unit = vectors.settled_unit(run.unit, products)
    return _Run(solver.update(limits, seed, run.state, vectors.in_units(unit, products)), unit)


def _ended(solver: Solver, limits: Any, run: _Run) -> Any:
    return solver.result(limits, run.state, jnp.where(run.unit > 0, run.unit, 1))


def _in_layout(solver: Solver, op: LinearMap) -> Matvec:
    layout = solver.layout
    if solver.block_size > 1:
        with_blocks: Any = op
        product = with_blocks.linearize_block()
        return lambda block: jax.vmap(layout.pack)(product(jax.vmap(layout.unpack)(block)))
    return _of_one_vector(layout, op.linearize())


def _of_one_vector(layout: Layout | Chunks, product: Matvec) -> Matvec:
    def of_one(block: Vector) -> Vector:
        image = layout.pack(product(layout.unpack(vectors.row(block, 0))))
        return jax.tree.map(lambda leaf: leaf[None], image)

    return of_one


def _from_python(solver: Solver, product: Matvec, limits: Any, key: Key | None, start: Any) -> Any:
    run, block, seed = _begin(solver, key, start)
    while not bool(run.state.done):
        images = _stacked([product(vector) for vector in block])
        run, block = _next(solver, limits, seed, run, images)
    return _finish(solver, limits, run)


def _unpacked(solver: Solver, run: _Run) -> list[Vector]:
    block = solver.next_block(run.state)
    return [solver.layout.unpack(vectors.row(block, i)) for i in range(solver.block_size)]


@partial(jit_solver, static_argnums=0)
def _begin(solver: Solver, key: Key | None, start: Any) -> tuple[_Run, list[Vector], UInt32[Array, "2"] | None]:
    seed = _seed(key)
    run = _started(solver, seed, start)
    return run, _unpacked(solver, run), seed


@partial(jit_solver, static_argnums=0, donate_argnums=3)
def _next(
    solver: Solver, limits: Any, seed: UInt32[Array, "2"] | None, run: _Run, images: Vector
) -> tuple[_Run, list[Vector]]:
    run = _updated(solver, limits, seed, run, jax.vmap(solver.layout.pack)(images))
    return run, _unpacked(solver, run)


@partial(jit_solver, static_argnums=0)
def _finish(solver: Solver, limits: Any, run: _Run) -> Any:
    return _ended(solver, limits, run)


_stacked = jax.jit(vectors.stack)
