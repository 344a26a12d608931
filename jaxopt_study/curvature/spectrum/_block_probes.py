"""Random probes of the diagonal blocks of an operator: Lanczos for every block, and norms on and off the blocks."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxopt_study._programs import jit_solver
from jaxopt_study.curvature.operators._block_diagonal import BlockDiagonal, only
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import solver_loop, vectors
from jaxopt_study.linalg.lanczos_of_blocks import BlockMatrices, LanczosOfBlocks
from jaxopt_study.types import Key, Vector


class Norms(NamedTuple):
    """Norms for random signs x of p probes."""

    whole: Float[Array, " p"]  # ‖H x‖
    off: Float[Array, " p"]  # ‖(H − D) x‖


def probes_from_python(
    solver: LanczosOfBlocks, diagonal: BlockDiagonal, solve_keys: Key, share_keys: Key
) -> tuple[BlockMatrices, Norms]:
    """Return tridiagonal matrices and norms of all probes, with products called from Python."""
    owners, found = diagonal.owners, []
    product = diagonal.inner.product()
    for key in share_keys:
        x = _signs(diagonal, key)
        sums = _Images(*(jax.tree.map(jnp.zeros_like, x) for _ in range(2)))
        for block in range(diagonal.num_blocks):
            sums = _added(owners, block, sums, product(_only(owners, block, x)))
        found.append(_lengths(sums))
    matrices = solver_loop.run_each(solver, diagonal, None, solve_keys)
    return matrices, Norms(*map(jnp.stack, zip(*found, strict=True)))


class _Images(NamedTuple):
    """Σ_b H P_b x = H x, and Σ_b (1 − P_b) H P_b x = (H − D) x."""

    whole: Vector
    off: Vector


def _add(owners: tuple[int, ...], block: Int[Array, ""] | int, sums: _Images, image: Vector) -> _Images:
    outside = vectors.subtract(image, only(owners, block, image))
    return _Images(vectors.add(sums.whole, image), vectors.add(sums.off, outside))


def _signs(op: Operator, key: Key) -> Vector:
    return vectors.random_like(op.like, key=key, distribution="rademacher")


@partial(jit_solver, static_argnums=0)
def compiled_probes(
    solver: LanczosOfBlocks, diagonal: BlockDiagonal, solve_keys: Key, share_keys: Key
) -> tuple[BlockMatrices, Norms]:
    """Return tridiagonal matrices and norms of all probes, from one compiled program."""
    product = diagonal.inner.linearize()
    together = diagonal.together(product)
    apart = together or partial(diagonal.one_by_one, product)

    def images(x: Vector) -> _Images:
        if together:
            whole = product(x)
            return _Images(whole, vectors.subtract(whole, together(x)))
        zeros = jax.tree.map(jnp.zeros_like, x)

        def add(block: Int[Array, ""], sums: _Images) -> _Images:
            return _add(diagonal.owners, block, sums, product(only(diagonal.owners, block, x)))

        return lax.fori_loop(0, diagonal.num_blocks, add, _Images(zeros, zeros))

    norms = lax.map(lambda key: _lengths(images(_signs(diagonal, key))), share_keys)
    return solver_loop.trace_each(solver, apart, None, solve_keys), norms


@jax.jit
def _lengths(sums: _Images) -> Norms:
    return Norms(vectors.norm(sums.whole), vectors.norm(sums.off))


_added = jax.jit(_add, static_argnums=0)
_only = jax.jit(only, static_argnums=0)
