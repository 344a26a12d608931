"""The proved bound holds on every spectrum, the estimates cover, and exact counts say that they are."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study.curvature import Resolution, from_matrix, from_matvec, morse_index, noise_floor
from jaxopt_study.curvature.spectrum._eigenvalue_counts import Compression, proved_counts

KEY = jax.random.key(0)
FEW = {"max_dense": 0, "num_basis": 32, "num_probes": 2, "num_steps": 4}


def diagonal(spectrum, dtype=np.float32, loop="compiled"):
    d = jnp.asarray(spectrum, dtype)
    return from_matvec(Partial(jnp.multiply, d), d, loop=loop)


def rotated(spectrum, rng, dtype=np.float32):
    rotation = np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))[0]
    matrix = (rotation * spectrum) @ rotation.T
    return ((matrix + matrix.T) / 2).astype(dtype)


def random_spectra(n, count, seed=0):
    """Spectra with exact zeros, clusters, multiplicities and wide ranges, a fresh mixture each."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        negative, zero = rng.integers(0, n // 3 + 1, size=2)
        positive = n - negative - zero
        spread = 10.0 ** rng.uniform(-4, 0)
        parts = [-spread * rng.exponential(size=negative), np.zeros(zero), np.round(rng.exponential(size=positive), 1)]
        yield np.concatenate(parts), rng


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_of_small_operators_are_exact_and_say_so(dtype):
    with jax.enable_x64(dtype == np.float64):
        spectrum = np.r_[-np.linspace(1, 2, 7), np.zeros(13), np.linspace(0.5, 3, 20)]
        result = morse_index(from_matrix(rotated(spectrum, np.random.default_rng(0), dtype)), key=KEY)
        assert (result.lower_bound, result.estimate, result.flat) == (7, 7, 13)
        assert result.interval.tolist() == [7, 7]
        assert result.flat_interval.tolist() == [13, 13]
        assert result.positive_lower_bound == 20
        assert result.exact
        assert result.resolution == Resolution.COMPLETE
        assert result.num_matvecs == 40
        assert result.tau.dtype == dtype


def test_only_eigenvalues_beyond_tau_by_more_than_their_error_are_proved():
    values = jnp.array([-0.6, -0.52, -0.48, -0.4, 0.0, 0.4, 0.48, 0.52, 0.6])
    one, none = jnp.float32(1.0), jnp.int32(0)
    compression = Compression(jnp.diag(values), jnp.int32(9), 0 * one, one, none, none)
    np.testing.assert_allclose(compression.error(1e-2), 0.03, rtol=1e-6)  # √n · noise · scale
    assert list(map(int, proved_counts(compression, 0.5 * one, 1e-2))) == [1, 1, 2, 2]


def test_an_eigenvalue_at_the_edge_of_tau_is_left_open():
    spectrum = np.r_[-0.1, -1.0, 2.0]
    result = morse_index(diagonal(spectrum), tau=0.1, key=KEY)
    assert not result.exact
    assert result.interval.tolist() == [1, 2]
    assert result.flat_interval.tolist() == [0, 1]


@pytest.mark.slow
def test_the_bound_never_exceeds_the_truth_and_a_count_without_margin_does():
    exceeded = 0
    for spectrum, rng in random_spectra(60, 60):
        matrix = rotated(spectrum, rng)
        true = np.linalg.eigvalsh(matrix.astype(np.float64))
        for options in ({}, FEW):
            result = morse_index(from_matrix(matrix), key=KEY, **options)
            assert result.lower_bound <= np.sum(true < -result.tau)
            assert result.positive_lower_bound <= np.sum(true > result.tau)
        # What the matrix was made of has this many negative eigenvalues; those that rounding made negative are zeros.
        exceeded += np.sum(np.linalg.eigvalsh(matrix) < 0) > np.sum(spectrum < 0)
        assert result.lower_bound <= np.sum(spectrum < 0)
    assert exceeded > 10


def test_a_noisy_operator_needs_its_own_noise_floor():
    # Products are wrong by 1e-3: of forty zero eigenvalues some come out well below the rounding of single precision.
    rng = np.random.default_rng(3)
    spectrum = np.r_[np.zeros(40), np.linspace(1, 2, 20)]
    noise = rng.normal(size=(60, 60))
    noise = (noise + noise.T) / np.linalg.norm(noise + noise.T, 2) * 1e-3 * 2
    op = from_matrix((rotated(spectrum, rng, np.float64) + noise).astype(np.float32))
    assert morse_index(op, key=KEY).lower_bound > 0  # believed, the products prove eigenvalues that are not there
    told = morse_index(op, key=KEY, noise_floor=1e-3)
    assert told.lower_bound == 0
    assert told.flat == 40


SPECTRA = {
    "flat bulk": np.r_[-np.linspace(1, 2, 10), np.zeros(590), np.linspace(1, 3, 100)],
    "uniform": np.linspace(-1, 2, 700),
    "two values": np.r_[np.full(200, -1.0), np.full(500, 2.0)],
    "negative": -np.linspace(1, 2, 700),
}


@cache
def over_starts():
    """Return the indices of all spectra for forty starts each, estimated in one program."""

    def one(d, key):
        op = from_matvec(Partial(jnp.multiply, d), d)
        return morse_index(op, key=key, num_basis=32, num_probes=6, num_steps=16)

    spectra = jnp.asarray(np.stack(list(SPECTRA.values())), jnp.float32)
    keys = jax.random.split(jax.random.key(7), 40)
    over_keys = lambda d: jax.lax.map(lambda key: one(d, key), keys)
    return jax.device_get(jax.jit(lambda: jax.lax.map(over_keys, spectra))())


@pytest.mark.parametrize("name", SPECTRA)
def test_intervals_of_large_operators_cover_over_many_starts(name):
    spectrum = SPECTRA[name]
    result = jax.tree.map(lambda x: x[list(SPECTRA).index(name)], over_starts())
    negative = np.sum(spectrum < -result.tau.max())
    assert np.all(result.lower_bound <= negative)
    assert np.all(result.lower_bound > 0)
    for interval, truth in [(result.interval, negative), (result.flat_interval, np.sum(spectrum == 0))]:
        covered = (interval[:, 0] <= truth + 1e-3 * 700) & (truth - 1e-3 * 700 <= interval[:, 1])
        assert np.mean(covered) >= 0.9, name
    assert np.all(result.interval[:, 0] <= result.estimate)
    assert np.all(result.estimate <= result.interval[:, 1])
    if name == "two values":  # its nodes have converged, and only the spread between the probes is left
        assert np.mean(np.diff(result.interval)) < 0.2 * 700


def test_low_rank_operators_are_exhausted_and_then_exact():
    spectrum = np.r_[3.0, 2.0, -1.0, np.zeros(997)]
    result = morse_index(diagonal(spectrum), key=KEY)
    assert result.resolution == Resolution.EXHAUSTED
    assert (result.lower_bound, result.estimate, result.flat) == (1, 1, 997)
    assert result.num_matvecs == 64
    zero = morse_index(diagonal(np.zeros(1000)), key=KEY)
    assert (zero.estimate, zero.flat, bool(zero.exact)) == (0, 1000, True)


def test_copies_that_fill_a_block_are_not_called_exact():
    result = morse_index(diagonal(-np.ones(1000)), key=KEY)
    assert not result.exact  # a block of four cannot tell four copies from a thousand
    assert result.lower_bound == 64  # each random continuation proves another one
    assert result.estimate == 1000


def test_both_ways_of_looping_agree():
    spectrum = np.r_[-np.ones(3), np.zeros(47), np.linspace(1, 2, 10)]
    compiled = morse_index(diagonal(spectrum), key=KEY, **FEW)
    host = morse_index(diagonal(spectrum, loop="host"), key=KEY, **FEW)
    for name in ("lower_bound", "estimate", "interval", "flat", "num_matvecs"):
        np.testing.assert_allclose(getattr(compiled, name), getattr(host, name), rtol=1e-3, atol=0.1)


def test_a_tau_below_the_noise_floor_is_refused():
    op = diagonal([3.0, -1.0])
    with pytest.raises(ValueError, match="at or above the noise floor"):
        morse_index(op, tau=1e-9, key=KEY)
    for wrong in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=f"tau to be a finite real number ≥ 0; received {wrong}"):
            morse_index(op, tau=wrong, key=KEY)
    raised = jax.jit(lambda tau: morse_index(op, tau, key=KEY))(1e-9)  # inside a trace it is raised instead
    np.testing.assert_allclose(raised.tau, noise_floor(op) * 3, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, FEW], ids=["dense", "probes"])
def test_products_that_are_not_finite_prove_nothing(options):
    result = morse_index(diagonal(np.r_[np.nan, np.linspace(-1, 1, 59)]), key=KEY, **options)
    assert result.lower_bound == 0
    assert np.isnan(result.estimate)
    assert np.isnan(result.flat)
    assert result.interval.tolist() == [0, 60]
    assert not result.exact


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_probes": 1}, "num_probes"), ({"confidence": 1.0}, "confidence"), ({"num_basis": 0}, "num_basis")],
)
def test_wrong_choices_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        morse_index(diagonal([1.0]), key=KEY, **options)
