"""Operators against the matrices they stand for, in NumPy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import eigsh

from jaxopt_study.curvature import from_matrix, from_matvec, hessian
from jaxopt_study.linalg import vectors

RNG = np.random.default_rng(0)
LIKE = {"a": {"w": np.zeros((2, 3)), "b": np.zeros(3)}, "c": np.zeros(())}
SIZE = 10


def symmetric(n, seed=0):
    a = np.random.default_rng(seed).normal(size=(n, n))
    return a + a.T


def from_tree(matrix):
    """An operator on the pytree LIKE: ravelled in JAX's order, multiplied, unravelled."""
    _, unravel = ravel_pytree(jax.tree.map(jnp.asarray, LIKE))
    function = jax.tree_util.Partial(lambda m, v: unravel(m @ ravel_pytree(v)[0]), jnp.asarray(matrix))
    return from_matvec(function, jax.tree.map(jnp.asarray, LIKE))


def tree(x):
    return {"a": {"b": x[:3], "w": x[3:9].reshape(2, 3)}, "c": x[9]}


def flat(v):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(v)])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_products_on_a_pytree_are_those_of_the_matrix_in_the_order_of_the_leaves():
    a, x = symmetric(SIZE), RNG.normal(size=SIZE)
    op = from_tree(a)
    assert op.size == SIZE
    assert op.dtype == jnp.float64
    for product in (op.__matmul__, op.product(), jax.jit(op.matvec), jax.jit(op.linearize())):
        np.testing.assert_allclose(flat(product(tree(x))), a @ x, rtol=1e-13)
    np.testing.assert_allclose(op.to_dense(), a, rtol=1e-13)


def test_sums_multiples_blocks_and_preconditioning_are_those_of_matrices():
    a, b, p = symmetric(SIZE, 1), symmetric(SIZE, 2), RNG.uniform(0.5, 2.0, SIZE)
    chosen = np.arange(3, 9)
    one, other = from_tree(a), from_tree(b)
    cases = {
        "sum": (one + other, a + b),
        "difference": (one - other, a - b),
        "multiple": (np.float64(3.0) * one / 2, 1.5 * a),
        "negative": (-one, -a),
        "preconditioned": (one.precondition(tree(p)), a / np.sqrt(np.outer(p, p))),
        "by a number per leaf": (
            one.precondition({"a": {"b": 4.0, "w": 1.0}, "c": 1.0}),
            a / np.sqrt(np.outer(*[np.r_[[4.0] * 3, [1.0] * 7]] * 2)),
        ),
        "all of it": (
            ((one + 2.0 * other).precondition(tree(p)) - one).restrict(lambda path: path == "a/w"),
            ((a + 2 * b) / np.sqrt(np.outer(p, p)) - a)[np.ix_(chosen, chosen)],
        ),
    }
    for name, (op, expected) in cases.items():
        np.testing.assert_allclose(op.to_dense(), expected, rtol=1e-12, atol=1e-13, err_msg=name)
        v = vectors.random_like(op.like, key=jax.random.key(0))
        np.testing.assert_allclose(flat(op.product()(v)), expected @ flat(v), rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        (lambda path: path.startswith("a/"), range(9)),
        ({"a": {"b": True, "w": False}, "c": True}, [0, 1, 2, 9]),
        ({"a": True, "c": False}, range(9)),  # a prefix
    ],
)
def test_a_restricted_operator_is_the_diagonal_block_and_takes_none_for_the_rest(selection, rows):
    a = symmetric(SIZE)
    op = from_tree(a).restrict(selection)
    np.testing.assert_allclose(op.to_dense(), a[np.ix_(rows, rows)], rtol=1e-13)
    assert op.size == len(list(rows))
    twice = op.restrict(lambda path: path == "a/b")
    np.testing.assert_allclose(twice.to_dense(), a[:3, :3], rtol=1e-13)
    assert twice.like["a"]["w"] is None


def test_a_block_is_multiplied_vector_by_vector():
    a = symmetric(SIZE)
    op, block = from_tree(a), RNG.normal(size=(4, SIZE))
    result = op.matmat(jax.vmap(tree)(jnp.asarray(block)))
    np.testing.assert_allclose(jax.vmap(lambda v: ravel_pytree(v)[0])(result), block @ a, rtol=1e-12)
    host = from_matvec(lambda v: 2.0 * v, jnp.zeros(3), loop="host")
    np.testing.assert_array_equal(host.matmat(jnp.ones((2, 3))), np.full((2, 3), 2.0))
    np.testing.assert_array_equal(jax.jit(host.linearize_block())(jnp.ones((2, 3))), np.full((2, 3), 2.0))


def test_a_function_of_numpy_is_refused_with_the_way_to_call_it():
    doubled = lambda v: 2 * np.asarray(v)
    for loop in ("compiled", "host"):
        with pytest.raises(TypeError, match=r"raises TracerArrayConversionError, .* in jax\.pure_callback"):
            from_matvec(doubled, jnp.zeros(3), loop=loop)
    called = from_matvec(lambda v: jax.pure_callback(doubled, v, v), jnp.zeros(3), loop="host")
    np.testing.assert_array_equal(called @ jnp.ones(3), np.full(3, 2.0))


def test_scipy_finds_the_eigenvalues():
    a = symmetric(SIZE)
    wrapped = from_tree(a).to_scipy()
    assert wrapped.shape == (SIZE, SIZE)
    values = eigsh(wrapped, k=3, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(a)[-3:], rtol=1e-10)
    np.testing.assert_allclose(wrapped.rmatvec(np.eye(SIZE)[0]), a[0], rtol=1e-13)


def test_an_operator_is_an_argument_and_new_numbers_do_not_compile_again(compilations):
    ops = [from_matrix(symmetric(4, seed)) + 2.0 * from_matrix(symmetric(4, seed + 9)) for seed in range(3)]
    v = jnp.ones(4)
    with compilations() as counter:
        for op in ops:
            op @ v
    assert counter.products == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ops)
    together = jax.vmap(lambda op: op.matvec(jnp.ones(4)))(stacked)
    np.testing.assert_allclose(together, np.stack([op @ jnp.ones(4) for op in ops]), rtol=1e-13)


def test_a_loss_operator_is_compiled_once_for_the_same_functions(compilations):
    def loss(p, x):
        return jnp.mean(jnp.tanh(x @ p) ** 2)

    with compilations() as counter:
        for scale in (1.0, 2.0):
            hessian(loss, scale * jnp.ones(3), scale * jnp.eye(3)) @ jnp.ones(3)
    assert counter.products == 1


def test_vectors_are_combined_as_their_coordinates_are():
    x, y, c = RNG.normal(size=(5, SIZE)), RNG.normal(size=(2, SIZE)), RNG.normal(size=(5, 3))
    basis, block = (jax.vmap(tree)(jnp.asarray(rows)) for rows in (x, y))
    a, b = vectors.row(block, 0), vectors.row(block, 1)
    np.testing.assert_allclose(vectors.inner(a, b), y[0] @ y[1], rtol=1e-13)
    np.testing.assert_allclose(vectors.norm(a), np.linalg.norm(y[0]), rtol=1e-13)
    np.testing.assert_allclose(vectors.project(basis, a), x @ y[0], rtol=1e-12)
    np.testing.assert_allclose(vectors.gram(basis, block), x @ y.T, rtol=1e-12)
    np.testing.assert_allclose(flat(vectors.combine(basis, jnp.asarray(c[:, 0]))), c[:, 0] @ x, rtol=1e-12)
    combined = jax.vmap(lambda v: ravel_pytree(v)[0])(vectors.combine(basis, jnp.asarray(c)))
    np.testing.assert_allclose(combined, c.T @ x, rtol=1e-12)
    np.testing.assert_allclose(flat(vectors.axpy(2.0, a, b)), 2 * y[0] + y[1], rtol=1e-13)
    np.testing.assert_allclose(flat(vectors.row(vectors.with_row(basis, 3, a), 3)), y[0])
    zero, length = vectors.normalize(vectors.zeros_like(a))
    assert float(length) == 0.0
    assert not np.any(flat(zero))
    assert [leaf.shape for leaf in jax.tree.leaves(vectors.zeros_basis(a, 7))] == [(7, 3), (7, 2, 3), (7,)]


def test_half_precision_vectors_are_summed_in_single_precision():
    ones = jnp.ones(5000, jnp.bfloat16)  # in bfloat16 a running sum of ones stops at 256
    assert float(vectors.inner(ones, ones)) == 5000.0
    assert vectors.combine(ones[None], jnp.ones(1)).dtype == jnp.bfloat16


@pytest.mark.parametrize("distribution", ["normal", "rademacher", "sphere"])
def test_random_vectors_have_the_second_moments_of_their_distribution(distribution):
    draw = jax.jit(jax.vmap(lambda key: vectors.random_like(tree(jnp.zeros(SIZE)), key=key, distribution=distribution)))
    sample = np.asarray(jax.vmap(lambda v: ravel_pytree(v)[0])(draw(jax.random.split(jax.random.key(1), 4000))))
    variance = 1 / SIZE if distribution == "sphere" else 1.0
    np.testing.assert_allclose(sample.T @ sample / 4000, variance * np.eye(SIZE), atol=6 * variance / np.sqrt(4000))
    if distribution == "rademacher":
        assert set(np.unique(sample)) == {-1.0, 1.0}
    if distribution == "sphere":
        np.testing.assert_allclose(np.linalg.norm(sample, axis=1), 1.0, rtol=1e-12)


WRONG = {
    "structure": (lambda op, good, single: op @ {"a": good["a"]}, ValueError, "structure of the parameters"),
    "shape": (lambda op, good, single: op @ {**good, "c": jnp.ones(2)}, ValueError, "of the vector must have shape"),
    "kind": (lambda op, good, single: op @ {**good, "c": "x"}, TypeError, "must be an array"),
    "digits": (lambda op, good, single: single @ jnp.ones(2, jnp.float64), TypeError, "float32; received float64"),
    "integers": (lambda op, good, single: single @ jnp.ones(2, int), TypeError, "must be float32; received int64"),
    "block": (lambda op, good, single: op.matmat(good), ValueError, "leaf 'a/b' of the block must have shape"),
    "scalars": (lambda op, good, single: single.matmat(jnp.ones(())), ValueError, "leading axis"),
    "dense": (lambda op, good, single: op.to_dense(max_size=9), ValueError, "at most max_size = 9 coordinates"),
    "spaces": (lambda op, good, single: op + single, ValueError, "vectors of the same structure"),
    "nothing": (lambda op, good, single: op.restrict(lambda path: False), ValueError, "paths are: a/b, a/w, c"),
    "prefix": (lambda op, good, single: op.restrict({"z": True}), ValueError, "prefix"),
    "bools": (lambda op, good, single: op.restrict({"a": 1.0, "c": 2.0}), TypeError, "received values of type float"),
    "negative": (lambda op, good, single: op.precondition(tree(-np.ones(SIZE))), ValueError, "positive and finite"),
    "other": (lambda op, good, single: op.precondition({"a": 1.0}), ValueError, "must have the structure"),
    "long": (lambda op, good, single: single.precondition(np.ones(3)), ValueError, r"shape \(2,\) or \(\)"),
    "product": (lambda op, good, single: op * single, TypeError, "unsupported operand"),
    "square": (lambda op, good, single: from_matrix(np.ones((2, 3))), ValueError, "square matrix"),
    "asymmetric": (lambda op, good, single: from_matrix(np.triu(np.ones((3, 3)))), ValueError, r"Give \(A \+ Aᵀ\)/2"),
    "infinite": (lambda op, good, single: from_matrix(np.full((2, 2), np.inf)), ValueError, "finite"),
    "complex": (lambda op, good, single: from_matrix(np.eye(2) * 1j), TypeError, "real matrix"),
    "no leaves": (lambda op, good, single: from_matvec(lambda v: v, {}), ValueError, "at least one array"),
    "int like": (lambda op, good, single: from_matvec(lambda v: v, jnp.ones(2, int)), TypeError, "floating-point"),
    "changes": (lambda op, good, single: from_matvec(lambda v: v[:2], jnp.ones(3)), ValueError, "must return a vector"),
    "empty": (lambda op, good, single: vectors.inner({}, {}), ValueError, "at least one leaf"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_use_gets_its_own_message(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call(from_tree(symmetric(SIZE)), tree(jnp.ones(SIZE)), from_matrix(np.eye(2, dtype=np.float32)))
