"""Every function of data gives for a loader what it gives for the concatenated batches."""

import io
from contextlib import redirect_stderr

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import curvature, dynamics, optimizers, problems, training
from jaxopt_study.curvature import Stream

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
Y = np.sin(X.sum(axis=1))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (3, 2)) / 2, "v": jnp.array([0.4, -0.7])}
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 23, 6)]  # the last has 5 examples
READS = []


def loader():
    READS.append(None)
    return iter(BATCHES)


def loss(params, batch):
    return jnp.mean((jnp.tanh(batch[0] @ params["w"]) @ params["v"] - batch[1]) ** 2)


def agree(streamed, whole, rtol=2e-4, atol=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), streamed, whole)


def both(function, *rest, **options):
    tx = optimizers.adam(0.05)
    state = tx.init(PARAMS)
    return [function(tx, state, loss, PARAMS, data, *rest, **options) for data in (loader, (X, Y))]


@pytest.mark.slow
def test_stability_reads_a_loader():
    streamed, whole = both(dynamics.stability, key=KEY)
    assert streamed.radius == pytest.approx(whole.radius, abs=streamed.error + whole.error + 1e-5)
    assert (streamed.kind, streamed.frozen) == (whole.kind, whole.frozen)


@pytest.mark.slow
def test_stability_of_a_period_reads_a_loader():
    tx = optax.MultiSteps(optax.sgd(0.3, momentum=0.5), 2)
    found = [dynamics.stability(tx, tx.init(PARAMS), loss, PARAMS, data, key=KEY) for data in (loader, (X, Y))]
    assert found[0].radius == pytest.approx(found[1].radius, abs=found[0].error + found[1].error + 1e-5)


@pytest.mark.slow
def test_the_preconditioned_hessian_reads_a_loader():
    agree(*(found.diagonal for found in both(dynamics.preconditioner)))
    streamed, whole = both(dynamics.preconditioned_sharpness, key=KEY)
    assert streamed.lower <= whole.upper * (1 + 1e-4)
    assert whole.lower <= streamed.upper * (1 + 1e-4)
    streamed, whole = both(dynamics.preconditioned_density, key=KEY, num_probes=2, num_steps=8)
    assert streamed.threshold == whole.threshold


@pytest.mark.slow
def test_the_curvature_along_the_next_update_reads_a_loader():
    streamed, whole = both(dynamics.directional_sharpness)
    agree(streamed.interactions, whole.interactions)
    streamed, whole = both(dynamics.critical_sharpness)
    assert streamed.value == pytest.approx(whole.value, abs=streamed.error + whole.error)


def test_the_account_of_a_step_reads_a_loader():
    updates = jax.tree.map(lambda p: -0.1 * p, PARAMS)
    streamed, whole = (dynamics.account_step(loss, PARAMS, updates, data) for data in (loader, (X, Y)))
    agree(streamed.predicted, whole.predicted)
    agree(streamed.realised, whole.realised)


@pytest.mark.slow
def test_a_range_of_learning_rates_reads_a_loader_once_for_a_step_of_all_short_runs():
    make = lambda rate: optax.sgd(rate, momentum=0.9)
    streamed, whole = (
        dynamics.learning_rate_range(make, loss, PARAMS, data, key=KEY, num_rates=5, num_steps=4)
        for data in (BATCHES, (X, Y))
    )
    assert streamed.lower < whole.upper
    assert whole.lower < streamed.upper
    moved = jnp.isfinite(whole.losses) & (whole.losses < 10)
    agree(jnp.where(moved, streamed.losses, 0), jnp.where(moved, whole.losses, 0), rtol=0.2)  # other rates by the width
    agree(streamed.initial_loss, whole.initial_loss)


@pytest.mark.slow
def test_the_stability_of_random_batches_draws_them_from_the_examples_of_a_loader():
    streamed, whole = both(dynamics.stochastic_stability, batch_size=4, key=KEY, num_steps=4, num_particles=4)
    assert streamed == whole


def test_the_noise_of_a_loader_is_that_of_its_batches():
    # In double precision from the definition, with the weights of unequal batches.
    counts = np.array([len(y) for _, y in BATCHES], np.float64)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)
    gradients = np.stack([flat(jax.grad(loss)(PARAMS, batch)) for batch in BATCHES])

    def estimates(kept):
        b, g = counts[kept], gradients[kept]
        mean = b @ g / b.sum()
        trace = (b * ((g - mean) ** 2).sum(axis=1)).sum() / (len(b) - 1)
        return np.array([trace, mean @ mean - trace / b.sum()])

    found = dynamics.gradient_noise(loss, PARAMS, loader, key=KEY)
    values = estimates(np.arange(4))
    np.testing.assert_allclose([found.trace.value, found.squared_norm.value], values, rtol=1e-4)
    without = np.stack([estimates(np.delete(np.arange(4), k)) for k in range(4)])
    errors = np.sqrt(3 / 4 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    np.testing.assert_allclose([found.trace.standard_error, found.squared_norm.standard_error], errors, rtol=1e-3)


def test_the_noise_of_a_shuffling_loader_is_unbiased():
    generator = np.random.default_rng(0)
    quadratic = lambda mean, batch: 0.5 * jnp.mean(jnp.sum((batch[0] - mean) ** 2, axis=1))

    def fresh():
        return iter([(generator.normal(size=(6, 4)).astype(np.float32),) for _ in range(20)])

    found = [dynamics.gradient_noise(quadratic, jnp.ones(4), fresh, key=KEY) for _ in range(30)]
    for part, value in (("trace", 4.0), ("squared_norm", 4.0)):
        values = np.array([float(getattr(one, part).value) for one in found])
        assert abs(values.mean() - value) < 4 * values.std() / np.sqrt(len(values))
        errors = np.array([float(getattr(one, part).standard_error) for one in found])
        assert 0.7 < errors.mean() / values.std() < 1.4


def test_the_batch_sharpness_of_a_loader_is_that_of_its_batches():
    found = dynamics.batch_sharpness(loss, PARAMS, loader, key=KEY)
    above, below = [], []
    for batch in BATCHES:
        g, unravel = jax.flatten_util.ravel_pytree(jax.grad(loss)(PARAMS, batch))
        product = curvature.hessian(loss, PARAMS, batch) @ unravel(g)
        above.append(float(g @ jax.flatten_util.ravel_pytree(product)[0]))
        below.append(float(g @ g))
    assert found.value == pytest.approx(sum(above) / sum(below), rel=1e-4)
    assert int(found.num_batches) == 4
    agree(found.full_batch, dynamics.batch_sharpness(loss, PARAMS, (X, Y), batch_size=23, key=KEY).value)


@pytest.mark.slow
def test_a_probe_measures_on_a_loader_along_a_run():
    problem = problems.from_pytree(PARAMS, loss, data=(X, Y))
    runs = []
    for data in (BATCHES, "all"):
        probe = training.CurvatureProbe(every=2, data=data)
        runs.append(training.train(problem, optimizers.momentum(0.05), num_steps=4, batch_size=6, key=KEY, probe=probe))
    streamed, whole = (run.probes for run in runs)
    assert streamed.keys() == whole.keys()
    for name in ("eigenvalues", "gain_sharpness", "gradient_norm", "linear", "quadratic", "realised"):
        agree(streamed[name], whole[name], rtol=2e-3, atol=1e-5)
    agree(runs[0].params, runs[1].params, rtol=1e-5, atol=1e-6)


def test_a_probe_on_a_loader_stays_outside_of_compiled_programs():
    problem = problems.from_pytree(PARAMS, loss, data=(X, Y))
    probe = training.CurvatureProbe(data=BATCHES)
    with pytest.raises(ValueError, match="cannot measure on a loader inside jit or vmap"):
        jax.vmap(lambda key: training.train(problem, optax.sgd(0.1), num_steps=1, key=key, probe=probe).losses)(
            jax.random.split(KEY, 2)
        )
    with pytest.raises(ValueError, match="takes no stability_matvecs"):
        training.CurvatureProbe(data=BATCHES, stability_matvecs=8)


WRONG = {
    "line search": (lambda: both(dynamics.stability, key=KEY), TypeError, "the data as arrays; received a loader"),
    "batch size": (
        lambda: dynamics.gradient_noise(loss, PARAMS, loader, batch_size=3, key=KEY), ValueError, "as they come"
    ),
    "too few": (lambda: dynamics.gradient_noise(loss, PARAMS, BATCHES[:2], key=KEY), ValueError, "three batches"),
    "one": (lambda: dynamics.batch_sharpness(loss, PARAMS, BATCHES[:1], key=KEY), ValueError, "two batches"),
    "read once": (lambda: dynamics.gradient_noise(loss, PARAMS, iter(BATCHES), key=KEY), TypeError, "read once"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_a_loader_cannot_give_is_refused(name, monkeypatch):
    call, error, words = WRONG[name]
    if name == "line search":
        monkeypatch.setattr(optimizers, "adam", lambda rate: optax.chain(optax.sgd(rate), _asks_for_the_loss()))
    with pytest.raises(error, match=words):
        call()


def _asks_for_the_loss():
    def update(updates, state, params, *, value_fn, **extra):
        del extra
        value_fn(params)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_long_pass_shows_a_bar_at_a_terminal_only(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    clock = iter(range(0, 1_000, 5))
    monkeypatch.setattr("jaxopt_study._progress_bar.time.perf_counter", lambda: float(next(clock)))
    with redirect_stderr(Screen()) as screen:
        list(Stream("hessian", BATCHES))
    assert "hessian: batches" in screen.getvalue()
    assert "3/4" in screen.getvalue()
    with redirect_stderr(io.StringIO()) as pipe:
        list(Stream("hessian", BATCHES))
    assert pipe.getvalue() == ""


def test_a_bar_inside_a_bar_is_a_second_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stderr(Screen()) as screen, training.Bar(None, "") as outer:
        outer.show("outer", 0, 2)
        with training.Bar(True, "inner") as inner:
            inner.move(1, 2)
            assert inner._bar is outer._bar
        outer.show("outer", 1, 2)
    assert "inner" in screen.getvalue()
