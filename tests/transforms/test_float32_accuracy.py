"""The accuracy contract in single precision: decays up to .99999, a hundred thousand steps.

Two numbers are promised. The correction itself, 1 − βᵗ, is right to 4e-7 at every step. The corrected average of
a statistic that fluctuates is right to 3e-5. An average of a *constant* is worse by nature: once (1 − β)(x − m) is
below half a unit in the last place of m it stops moving, 2⁻²⁴/(1 − β) short of the value; that is the bound for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.transforms import bias_correction, ema
from tests.oracles.references import atoms

NUM_STEPS = 100_000
DECAYS = (0.9, 0.999, 0.9999, 0.99999)
UNIT = 2.0**-24  # half a unit in the last place, relative


def _corrections(transform, num_steps):
    """1/factor of `bias_correction` at every step: what it divides a one by."""

    def body(state, _):
        updates, state = transform.update(jnp.ones(()), state)
        return state, updates

    _, updates = jax.jit(lambda: jax.lax.scan(body, transform.init(jnp.zeros(())), None, length=num_steps))()
    assert updates.dtype == jnp.float32
    return 1.0 / np.asarray(updates, dtype=np.float64)


def _corrected(decay, values):
    average, correct = ema(decay), bias_correction(decay)

    def body(states, value):
        mean, mean_state = average.update(value, states[0])
        corrected, correct_state = correct.update(mean, states[1])
        return (mean_state, correct_state), corrected

    def program(values):
        params = jnp.zeros(values.shape[1:], dtype=values.dtype)
        return jax.lax.scan(body, (average.init(params), correct.init(params)), values)[1]

    corrected = jax.jit(program)(jnp.asarray(values, dtype=jnp.float32))
    assert corrected.dtype == jnp.float32
    return np.asarray(corrected, dtype=np.float64)


def _reference(decay, values):
    values = values.astype(np.float32).astype(np.float64)  # what the atom receives
    return atoms.ema(values, decay) / atoms.bias_corrections(decay, len(values))[:, None]


def _streams():
    """Three positive statistics, one per column: squares of a normal, uniform, and a heavy tail."""
    generator = np.random.default_rng(0)
    normal = generator.standard_normal((NUM_STEPS, 2))
    return np.stack([normal[:, 0] ** 2, generator.random(NUM_STEPS), np.exp(2.0 * normal[:, 1])], axis=1)


@pytest.mark.parametrize("decay", DECAYS)
def test_the_correction_is_right_to_rounding_at_every_step(decay):
    exact = atoms.bias_corrections(decay, NUM_STEPS)
    error = np.abs(_corrections(bias_correction(decay), NUM_STEPS) - exact) / exact
    assert error.max() < 4e-7


def test_the_naive_correction_is_off_by_a_thousandth_and_would_be_noticed():
    """1 − β**t in single precision, as it is usually coded: 1.4e-3 off at the start, 8e-4 after 10⁵ steps."""
    decay = 0.99999
    exact = atoms.bias_corrections(decay, NUM_STEPS)
    naive = np.asarray(1.0 - jnp.float32(decay) ** jnp.arange(1, NUM_STEPS + 1), dtype=np.float64)
    error = np.abs(naive - exact) / exact
    assert error[0] == pytest.approx(1.36e-3, rel=0.01)
    assert error[-1] == pytest.approx(7.9e-4, rel=0.05)


@pytest.mark.parametrize("decay", DECAYS)
def test_the_corrected_average_of_a_fluctuating_statistic_is_right_to_3e_5(decay):
    values = _streams()
    error = np.abs(_corrected(decay, values) / _reference(decay, values) - 1.0)
    assert error.max() < 3e-5
    assert error[:1000].max() < 5e-6


@pytest.mark.parametrize("decay", DECAYS)
def test_the_corrected_average_of_a_constant_stops_short_by_no_more_than_rounding_must(decay):
    values = np.broadcast_to(np.array([0.7, 1.0, 0.3, 1e-3]), (NUM_STEPS, 4))
    error = np.abs(_corrected(decay, values) / _reference(decay, values) - 1.0)
    assert error.max() < UNIT / (1.0 - decay) + 1e-6


def test_the_textbook_recursion_with_a_rounded_decay_would_be_noticed():
    """β m + (1 − β) x with β rounded to single precision: another β, so another average."""
    decay = 0.99999
    values = _streams()
    rounded = float(np.float32(decay))
    wrong = atoms.ema(values.astype(np.float32).astype(np.float64), rounded)
    wrong /= atoms.bias_corrections(decay, NUM_STEPS)[:, None]
    assert np.abs(wrong / _reference(decay, values) - 1.0).max() > 3e-5


def test_the_correction_has_a_derivative_at_decay_zero():
    """Where a sweep's decay is traced, its gradient is −t βᵗ⁻¹ down to β = 0, and no NaN."""

    def corrected(decay, t):
        tx = bias_correction(decay)
        state = tx.init(jnp.zeros(()))._replace(count=t - 1)
        return 1.0 / tx.update(jnp.ones(()), state)[0]

    steps = jnp.array([1, 2, 5])
    for decay in (0.0, 1e-6, 0.3, 0.5, 0.9):
        slopes = jax.jit(jax.vmap(jax.grad(corrected), (None, 0)))(decay, steps)
        np.testing.assert_allclose(slopes, -steps * decay ** (np.asarray(steps) - 1.0), rtol=3e-6)
        values = jax.jit(jax.vmap(corrected, (None, 0)))(decay, steps)
        np.testing.assert_allclose(values, 1.0 - decay ** np.asarray(steps, dtype=float), rtol=3e-7)
