"""Condition numbers that know when there is none, and the two terms of a gradient step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.curvature import Conditioning, condition_number, from_matrix, from_matvec, ill_conditioning

KEY = jax.random.key(0)


def rotated(spectrum):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(len(spectrum),) * 2))[0]
    matrix = (rotation * spectrum) @ rotation.T
    return ((matrix + matrix.T) / 2).astype(np.float32), rotation


@pytest.mark.parametrize("ratio", [1.0, 2.0, 50.0, 3e3])
def test_a_determined_condition_number_lies_between_its_bounds(ratio):
    spectrum = np.geomspace(1.0, ratio, 60)
    result = condition_number(from_matrix(rotated(spectrum)[0]), key=KEY)
    assert result.verdict == "determined"
    assert result.lower <= ratio * (1 + 1e-5)
    assert ratio <= result.upper * (1 + 1e-5)
    np.testing.assert_allclose(result.value, ratio, rtol=2e-6 * ratio + 1e-5)
    assert result.upper / result.lower < 1 + 1e-4 * ratio


@pytest.mark.parametrize(
    ("spectrum", "status"),
    [
        (np.concatenate([[1e-7], np.linspace(1, 2, 59)]), Conditioning.UNDETERMINED),  # below the digits of float32
        (np.concatenate([np.zeros(57), [1.0, 2.0, 3.0]]), Conditioning.UNDETERMINED),
        (np.zeros(60), Conditioning.UNDETERMINED),
        (np.concatenate([[-0.01], np.linspace(1, 2, 59)]), Conditioning.INDEFINITE),
        (np.repeat([-2.0, 2.0], 30), Conditioning.INDEFINITE),
        (-np.linspace(1, 2, 60), Conditioning.INDEFINITE),
    ],
    ids=["tiny", "rank 3", "zero", "one negative", "saddle", "negative"],
)
def test_an_undetermined_condition_number_has_no_value_but_a_true_lower_bound(spectrum, status):
    result = condition_number(from_matrix(rotated(spectrum)[0]), key=KEY)
    assert result.status == status
    assert result.verdict == status.name.lower()
    assert np.isnan(result.value)
    assert np.isinf(result.upper)
    magnitudes = np.abs(spectrum)
    truth = np.inf if magnitudes.min() == 0 else magnitudes.max() / magnitudes.min()
    assert 1 <= result.lower <= truth * (1 + 1e-5)


@pytest.mark.slow
def test_too_few_products_leave_it_undetermined():
    op = from_matrix(rotated(np.geomspace(1e-3, 1.0, 200))[0])
    result = condition_number(op, key=KEY, num_basis=20, max_matvecs=30)
    assert result.verdict == "undetermined"
    assert result.residuals[1] > 0
    assert 1 < result.lower <= 1e3


def test_products_that_are_not_finite_have_their_own_verdict():
    assert condition_number(from_matvec(lambda v: jnp.nan * v, jnp.zeros(9)), key=KEY).verdict == "not finite"


def test_one_dimension_has_no_condition_number_to_find():
    with pytest.raises(ValueError, match="size n ≥ 2"):
        condition_number(from_matrix(jnp.eye(1)), key=KEY)


SPECTRUM = np.concatenate([[-1.0], np.linspace(0.0, 1.0, 56), [4.0, 7.0, 10.0]])


def test_terms_and_steps_are_those_of_the_dense_matrix():
    matrix, rotation = rotated(SPECTRUM)
    g = np.random.default_rng(2).normal(size=60).astype(np.float32)
    result = ill_conditioning(from_matrix(matrix), jnp.asarray(g), k=3, key=KEY, tol=1e-5)
    g64, h = g.astype(np.float64), matrix.astype(np.float64)
    gg, ghg, hg = g64 @ g64, g64 @ h @ g64, np.linalg.norm(h @ g64)
    np.testing.assert_allclose(
        [result.gg, result.ghg, result.hg_norm, result.cauchy_step, result.largest_step, result.cosine],
        [gg, ghg, hg, gg / ghg, 2 * gg / ghg, ghg / np.sqrt(gg) / hg], rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(result.curvature, ghg / gg, rtol=1e-5)
    assert abs(result.ghg - ghg) <= result.ghg_error
    share = np.sum((rotation[:, -3:].T @ g64) ** 2) / gg
    assert abs(result.top_share - share) <= result.top_share_error + 1e-6
    assert result.top_share_error < 1e-2
    np.testing.assert_allclose(result.top_values, [10.0, 7.0, 4.0], rtol=1e-4)

    def model(step):
        return -step * gg + 0.5 * step**2 * ghg

    assert model(0.999 * float(result.largest_step)) < 0 < model(1.001 * float(result.largest_step))
    best = float(result.cauchy_step)
    assert model(best) < min(model(0.99 * best), model(1.01 * best))


def test_an_eigenvector_is_all_in_the_top_space_and_turns_at_two_over_its_eigenvalue():
    matrix, rotation = rotated(SPECTRUM)
    result = ill_conditioning(from_matrix(matrix), jnp.asarray(3 * rotation[:, -1], jnp.float32), k=1, key=KEY)
    np.testing.assert_allclose([result.cosine, result.top_share, result.largest_step], [1, 1, 0.2], rtol=1e-3)


@pytest.mark.parametrize(("factor", "length"), [(2.0**-100, 1.0), (2.0**100, 1.0), (1.0, 2.0**-80), (1.0, 2.0**80)])
def test_the_terms_scale_as_the_operator_and_the_gradient_do(factor, length):
    matrix, _ = rotated(SPECTRUM)
    g = np.random.default_rng(2).normal(size=60).astype(np.float32)
    one = ill_conditioning(from_matrix(matrix), jnp.asarray(g))
    other = ill_conditioning(from_matrix(matrix * np.float32(factor)), jnp.asarray(g * np.float32(length)))
    for name, power in {"curvature": 1, "cauchy_step": -1, "largest_step": -1, "cosine": 0}.items():
        np.testing.assert_allclose(getattr(other, name) * factor**-power, getattr(one, name), rtol=1e-5)
    np.testing.assert_allclose(other.gradient_norm / length, one.gradient_norm, rtol=1e-6)
    np.testing.assert_allclose(other.hg_norm / length / factor, one.hg_norm, rtol=1e-5)
    if length == 1.0:
        for name in ("ghg", "ghg_error"):
            np.testing.assert_allclose(getattr(other, name) / factor, getattr(one, name), rtol=1e-5)


@pytest.mark.parametrize(("factor", "error"), [(1e-20, "tiny"), (1e20, "infinite")])
def test_products_out_of_range_say_so_in_their_error(factor, error):
    operator = from_matrix(jnp.diag(jnp.array([3.0, 2.0, 1.0, -1.0])) * factor)
    terms = ill_conditioning(operator, jnp.ones(4) * factor, key=jax.random.key(0))
    true = 5 * factor**3
    assert abs(float(terms.ghg) - true) <= float(terms.ghg_error)
    assert float(terms.ghg_error) == (np.inf if error == "infinite" else np.finfo(np.float32).tiny)
    np.testing.assert_allclose(terms.largest_step, 1.6 / factor, rtol=1e-5)


def test_negative_curvature_has_no_largest_step_and_is_said():
    matrix, rotation = rotated(SPECTRUM)
    result = ill_conditioning(from_matrix(matrix), jnp.asarray(rotation[:, 0], jnp.float32))
    assert bool(result.negative)
    assert np.isinf(result.cauchy_step)
    assert np.isinf(result.largest_step)
    np.testing.assert_allclose(result.cosine, -1, atol=1e-5)
    assert result.num_matvecs == 1
    assert np.isnan(result.top_share)
    flat = ill_conditioning(from_matrix(jnp.zeros((3, 3))), jnp.ones(3))
    assert np.isinf(flat.largest_step)
    assert not bool(flat.negative)
    assert np.isnan(flat.cosine)


def test_a_zero_gradient_has_no_ratios_and_a_nan_stays_one():
    result = ill_conditioning(from_matrix(jnp.eye(4)), jnp.zeros(4), k=1, key=KEY)
    for number in (result.cauchy_step, result.largest_step, result.cosine, result.curvature, result.top_share):
        assert np.isnan(number)
    assert result.gg == 0
    assert not bool(result.negative)
    broken = ill_conditioning(from_matvec(lambda v: jnp.nan * v, jnp.zeros(4)), jnp.ones(4))
    assert np.isnan(broken.largest_step)


def test_the_whole_space_holds_every_gradient():
    result = ill_conditioning(from_matrix(jnp.diag(jnp.arange(1.0, 4.0))), jnp.ones(3), k=3, key=KEY)
    assert abs(result.top_share - 1) <= result.top_share_error < 1e-5  # of rounding alone


@pytest.mark.parametrize(
    ("grads", "arguments", "message"),
    [
        (jnp.ones(3), {"k": 4, "key": KEY}, "k to be an integer from 0 to 3; received 4"),
        (jnp.ones(3), {"k": -1}, "k to be an integer from 0 to 3; received -1"),
        (jnp.ones(2), {}, "must have shape"),
        (jnp.array([1.0, jnp.nan, 1.0]), {}, "needs a finite gradient"),
        ({"a": jnp.ones(3)}, {}, "must have the structure"),
    ],
)
def test_wrong_arguments_are_refused(grads, arguments, message):
    with pytest.raises(ValueError, match=message):
        ill_conditioning(from_matrix(jnp.eye(3)), grads, **arguments)


def test_bounds_of_an_operator_so_small_that_its_noise_is_no_number():
    tiny = condition_number(from_matrix(jnp.diag(jnp.array([3e-33, 1e-36], jnp.float32))), key=jax.random.key(0))
    assert 1.005 < tiny.upper / tiny.value < 1.007  # 16 ε of the largest is 0.6 % of the smallest
    assert 1.005 < tiny.value / tiny.lower < 1.007
    assert tiny.lower <= 3000 <= tiny.upper
