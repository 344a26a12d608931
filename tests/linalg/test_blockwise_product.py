"""The product of all diagonal blocks at once is that of a dense matrix with zeros off the blocks."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study._programs import equations
from jaxopt_study.linalg.blockwise_product import blockwise_product

OWNERS = (2, 0, 2, 1)  # of the leaves a, b, c, d
LIKE = {"a": jnp.zeros((3, 4)), "b": jnp.zeros((4, 4)), "c": jnp.zeros(4), "d": jnp.zeros((4, 2))}
POINT = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape), x.dtype), LIKE)
X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
CHOSEN = jnp.array([3, 1, 1, 0, 2])


def network(p):
    """Layers, a leaf that several of them use, a gather, a softmax and a kink."""
    h = jnp.tanh(X @ p["a"])
    h = jax.nn.gelu(jnp.concatenate([h[:2] @ p["b"] * p["c"], h[2:]])) + p["b"][CHOSEN]
    h = jnp.where(h > 0, h * p["c"], 0.1 * h**2)
    return jnp.mean(jax.nn.logsumexp(h @ p["d"], axis=1) ** 2) + jnp.sum(p["a"][0] * p["c"])


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def dense(function):
    columns = jax.hessian(lambda x: function(restore(x)))
    start, restore = jax.flatten_util.ravel_pytree(POINT)
    whole = np.asarray(columns(start), float)
    owner = np.repeat(OWNERS, [leaf.size for leaf in jax.tree.leaves(LIKE)])
    return np.where(owner[:, None] == owner[None, :], whole, 0)


def together(function, v):
    product = jax.linearize(jax.grad(function), POINT)[1]
    return blockwise_product(product, LIKE, OWNERS)(v)


def test_blocks_of_a_network_are_multiplied_together():
    v = jax.tree.map(lambda x: jnp.cos(3 * x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)), POINT)
    expected = dense(network) @ flat(v)
    np.testing.assert_allclose(flat(jax.jit(lambda v: together(network, v))(v)), expected, rtol=1e-4, atol=1e-5)


def test_work_that_no_block_needs_is_left_out():
    layers = {f"{i}": jnp.eye(4) for i in range(8)}

    def deep(p):
        h = X @ jnp.ones((3, 4))
        for layer in p.values():
            h = jnp.tanh(h @ layer)
        return jnp.sum(h)

    def flops(products):
        def run(p, v):
            product = jax.linearize(jax.grad(deep), p)[1]
            return products(product)(v)

        program = jax.make_jaxpr(run)(layers, layers).jaxpr
        whole = jax.make_jaxpr(lambda p: jax.linearize(jax.grad(deep), p)[0])(layers).jaxpr
        return count(program) - count(whole)

    def count(jaxpr):
        products = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
        inner = [e.params["dimension_numbers"][0][0] for e in products]
        lengths = [np.prod([e.invars[0].aval.shape[i] for i in at]) for e, at in zip(products, inner, strict=True)]
        return sum(e.outvars[0].aval.size * length for e, length in zip(products, lengths, strict=True))

    blocks = flops(lambda product: blockwise_product(product, layers, tuple(range(8))))
    whole = flops(lambda product: product)
    assert blocks < 0.25 * 8 * whole  # (L² + L) / 6 L²


def test_a_program_that_is_not_known_to_be_linear_is_refused():
    scale = lambda v: jax.tree.map(lambda x: x / (1 + jnp.sum(x**2)), v)
    loop = lambda v: jax.lax.fori_loop(0, 3, lambda _, x: jax.tree.map(lambda leaf: 2 * leaf, x), v)
    for function in (scale, loop):
        assert blockwise_product(function, LIKE, OWNERS) is None


def test_a_stack_that_takes_much_memory_is_refused():
    like = {"a": jax.ShapeDtypeStruct((4096, 4097), np.float32), "b": jax.ShapeDtypeStruct((4,), np.float32)}
    assert blockwise_product(lambda v: v, like, (0, 1)) is None


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_a_block_acts_on_its_own_part_alone(owner):
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.ones_like, LIKE))
    parts = [leaf * (at == owner) for leaf, at in zip(leaves, OWNERS, strict=True)]
    found = jax.tree.leaves(together(network, structure.unflatten(parts)))
    for leaf, at in zip(found, OWNERS, strict=True):
        assert at == owner or not np.any(leaf)
