"""The bracket holds the largest eigenvalue as often as it says."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import from_matrix, from_matvec, hessian, sharpness
from jaxopt_study.curvature.spectrum._sharpness import bracket_limits, bracket_solver, sharpness_bounds
from jaxopt_study.linalg.lanczos_upper_bound import least_overlap

N, TRIALS = 120, 500
SPECTRA = {
    "uniform": np.linspace(-1, 2, N),
    "apart": np.r_[10.0, np.linspace(-1, 1, N - 1)],
    "clustered": np.r_[2 - 1e-3 * np.arange(10), np.linspace(-1, 1.9, N - 10)],
    "multiple": np.r_[np.full(5, 2.0), np.linspace(-1, 1.9, N - 5)],
    "semicircle": np.cos(np.pi * (np.arange(N) + 0.5) / N),
    "negative": -np.linspace(1, 2, N),
    "nearly a multiple of 1": 1 + 1e-5 * np.linspace(0, 1, N),  # to rounding, any start spans an invariant space
    "one beside a multiple of 1": np.r_[1.0003, np.ones(N - 1)],
}


def diagonal(spectrum, dtype=np.float32, loop="compiled"):
    d = jnp.asarray(spectrum, dtype)
    return from_matvec(Partial(jnp.multiply, d), d, loop=loop)


@cache
def trials(confidence, tol, max_matvecs):
    """Return the brackets of all spectra, TRIALS starts each."""
    solver = bracket_solver(diagonal(SPECTRA["uniform"]), confidence=confidence, max_matvecs=max_matvecs)
    limits = bracket_limits(solver.layout, tol)

    @jax.jit
    def run(spectra, keys):
        one = lambda d, key: sharpness_bounds(from_matvec(Partial(jnp.multiply, d), d), solver, limits, key=key)
        return jax.vmap(jax.vmap(one, (None, 0)))(spectra, keys)

    spectra = jnp.asarray(np.stack(list(SPECTRA.values())), jnp.float32)
    return jax.device_get(run(spectra, jax.random.split(jax.random.key(5), (len(SPECTRA), TRIALS))))


@pytest.mark.parametrize(
    ("confidence", "tol", "max_matvecs"), [pytest.param(0.9, 0.01, 40, marks=pytest.mark.slow), (0.9, 0.1, 10)]
)
def test_covers_in_its_stated_share_of_500_trials(confidence, tol, max_matvecs):
    brackets = trials(confidence, tol, max_matvecs)
    for i, (name, spectrum) in enumerate(SPECTRA.items()):
        largest = np.float32(spectrum.max())
        assert np.all(brackets.lower[i] <= largest), name
        assert np.mean(largest <= brackets.upper[i]) >= confidence, name
        met = brackets.converged[i]
        width = brackets.upper[i] - brackets.lower[i]
        assert np.all(width[met] <= 1.01 * tol * np.abs(brackets.upper[i][met])), name
        assert np.all(brackets.num_matvecs[i] <= max_matvecs), name
    if max_matvecs == 40:
        assert brackets.converged.all()
        assert brackets.num_matvecs[1].mean() < 0.5 * brackets.num_matvecs[0].mean()  # what stands apart is quick


@pytest.mark.slow
def test_the_ritz_value_itself_is_no_upper_bound():
    brackets = trials(0.9, 0.01, 40)
    for i, name in enumerate(SPECTRA):
        if name in {"uniform", "clustered", "semicircle", "negative"}:
            largest = np.float32(SPECTRA[name].max())
            floor = 3e-6 * np.abs(SPECTRA[name]).max()
            assert np.mean(brackets.lower[i] + floor >= largest) < 0.5, name


def test_the_share_that_misses_is_the_one_allowed():
    # Where λmax stands alone the bound is sharp: half of the allowance is used, so a wrong quantile would show.
    brackets, largest = trials(0.9, 0.1, 10), np.float32(10)
    misses = np.mean(brackets.upper[1] < largest)
    assert abs(misses - 0.05) < 4 * np.sqrt(0.05 * 0.95 / TRIALS)


def test_overlap_quantile_agrees_with_sampling():
    z = np.random.default_rng(0).normal(size=(200_000, 7))
    overlap = z[:, 0] ** 2 / np.sum(z**2, axis=1)
    assert abs(np.mean(overlap < least_overlap(7, 0.8)) - 0.1) < 4 * np.sqrt(0.09 / 200_000)
    assert least_overlap(1, 0.99) == 1.0


@pytest.mark.parametrize("spectrum", [np.ones(50), np.zeros(50), -np.ones(50), np.r_[3.0, np.zeros(49)], np.ones(1)])
def test_an_invariant_space_gives_a_bracket_as_narrow_as_rounding_allows(spectrum):
    bracket = sharpness(diagonal(spectrum), key=jax.random.key(0))
    largest, scale = spectrum.max(), np.abs(spectrum).max()
    assert bracket.lower <= largest <= bracket.upper
    assert bracket.upper - bracket.lower <= 1e-3 * scale  # rounding hides what the start overlaps with by 1e-3
    assert bracket.converged
    assert bracket.num_matvecs <= 3


def test_agrees_with_the_dense_hessian_and_bounds_the_learning_rate():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.normal(size=40)
    params = {"w": jnp.asarray(rng.normal(size=(6, 3)), jnp.float32), "v": jnp.ones(3)}
    loss = lambda p, b: jnp.mean((jnp.tanh(b[0] @ p["w"]) @ p["v"] - b[1]) ** 2)
    batch = (jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    bracket = sharpness(hessian(loss, params, batch), key=jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    exact = np.linalg.eigvalsh(jax.hessian(lambda z: loss(unravel(z), batch))(flat))[-1]
    assert bracket.lower <= exact <= bracket.upper
    lowest, highest = bracket.learning_rate
    assert lowest <= 2 / exact <= highest
    v, image = bracket.vector, hessian(loss, params, batch) @ bracket.vector
    quotient = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(v), jax.tree.leaves(image), strict=True))
    np.testing.assert_allclose(quotient, bracket.lower, rtol=1e-4)


def test_a_learning_rate_is_unbounded_where_no_curvature_is_positive():
    bracket = sharpness(diagonal(-np.linspace(1, 2, 50)), key=jax.random.key(0))
    assert [float(rate) for rate in bracket.learning_rate] == [np.inf, np.inf]


def test_a_loop_on_the_host_and_a_compiled_one_agree():
    compiled, host = (
        sharpness(diagonal(SPECTRA["apart"], loop=loop), key=jax.random.key(3)) for loop in ("compiled", "host")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), compiled, host)


def test_a_spent_budget_is_flagged_and_the_bracket_still_holds():
    bracket = sharpness(diagonal(SPECTRA["uniform"]), key=jax.random.key(0), max_matvecs=6)
    assert not bracket.converged
    assert bracket.num_matvecs == 6
    assert bracket.lower <= 2 <= bracket.upper


def test_nan_from_the_operator_ends_the_run_and_is_kept():
    bracket = sharpness(diagonal(np.r_[np.nan, np.ones(20)]), key=jax.random.key(0))
    assert not bracket.converged
    assert np.isnan([bracket.lower, bracket.upper, bracket.residual, *bracket.learning_rate]).all()
    assert bracket.num_matvecs == 1


def test_double_precision_reaches_a_narrow_bracket():
    with jax.enable_x64(True):
        a = np.random.default_rng(1).normal(size=(30, 30))
        bracket = sharpness(from_matrix(jnp.asarray(a + a.T)), tol=1e-10, key=jax.random.key(0))
        exact = np.linalg.eigvalsh(a + a.T)[-1]
        assert bracket.lower <= exact <= bracket.upper <= bracket.lower + 1.01e-10 * exact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 1.0}, "confidence to be a real number in .0, 1.; received 1.0. Take 0.99"),
        ({"confidence": 0.0}, "confidence to be a real number in .0, 1.; received 0.0"),
        ({"tol": 1e-7}, "tol must be at least 4 times the operator's noise floor, 7.6e-06"),
        ({"noise_floor": 1e-2}, "Ask for 8.0e-02"),
        ({"max_matvecs": 1}, "max_matvecs to be an integer ≥ 2; received 1"),
    ],
)
def test_wrong_arguments_get_their_own_message(change, message):
    with pytest.raises(ValueError, match=message):
        sharpness(diagonal(SPECTRA["uniform"]), **({"key": jax.random.key(0)} | change))
