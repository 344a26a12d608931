"""The solver loop runs any method that names its next block and takes the products, compiled or from Python."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import from_matvec
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.layout import Layout, layout_of
from jaxopt_study.linalg.solver_loop import Solver

KEY = jax.random.key(0)
SPECTRUM = np.linspace(0.0, 1.0, 40) ** 3
SPECTRUM[-1] = 3.0


class PowerState(NamedTuple):
    block: jax.Array
    values: jax.Array
    num_matvecs: jax.Array
    done: jax.Array


@dataclass(frozen=True)
class PowerIteration:
    """Several independent power iterations, side by side, written against the protocol only."""

    layout: Layout
    block_size: int
    scaled: bool = True

    def initial(self, seed, start):
        block = self.layout.random(seed, 0, self.block_size) if start is None else start
        block = jax.vmap(vectors.normalize)(block)[0]
        nothing = jnp.full(self.block_size, jnp.nan, self.layout.scalar)
        return PowerState(block, nothing, jnp.int32(0), jnp.bool(False))

    def next_block(self, state):
        return state.block

    def update(self, tol, seed, state, products):
        values = jax.vmap(vectors.inner)(state.block, products)
        rest = jax.vmap(vectors.axpy)(-values, state.block, products)
        small = jax.vmap(vectors.plain_norm)(rest) <= tol * jnp.abs(values)
        return PowerState(
            jax.vmap(vectors.normalize)(products)[0], values, state.num_matvecs + self.block_size, jnp.all(small)
        )

    def result(self, tol, state, unit):
        return unit * state.values, jax.vmap(self.layout.unpack)(state.block), state.num_matvecs


def operator(loop, scale=1.0):
    d = jnp.asarray(scale * SPECTRUM, jnp.float32)
    like = {"a": jnp.zeros(10), "b": jnp.zeros((5, 6))}

    def product(d, v):
        return {"a": d[:10] * v["a"], "b": d[10:].reshape(5, 6) * v["b"]}

    return from_matvec(Partial(product, d), like, loop=loop)


@pytest.mark.parametrize("loop", ["compiled", "host"])
@pytest.mark.parametrize("block_size", [1, 3])
def test_a_power_iteration_written_against_the_protocol_finds_the_largest_eigenvalue(loop, block_size):
    op = operator(loop)
    solver: Solver = PowerIteration(layout_of(op.like), block_size)
    values, vector, num_matvecs = solver_loop.run(solver, op, jnp.float32(1e-4), KEY)
    np.testing.assert_allclose(values, 3.0, rtol=1e-6)
    assert np.max(np.abs(vector["b"][:, -1, -1])) == pytest.approx(1, abs=1e-4)
    assert 1 < num_matvecs < 60 * block_size


def test_compiled_and_host_loop_and_a_trace_take_the_same_steps():
    solver, tol = PowerIteration(layout_of(operator("host").like), 2), jnp.float32(1e-4)
    compiled, host = (solver_loop.run(solver, operator(loop), tol, KEY) for loop in ("compiled", "host"))
    traced = jax.jit(lambda op: solver_loop.trace(solver, op, tol, KEY))(operator("compiled"))
    for other in (host, traced):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), compiled, other)


@pytest.mark.parametrize("loop", ["compiled", "host"])
@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_a_scaled_solver_computes_the_same_numbers_at_any_scale(loop, scale):
    solver, tol = PowerIteration(layout_of(operator(loop).like), 1), jnp.float32(1e-4)
    values, vector, _ = solver_loop.run(solver, operator(loop), tol, KEY)
    scaled, same, _ = solver_loop.run(solver, operator(loop, scale), tol, KEY)
    np.testing.assert_array_equal(scaled, np.float32(scale) * values)
    # Where a product is not a normal number, it is lost.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-18), vector, same)


@pytest.mark.parametrize("loop", ["compiled", "host"])
def test_a_start_without_a_key(loop):
    op = operator(loop)
    solver = PowerIteration(layout_of(op.like), 1, scaled=False)
    values, _, num_matvecs = solver_loop.run(solver, op, jnp.float32(1e-4), None, jnp.eye(40)[-1:])
    assert values == pytest.approx(3.0)
    assert num_matvecs == 1


def test_solves_for_several_keys_are_those_of_each_however_many_run_at_once():
    solver, tol, keys = PowerIteration(layout_of(operator("host").like), 1), jnp.float32(1e-4), jax.random.split(KEY, 4)
    one_by_one = [solver_loop.run(solver, operator("compiled"), tol, key)[0] for key in keys]
    for op, at_once in ((operator("compiled"), 1), (operator("compiled"), 2), (operator("host"), 1)):
        values, vector, _ = solver_loop.run_each(solver, op, tol, keys, at_once)
        np.testing.assert_allclose(values, one_by_one, rtol=1e-6)
        assert vector["b"].shape == (4, 1, 5, 6)
