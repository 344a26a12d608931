"""The Gauss–Newton matrix of softmax cross-entropy in closed form is the dense one, in little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import SoftmaxCrossEntropy, ggn, hessian
from jaxopt_study.problems.networks import cross_entropy, token_cross_entropy

X = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
Y = np.array([[0, 2, -1], [1, 1, 0], [-1, -1, -1], [2, -1, -1], [0, 1, 2]], np.int32)
PARAMS = {"a": jax.random.normal(jax.random.key(0), (4, 3)) / 2, "b": jax.random.normal(jax.random.key(1), (3, 3)) / 2}


def model(params, batch):
    return jnp.tanh(batch["x"] @ params["a"]) @ params["b"]


def dense(batch, weights):
    """JᵀHJ from its definition in double precision, one example or token after the other."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(np.asarray(p), jnp.float64), PARAMS)
        flat, unravel = jax.flatten_util.ravel_pytree(wide)
        x = jnp.asarray(batch["x"], jnp.float64)
        logits = np.asarray(model(wide, {"x": x})).reshape(-1, 3)
        jacobian = np.asarray(jax.jacobian(lambda p: model(unravel(p), {"x": x}))(flat)).reshape(-1, 3, flat.size)
    total = np.zeros((flat.size, flat.size))
    for z, j, w in zip(logits, jacobian, weights.ravel(), strict=True):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        total += w * j.T @ (np.diag(p) - np.outer(p, p)) @ j
    return total


CASES = {
    "classes": ({"x": X[:, 0], "y": np.abs(Y[:, 0])}, np.full(5, 1 / 5)),
    "tokens": ({"x": X, "y": Y}, (Y >= 0) / np.maximum((Y >= 0).sum(axis=1, keepdims=True), 1) / 5),
}


@pytest.mark.parametrize("name", CASES)
def test_the_closed_form_is_the_dense_matrix(name):
    batch, weights = CASES[name]
    exact = dense(batch, weights)
    for options in ({}, {"batch_size": 2}, {"remat": True}):
        op = ggn(model, SoftmaxCrossEntropy(), PARAMS, batch, **options)
        np.testing.assert_allclose(op.to_dense(), exact, atol=1e-6 * np.abs(exact).max() + 1e-7)
    v = jax.tree.map(jnp.ones_like, PARAMS)
    found = jax.flatten_util.ravel_pytree(op @ v)[0]
    np.testing.assert_allclose(found, exact @ np.ones(exact.shape[0]), atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_the_networks(name):
    batch, _ = CASES[name]
    loss = cross_entropy if name == "classes" else token_cross_entropy
    logits = model(PARAMS, batch)
    np.testing.assert_allclose(SoftmaxCrossEntropy()(logits, batch), loss(logits, batch["y"]), rtol=1e-6)


def test_equal_losses_compile_once_and_targets_can_be_anywhere():
    pair = (X[:, 0], np.abs(Y[:, 0]))
    assert SoftmaxCrossEntropy() == SoftmaxCrossEntropy()
    of_pair = lambda params, batch: model(params, {"x": batch[0]})
    one = ggn(of_pair, SoftmaxCrossEntropy(), PARAMS, pair).to_dense()
    other = ggn(of_pair, SoftmaxCrossEntropy(lambda batch: batch[1]), PARAMS, pair).to_dense()
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_logits_of_any_size_are_finite(offset):
    shifted = lambda params, batch: model(params, batch) + offset
    batch, weights = CASES["classes"]
    found = ggn(shifted, SoftmaxCrossEntropy(), PARAMS, batch).to_dense()
    np.testing.assert_allclose(found, dense(batch, weights), atol=2e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_a_product_holds_two_arrays_of_logits_and_so_do_many_that_keep_nothing(count):
    classes, tokens, width = 2048, 128, 8
    params = jax.ShapeDtypeStruct((width, classes), np.float32)
    batch = (jax.ShapeDtypeStruct((tokens, width), np.float32), jax.ShapeDtypeStruct((tokens,), np.int32))
    model = lambda p, b: jnp.tanh(b[0]) @ p

    def solve(p, v, b):
        product = ggn(model, SoftmaxCrossEntropy(), p, b, remat=count > 1 or None).linearize()
        return jax.lax.scan(lambda v, _: (product(v), None), v, None, length=count)[0]

    one = lambda p, v, b: ggn(model, SoftmaxCrossEntropy(), p, b).matvec(v)
    compiled = jax.jit(one if count == 1 else solve).lower(params, params, batch).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2.1 * 4 * classes * tokens


def layers(params, x):
    step = jax.checkpoint(lambda x, w: (jnp.tanh(jnp.tanh(x @ w[0]) @ w[1]), None))
    return jnp.mean(jax.lax.scan(step, x, params)[0] ** 2)


def test_a_product_of_checkpointed_layers_in_a_scan_takes_the_memory_of_three_gradients():
    params, x = jax.ShapeDtypeStruct((12, 2, 16, 16), np.float32), jax.ShapeDtypeStruct((256, 16), np.float32)
    held = []
    for program in (jax.grad(layers), lambda p, x: hessian(layers, p, x).matvec(p)):
        found = jax.jit(program).lower(params, x).compile().memory_analysis()
        held.append(found.temp_size_in_bytes + found.output_size_in_bytes + found.argument_size_in_bytes)
    assert held[1] < 3 * held[0]
    drawn = jax.random.normal(jax.random.key(0), (3, 2, 4, 4)), jnp.ones((2, 4))
    op = hessian(layers, *drawn)
    assert op.remat
    kept = hessian(layers, *drawn, remat=False)
    assert not kept.remat
    np.testing.assert_allclose(op.to_dense(), kept.to_dense(), atol=1e-6)


WRONG = {
    "shape": (
        lambda: ggn(model, SoftmaxCrossEntropy(), PARAMS, {"x": X, "y": Y[:, :2]}),
        ValueError,
        "without the last",
    ),
    "floats": (lambda: ggn(model, SoftmaxCrossEntropy(), PARAMS, {"x": X, "y": X[..., 0]}), TypeError, "be integers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_targets_say_what_to_do(name):
    call, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        call()


def test_a_target_that_is_no_class_gives_no_number():
    logits = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
    for wrong in (-1, 3):
        targets = jnp.array([0, wrong], jnp.int8)
        assert np.isnan(SoftmaxCrossEntropy()(logits, {"y": targets}))
        assert np.isnan(jax.jit(cross_entropy)(logits, targets))
    tokens = SoftmaxCrossEntropy()(logits[None], {"y": jnp.array([[0, -1]])})  # which does not count there
    np.testing.assert_allclose(tokens, np.log(np.exp([0.0, 1.0, -1.0]).sum()), rtol=1e-6)
