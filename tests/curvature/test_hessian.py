"""Operators of a loss against dense derivatives in double precision, and what they cost."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxopt_study.curvature import empirical_fisher, ggn, hessian
from jaxopt_study.curvature.operators._batch_norm_checks import refusing_batch_norm
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.dense import ravel, unravel
from jaxopt_study.linalg.operator import _apply, _prepare

N = 11
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)), RNG.integers(0, 3, N)
POINT = {
    "in": {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)},
    "out": {"w": RNG.normal(size=(2, 3)), "b": RNG.normal(size=3)},
}


def model(params, batch):
    h = jnp.tanh(batch["x"] @ params["in"]["w"] + params["in"]["b"])
    return h @ params["out"]["w"] + params["out"]["b"]


def cross_entropies(logits, batch):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["y"][:, None], axis=1)[:, 0]


def output_loss(logits, batch):
    return jnp.mean(cross_entropies(logits, batch))


def quartic(outputs, batch):
    return jnp.mean(jnp.sum((outputs - 1.0) ** 4, axis=1))


def losses(params, batch):
    return cross_entropies(model(params, batch), batch)


def loss(params, batch):
    return jnp.mean(losses(params, batch))


def data(dtype=np.float64, count=N):
    return {"x": X[:count].astype(dtype), "y": Y[:count]}


def point(dtype=np.float64):
    return jax.tree.map(lambda x: x.astype(dtype), POINT)


def dense(derivative, function):
    start = ravel(jax.tree.map(jnp.asarray, POINT))
    return np.asarray(jax.jit(derivative(lambda x: function(unravel(POINT, x), data())))(start))


def dense_ggn(of):
    """Σ Jᵢᵀ Hᵢ Jᵢ / N, example by example."""
    j, outputs = dense(jax.jacobian, model), model(jax.tree.map(jnp.asarray, POINT), data())
    h = jax.jit(jax.hessian(lambda f: of(f, data())))(outputs)
    return sum(j[i].T @ np.asarray(h)[i, :, i] @ j[i] for i in range(N))


@pytest.fixture(scope="module")
def matrices():
    with jax.enable_x64(True):
        gradients = dense(jax.jacobian, losses)
        return {
            "hessian": dense(jax.hessian, loss),
            "ggn": dense_ggn(output_loss),
            "ggn of a quartic": dense_ggn(quartic),
            "fisher": gradients.T @ gradients / N,
        }


MAKE = {
    "hessian": lambda p, d, **kw: hessian(loss, p, d, **kw),
    "ggn": lambda p, d, **kw: ggn(model, output_loss, p, d, **kw),
    "ggn of a quartic": lambda p, d, **kw: ggn(model, quartic, p, d, **kw),
    "fisher": lambda p, d, **kw: empirical_fisher(losses, p, d, **kw),
}
WAYS = [{"remat": True}, {"batch_size": 4}, {"batch_size": 4, "remat": False}, {"batch_size": 99}]
SOME = [{}, {"batch_size": 4, "remat": False}]


@pytest.mark.parametrize("name", MAKE)
def test_they_are_the_dense_matrices_however_the_data_are_read(matrices, name):
    with jax.enable_x64(True):
        for way in WAYS if name == "hessian" else SOME:
            op = MAKE[name](point(), data(), **way)
            np.testing.assert_allclose(op.to_dense(), matrices[name], rtol=1e-11, atol=1e-13, err_msg=str(way))


@pytest.mark.parametrize("name", MAKE)
def test_a_layer_alone_is_its_diagonal_block(matrices, name):
    rows = [i for i, path in enumerate(["in"] * 8 + ["out"] * 9) if path == "out"]
    with jax.enable_x64(True):
        op = MAKE[name](point(), data(), batch_size=4, remat=False).restrict(lambda path: path.startswith("out/"))
        np.testing.assert_allclose(op.to_dense(), matrices[name][np.ix_(rows, rows)], rtol=1e-11, atol=1e-13)


def test_a_layer_alone_costs_no_derivatives_of_the_layers_before_it():
    def dots(op):
        return str(jax.make_jaxpr(op.linearize())(vectors.zeros_like(op.like))).count("dot_general")

    whole = hessian(loss, point(np.float32), data(np.float32))
    assert dots(whole.restrict(lambda path: path == "out/b")) == 0
    assert dots(whole.restrict(lambda path: path.startswith("out/"))) == 2
    assert dots(whole) == 8  # 2 forward, backward and for the weights in the last layer, 2 in the first


def test_single_precision_is_within_its_noise_floor(matrices):
    for name in ("hessian", "fisher"):
        error = np.asarray(MAKE[name](point(np.float32), data(np.float32), batch_size=4).to_dense()) - matrices[name]
        assert np.linalg.norm(error, 2) < 16 * 1.2e-7 * np.linalg.norm(matrices[name], 2), name


def test_batches_on_the_host_are_summed_in_single_precision():
    ones = jnp.ones((40, 1), jnp.bfloat16)
    op = hessian(lambda p, batch: jnp.mean((batch * p) ** 2), ones[0], ones, batch_size=2)
    assert float((op @ ones[0])[0]) == float(replace(op, loop_kind="host").product()(ones[0])[0]) == 2.0


def test_products_share_one_linearisation():
    # The forward and backward pass of the gradient are no part of a product: tanh is evaluated before.
    op = hessian(loss, point(np.float32), data(np.float32))
    shared = _prepare(op)
    assert "tanh" not in str(jax.make_jaxpr(_apply)(shared, vectors.zeros_like(op.like)))
    assert "tanh" in str(jax.make_jaxpr(lambda op, v: op.matvec(v))(op, vectors.zeros_like(op.like)))
    batched = hessian(loss, point(np.float32), data(np.float32), batch_size=4, remat=False)
    shared = _prepare(batched)
    assert "tanh" not in str(jax.make_jaxpr(_apply)(shared, vectors.zeros_like(op.like)))
    weights = [leaf for leaf in jax.tree.leaves(shared) if leaf.shape == (2, 3, 2)]
    assert not weights  # two full batches do not keep the weights twice


def test_remat_keeps_one_batch_in_memory_and_not_the_data_set():
    def wide(params, batch):
        h = batch
        for w in params:
            h = jnp.tanh(h @ w)
        return jnp.mean(h**2)

    params, examples = [jnp.eye(16)] * 4, jnp.ones((4096, 16))
    v = [jnp.eye(16)] * 4

    def solve(op, v):
        product = op.linearize()
        return lax.fori_loop(0, 5, lambda i, v: product(v), v)

    def peak(**way):
        compiled = jax.jit(solve).lower(hessian(wide, params, examples, **way), v).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    kept, anew = peak(batch_size=128, remat=False), peak(batch_size=128)
    assert kept > 4096 * 16 * 4 * 8  # the intermediate values of four layers, twice
    assert anew < kept / 10
    assert peak(remat=True) > 5 * anew


def test_matrix_products_run_at_the_precision_that_is_recorded():
    for precision, recorded in [("highest", "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")]:
        for make in MAKE.values():
            op = make(point(np.float32), data(np.float32), precision=precision)
            program = str(jax.make_jaxpr(lambda op, v: op.matvec(v))(op, op.params))
            assert op.precision == precision
            dots = program.count("dot_general")
            assert dots > 0
            assert program.count(f"Precision.{recorded},") == dots


def test_a_fixed_dropout_key_makes_a_repeatable_operator():
    key = jax.random.key(3)

    def dropped(params, batch):
        keep = jax.random.bernoulli(key, 0.5, batch["x"].shape)
        return loss(params, {**batch, "x": keep * batch["x"]})

    op = hessian(dropped, point(np.float32), data(np.float32))
    v = vectors.random_like(op.like, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, op @ v, op @ v)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_xla_convolutions_are_driven_from_the_host_on_a_cpu_with_the_same_result(batch_size):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(jnp.tanh(nn.Conv(2, (3, 3))(x)).reshape(len(x), -1))

    net, images = Net(), jax.random.normal(jax.random.key(0), (7, 4, 4, 1))
    params = net.init(jax.random.key(1), images)

    def squares(params, batch):
        return jnp.mean(net.apply(params, batch) ** 2)

    op = hessian(squares, params, images, batch_size=batch_size)
    assert op.loop == "host"
    assert (2.0 * op).restrict(lambda path: "Conv" in path).loop == "host"
    v = vectors.random_like(op.like, key=jax.random.key(0))
    expected = jax.jvp(jax.grad(lambda p: squares(p, images)), (params,), (v,))[1]
    for result in (op.product()(v), op @ v, vectors.row(op.matmat(vectors.stack([v, v])), 1)):
        np.testing.assert_allclose(ravel(result), ravel(expected), rtol=2e-5, atol=1e-6)
    # Inside a trace there is no host to drive it.
    jax.eval_shape(lambda p: squares_loop(squares, p, images), params)


def squares_loop(squares, params, images):
    op = hessian(squares, params, images)
    assert op.loop == "compiled"
    return op.matvec(params)


P = {"w": jnp.ones(3)}


def mean_square(p, x):
    return jnp.mean((x @ p["w"]) ** 2)


WRONG = {
    "vector loss": (lambda: hessian(lambda p, x: x @ p["w"], P, X), TypeError, r"shape \(11,\). Take its mean"),
    "auxiliary": (lambda: hessian(lambda p, x: (mean_square(p, x), 0), P, X), TypeError, "has_aux=True"),
    "boolean": (lambda: hessian(lambda p, x: mean_square(p, x) > 0, P, X), TypeError, "floating number; received bool"),
    "state": (lambda: hessian(lambda p, x, s: 0.0, P, X), TypeError, "batch statistics or a dropout key"),
    "integers": (
        lambda: hessian(mean_square, {"w": jnp.ones(3), "n": jnp.arange(2)}, X),
        TypeError,
        r"params\['n'\] is int32",
    ),
    "complex": (lambda: hessian(mean_square, {"w": 1j * jnp.ones(3)}, X), TypeError, "the real and the imaginary part"),
    "text": (lambda: hessian(mean_square, {"w": "w"}, X), TypeError, r"params\['w'\] is 'w'"),
    "no leaves": (lambda: hessian(mean_square, {}, X), ValueError, "at least one array"),
    "nan": (lambda: hessian(mean_square, {"w": jnp.full(3, jnp.nan)}, X), ValueError, r"params\['w'\] holds NaN"),
    "batch size": (
        lambda: hessian(mean_square, P, X, batch_size=0),
        ValueError,
        "batch_size to be an integer ≥ 1; received 0",
    ),
    "no data": (lambda: hessian(lambda p, b: p["w"].sum(), P, batch_size=2), ValueError, "needs data"),
    "no examples": (lambda: hessian(mean_square, P, X[:0]), ValueError, "at least one example; received none"),
    "no outputs": (lambda: ggn(lambda p, x: x @ p["w"], jnp.mean, P, X[:0]), ValueError, "at least one example"),
    "no losses": (lambda: empirical_fisher(lambda p, x: x @ p["w"], P, X[:0]), ValueError, "at least one example"),
    "ragged data": (lambda: hessian(mean_square, P, (X, Y[:3]), batch_size=2), ValueError, "a common leading axis"),
    "iterator": (
        lambda: hessian(mean_square, P, iter([X])),
        TypeError,
        "list_iterator, which can be read once",
    ),
    "loader": (
        lambda: ggn(mean_square, mean_square, P, {"x": X, "y": (y for y in Y)}),
        TypeError,
        "Concatenate the batches",
    ),
    "output loss": (lambda: ggn(lambda p, x: x @ p["w"], lambda f, x: f, P, X), TypeError, "output_loss of ggn"),
    "mean losses": (lambda: empirical_fisher(mean_square, P, X), TypeError, "Remove the mean"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_gets_its_own_message(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


def test_examples_without_features_are_examples():
    op = hessian(lambda p, x: jnp.sum(p["w"] ** 2) + jnp.sum(x), P, np.zeros((4, 0)))
    np.testing.assert_array_equal((op @ P)["w"], 2 * np.ones(3))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(1)(nn.tanh(nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))))


class NormalisedNnx(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def normalised():
    """Linen's variables with batch statistics, and the loss in training mode and with running averages."""
    variables = Normalised().init(jax.random.key(0), X, False)

    def loss_of(train):
        def loss(params, x):
            collections = {**variables, "params": params}
            return jnp.mean(Normalised().apply(collections, x, train, mutable=["batch_stats"])[0] ** 2)

        return loss

    return variables, loss_of(True), loss_of(False)


def test_batch_norm_in_training_mode_is_refused_in_batches_and_allowed_frozen_or_in_one(normalised):
    variables, training, frozen = normalised
    with pytest.raises(ValueError, match=r"BatchNorm_0, which couples .* use_running_average=True, or omit batch_size"):
        hessian(training, variables["params"], X, batch_size=4)
    with pytest.raises(ValueError, match="empirical_fisher with batch_size=4"):
        empirical_fisher(lambda p, x: jnp.ones(len(x)) * training(p, x), variables["params"], X, batch_size=4)
    assert hessian(training, variables["params"], X, batch_size=len(X)).size == 22
    whole, parts = (hessian(frozen, variables["params"], X, batch_size=b) for b in (None, 4))
    np.testing.assert_allclose(parts.to_dense(), whole.to_dense(), atol=1e-5)


def test_batch_norm_is_refused_inside_a_trace_and_no_other_trace_is_disturbed(normalised):
    variables, training, frozen = normalised
    with pytest.raises(ValueError, match="BatchNorm_0"):
        jax.eval_shape(lambda p: hessian(training, p, X, batch_size=3).linearize()(p), variables["params"])
    traced = jax.eval_shape(lambda p: hessian(frozen, p, X, batch_size=3).linearize()(p), variables["params"])
    assert jax.tree.structure(traced) == jax.tree.structure(variables["params"])
    jax.eval_shape(training, variables["params"], X)


def test_batch_statistics_are_no_parameters(normalised):
    variables, training, _ = normalised
    with pytest.raises(ValueError, match=r"'batch_stats' and 'params'. Give variables\['params'\]"):
        hessian(training, variables, X)
    with pytest.raises(ValueError, match=r"of the type BatchStat. Use .* nnx.split"):
        hessian(lambda p, x: 0.0, nnx.state(NormalisedNnx()), X)
    hessian(lambda p, x: 0.0, nnx.state(NormalisedNnx(), nnx.Param), X)


def test_batch_norm_is_refused_inside_only_even_where_flax_forgets_to_end_the_interception(monkeypatch):
    """As under `python -O`, which drops the assertion by which Flax removes an interceptor."""
    left = []

    @contextmanager
    def never_removed(interceptor):
        left.append(interceptor)
        yield

    monkeypatch.setattr(nn, "intercept_methods", never_removed)
    call = lambda: left[0](lambda: "run", (), {}, SimpleNamespace(method_name="__call__", module=layer))
    layer = SimpleNamespace(use_running_average=False, path=("norm",))
    monkeypatch.setattr(nn, "BatchNorm", SimpleNamespace)
    with refusing_batch_norm("hessian", 2), pytest.raises(ValueError, match="batch normalisation in training mode"):
        call()
    assert call() == "run"
