"""Audits: mistakes that one must find, and sound operators that it must pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import audit, from_matrix, from_matvec, hessian, noise_floor
from jaxopt_study.linalg import vectors

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 6)).astype(np.float32)
W = {"in": RNG.normal(size=(6, 5)).astype(np.float32), "out": RNG.normal(size=5).astype(np.float32)}
EPS = float(np.finfo(np.float32).eps)


def loss(params, x):
    return jnp.mean(jnp.tanh(jnp.tanh(x @ params["in"]) @ params["out"]) ** 2)


def normalised(params, x):
    h = x @ params["in"]
    h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5)  # batch normalisation, in training mode
    return jnp.mean(jnp.tanh(h @ params["out"]) ** 2)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_a_hessian_in_single_precision_is_sound_to_a_few_units_of_rounding(batch_size):
    found = audit(hessian(loss, W, X, batch_size=batch_size), key=KEY)
    assert found.verdict == "sound"
    assert found.messages == ()
    assert EPS <= found.noise_floor < 16 * EPS
    assert found.partition is not None
    assert found.rounding is not None
    assert 0 < found.rounding <= found.noise_floor
    assert found.precision == "highest"
    text = str(found)
    assert "sound" in text
    assert "against float64" in text
    assert max(map(len, text.splitlines())) < 100


def test_the_noise_floor_covers_what_double_precision_shows():
    op = hessian(loss, W, X)
    floor = audit(op, key=KEY).noise_floor
    single = np.asarray(op.to_dense(), np.float64)
    with jax.enable_x64(True):
        double = np.asarray(hessian(loss, *jax.tree.map(lambda a: a.astype(np.float64), (W, X))).to_dense())
    error = np.linalg.norm(single - double, 2) / np.linalg.norm(double, 2)
    assert error < 4 * floor  # two vectors were tried, and the worst is this one
    assert error > floor / 100


def test_the_norm_is_a_lower_bound_close_to_it():
    a = np.diag(np.r_[5.0, np.linspace(-2, 2, 40)]).astype(np.float32)
    found = audit(from_matrix(a), key=KEY)
    assert 4.5 < found.norm <= 5.0 * (1 + EPS)
    assert found.verdict == "sound"


def callback(v):
    def noisy(x):
        return x + np.float32(0.05) * RNG.normal(size=x.shape).astype(np.float32)

    return jax.pure_callback(noisy, v, v)


def rotation(v):
    return v + 0.3 * jnp.roll(v, 1)


BROKEN = {
    "asymmetric": (rotation, "Not symmetric"),
    "non-linear": (lambda v: v + jnp.tanh(30 * v), "Not linear"),
    "affine": (lambda v: v + 0.1, "Not linear"),
    "host callback": (callback, "Not repeatable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_symmetric_linear_operator_is_unsound(name):
    function, message = BROKEN[name]
    found = audit(from_matvec(function, jnp.zeros(50)), key=KEY)
    assert found.verdict == "unsound"
    assert found.messages[0].startswith(message)
    assert found.noise_floor > 1e-2


def test_a_slight_asymmetry_is_noise_and_raises_the_floor():
    found = audit(from_matvec(lambda v: v + 1e-3 * jnp.roll(v, 1), jnp.zeros(50)), key=KEY)
    assert found.verdict == "noisy"
    assert found.messages[0].startswith("Not symmetric")
    assert 3e-4 < found.noise_floor < 1e-2


def test_the_symmetry_gap_does_not_fade_with_the_number_of_coordinates():
    gaps = [audit(from_matvec(rotation, jnp.zeros(n)), key=KEY).symmetry for n in (100, 100_000)]
    assert all(0.05 < gap < 2.0 for gap in gaps)


def test_numbers_drawn_while_tracing_are_found():
    drawn = np.random.default_rng(1)

    def masked(params, x):
        return loss(params, x * drawn.integers(0, 2, x.shape))  # another mask in every compiled program

    found = audit(hessian(masked, W, X), key=KEY, double_precision=False)
    assert found.verdict == "unsound"
    assert found.messages[0].startswith("Not repeatable")


def in_pairs(params, x):
    h = jnp.tanh(x @ params["in"]) @ params["out"]
    return jnp.mean((h[0 : len(h) // 2 * 2 : 2] - h[1::2]) ** 2)


def test_a_loss_that_couples_the_examples_of_a_batch_in_pairs_is_found():
    assert audit(hessian(in_pairs, W, X), key=KEY).partition > 0.01


def test_a_loss_that_couples_the_examples_of_a_batch_is_found():
    found = audit(hessian(normalised, W, X, batch_size=10), key=KEY, double_precision=False)
    assert found.verdict == "unsound"
    assert found.partition > 0.01
    assert "batch normalisation" in found.messages[0]
    assert found.noise_floor >= found.partition
    whole = audit(hessian(normalised, W, X), key=KEY, double_precision=False)
    assert whole.verdict == "sound"  # the Hessian of all data as one batch is well defined
    assert "keep batch_size=None" in whole.messages[0]
    assert whole.noise_floor < 64 * EPS


def test_a_sum_over_examples_is_not_a_mean_and_is_found_inside_a_sum_of_operators():
    summed = hessian(lambda p, x: len(x) * loss(p, x), W, X, batch_size=10)
    found = audit(2.0 * hessian(loss, W, X) + summed.restrict(lambda path: True), key=KEY, double_precision=False)
    assert found.verdict == "unsound"
    assert "not a sum" in found.messages[0]


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(nn.tanh(nn.Dense(5)(x)))
        return nn.Dense(1)(x)


def dropped(params, x):
    keep = jax.random.bernoulli(jax.random.key(7), 0.5, (x.shape[0], 5))
    noise = 0.3 * jax.random.normal(jax.random.key(8), x.shape)
    return jnp.mean(jnp.tanh((keep * jnp.tanh((x + noise) @ params["in"])) @ params["out"]) ** 2)


def linen_dropped(params, x):
    return jnp.mean(Dropped().apply({"params": params}, x, rngs={"dropout": jax.random.key(7)}) ** 2)


@pytest.mark.parametrize("name", ["jax.random", pytest.param("linen", marks=pytest.mark.slow)])
def test_a_dropout_key_that_is_fixed_draws_the_same_mask_in_double_precision(name):
    function, params = (dropped, W) if name == "jax.random" else (linen_dropped, Dropped().init(
        {"params": KEY, "dropout": KEY}, X)["params"])  # fmt: skip
    found = audit(hessian(function, params, X), key=KEY)
    assert found.verdict == "sound"
    assert 0 < found.rounding < 16 * EPS
    assert found.noise_floor < 64 * EPS
    assert not [message for message in found.messages if not message.startswith("The loss is not a mean")]


def cancelling(params, x):
    large = 1e4 + x[:, :1]
    return jnp.mean(jnp.tanh(((large + jnp.tanh(x @ params["in"])) - large) @ params["out"]) ** 2)


def coarse(params, x):
    return jnp.mean(jnp.tanh(x.astype(jnp.bfloat16) @ params["in"].astype(jnp.bfloat16)).astype(jnp.float32) ** 2)


@pytest.mark.parametrize("function", [cancelling, pytest.param(coarse, marks=pytest.mark.slow)])
def test_a_loss_that_rounding_spoils_is_noisy_with_or_without_a_fixed_mask(function):
    for masked in (function, lambda params, x: function(params, x) + 0.1 * dropped(params, x)):
        found = audit(hessian(masked, W, X), key=KEY)
        assert found.verdict == "noisy"
        assert found.noise_floor >= found.rounding > 64 * EPS
        assert any(message.startswith("Rounding costs") for message in found.messages)


def test_what_cannot_be_multiplied_in_double_precision_is_said_and_not_compared():
    def hosted(v):
        return 2.0 * jax.pure_callback(lambda x: np.asarray(x), v, v)

    found = audit(from_matvec(hosted, jnp.zeros(5)), key=KEY)
    assert (found.verdict, found.rounding) == ("sound", None)
    assert "pure_callback, which supports only the original dtypes" in found.messages[0]


def test_products_that_are_not_finite_are_unsound():
    found = audit(hessian(lambda p, _: jnp.sum(jnp.sqrt(jnp.abs(p - 1.0))), jnp.ones(3)), key=KEY)
    assert found.verdict == "unsound"
    assert found.noise_floor == np.inf
    assert found.messages[0].startswith("Not finite")


def test_the_zero_operator_is_sound():
    found = audit(from_matvec(lambda v: 0.0 * v, jnp.zeros(5)), key=KEY)
    assert (found.verdict, found.norm) == ("sound", 0.0)
    assert found.rounding == 0.0


def test_a_single_example_has_no_other_batches_and_double_precision_no_wider_one():
    with jax.enable_x64(True):
        found = audit(hessian(loss, jax.tree.map(lambda a: a.astype(np.float64), W), X[:1]), key=KEY)
    assert found.partition is None
    assert found.rounding is None
    assert found.noise_floor < 1e-14


def net(depth, width, seed):
    rng = np.random.default_rng(seed)
    params = [(rng.normal(size=(width, width)) / np.sqrt(width)).astype(np.float32) for _ in range(depth)]
    x = rng.normal(size=(64, width)).astype(np.float32)

    def deep(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    return deep, params, x


@pytest.mark.parametrize(("depth", "width"), [(2, 8), (2, 64), (6, 32)])
def test_the_assumed_noise_floor_covers_the_rounding_of_ordinary_networks(depth, width):
    deep, params, x = net(depth, width, depth)
    op = hessian(deep, params, x)
    v = vectors.random_like(op.like, key=KEY, distribution="sphere")
    for _ in range(5):
        v, length = vectors.normalize(op @ v)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(np.float64), (params, x, v))
        exact = jax.jvp(jax.grad(lambda p: deep(p, wide[1])), (wide[0],), (wide[2],))[1]
        error = float(vectors.norm(vectors.subtract(exact, op @ v)) / length)
    assert noise_floor(op) / 1000 < error < noise_floor(op)


def test_the_assumed_noise_floor_follows_the_coarsest_dtype():
    assert noise_floor(from_matrix(jnp.eye(2))) == 16 * EPS
    assert noise_floor(from_matrix(jnp.eye(2, dtype=jnp.bfloat16))) == 16 * 2.0**-7


def test_inside_a_trace_the_audit_says_where_it_can_be_called():
    op = hessian(loss, W, X)
    for traced in (lambda given: audit(given).norm, lambda _: audit(op).norm):
        with pytest.raises(TypeError, match=r"audit cannot run on traced arrays.*record_params_every"):
            jax.jit(traced)(op)
