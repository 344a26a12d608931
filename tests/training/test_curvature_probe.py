"""Curvature measured along a run, against dense Hessians and the optimizer's own threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxopt_study import dynamics, optimizers
from jaxopt_study.linalg import vectors
from jaxopt_study.problems import Problem
from jaxopt_study.training import CurvatureProbe, Probe, train

KEY = jax.random.key(0)
PROBE = CurvatureProbe(every=10, num_eigenvalues=2, tol=1e-3)


@pytest.fixture(scope="module")
def network():
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    y = np.polynomial.chebyshev.chebval(x[:, 0], [0, 0, 0, 1]).astype(np.float32)

    def init(key):
        keys = jax.random.split(key)
        return {"a": jax.random.normal(keys[0], (1, 6)), "b": jax.random.normal(keys[1], (6,))}

    def loss(params, batch):
        return 0.5 * jnp.mean((jnp.tanh(batch[0] @ params["a"]) @ params["b"] - batch[1]) ** 2)

    return Problem("network", init=init, loss=loss, data=(x, y))


def dense(problem, params, scale=None):
    """The Hessian in double precision, with D^½ from both sides."""
    with jax.enable_x64(True):
        flat, restore = ravel_pytree(jax.tree.map(lambda p: np.asarray(p, np.float64), params))
        data = jax.tree.map(lambda x: np.asarray(x, np.float64), problem.data)
        matrix = np.asarray(jax.hessian(lambda z: problem.loss(restore(z), data))(flat))
    root = np.ones(len(flat)) if scale is None else np.sqrt(np.asarray(ravel_pytree(scale)[0], np.float64))
    return root[:, None] * matrix * root


@pytest.fixture(scope="module")
def run(network):
    return train(
        network, optimizers.adam(0.05), num_steps=30, key=KEY, probe=PROBE, record_params_every=10, progress=False
    )


def test_eigenvalues_are_those_of_the_dense_hessian_within_their_residuals(network, run):
    assert run.probes["converged"].all()
    for i in range(3):
        params = jax.tree.map(lambda x, i=i: x[i], run.snapshots)
        exact = np.linalg.eigvalsh(dense(network, params))[::-1][:2]
        error = np.abs(run.probes["eigenvalues"][i] - exact)
        assert (error <= run.probes["residuals"][i] + 1e-5).all()
        assert exact[0] > 1.0  # so that the bound means something


def test_the_run_is_not_changed(network, run):
    plain = train(network, optimizers.adam(0.05), num_steps=30, key=KEY, progress=False)
    np.testing.assert_allclose(run.losses, plain.losses, rtol=2e-6)


@pytest.mark.slow
def test_the_own_sharpness_is_the_preconditioned_one_in_units_of_the_limit(network, run):
    lookahead = optimizers.nesterov_lookahead(0.05, 0.9)
    probe = CurvatureProbe(every=20, tol=1e-3, account=False)
    other = train(network, lookahead, num_steps=20, key=KEY, probe=probe, progress=False)
    for optimizer, result in ((optimizers.adam(0.05), run), (lookahead, other)):
        # The preconditioner's own unit knows the step count, and so do both limits.
        own = dynamics.preconditioned_sharpness(
            optimizer, result.opt_state, network.loss, result.params, network.data, key=KEY, tol=1e-3
        )
        limit = dynamics.stability_limit(optimizer, result.opt_state, result.params)
        assert float(result.probes["gain_sharpness"][-1]) / limit == pytest.approx(own.ratio[0], rel=5e-3)
        assert result.probes["gain_diagonal"].all()


def test_a_run_at_the_edge_is_told_from_one_beyond():
    """On ½λx² the step is stable up to the limit, and the probe says how far it is; learning rates may be traced."""
    problem = Problem("line", init=lambda key: jnp.ones(1), loss=lambda p, _: 5.0 * jnp.sum(p**2))
    probe = CurvatureProbe(every=40, account=False, stability_matvecs=2)
    rates = jnp.array([0.0, 0.19, 0.21])

    def final(rate):
        result = train(problem, optimizers.sgd(rate), num_steps=40, key=KEY, probe=probe)
        return result.probes, result.params

    probes, params = jax.jit(jax.vmap(final))(rates)
    np.testing.assert_allclose(probes["gain_sharpness"], np.outer(10 * rates, [1, 1]), rtol=1e-5, atol=1e-6)
    ratio = probes["gain_sharpness"] / dynamics.stability_limit(optax.sgd(1.0))
    assert (ratio > 1).tolist() == [[False, False], [False, False], [True, True]]
    assert probes["unstable"].tolist() == (ratio > 1).tolist()  # the alarm
    assert (np.abs(params) > 1).ravel().tolist() == [False, False, True]


def test_the_account_of_a_quadratic_is_exact():
    problem = Problem(
        "bowl", init=lambda key: jnp.array([3.0, 2.0]), loss=lambda p, _: jnp.sum(p**2 * jnp.arange(1, 3))
    )
    result = train(
        problem, optimizers.momentum(0.05), num_steps=4, key=KEY, probe=CurvatureProbe(gains=False), progress=False
    )
    predicted = result.probes["linear"] + result.probes["quadratic"]
    np.testing.assert_allclose(result.probes["realised"], predicted, rtol=1e-4)
    np.testing.assert_allclose(result.probes["realised"][:3], np.diff(result.losses), rtol=1e-4)
    # Without the second-order term the model is wrong by far more than that.
    assert np.abs(result.probes["linear"][0] / result.probes["realised"][0] - 1) > 0.05


@pytest.mark.slow
def test_a_new_direction_can_overtake_an_old_eigenvector():
    """The start is an exact eigenvector at every solve: without the random part it would stay the answer for ever."""

    def loss(p, _):
        return 0.5 * (2 * p["x"] ** 2 + jnp.exp(p["s"]) * p["y"] ** 2) - p["s"]

    problem = Problem(
        "overtaken", init=lambda key: {"x": jnp.zeros(()), "y": jnp.zeros(()), "s": jnp.zeros(())}, loss=loss
    )
    result = train(
        problem,
        optax.sgd(0.5),
        num_steps=6,
        key=KEY,
        probe=CurvatureProbe(tol=1e-4, account=False, gains=False),
        progress=False,
    )
    np.testing.assert_allclose(result.probes["eigenvalues"][:, 0], np.maximum(2, np.exp(0.5 * np.arange(7))), rtol=1e-3)


@pytest.mark.slow
def test_batches_and_all_examples_differ_only_where_they_should(network):
    settings = {"account": False, "gains": False}

    def first(**where):
        probe = CurvatureProbe(**where, **settings)
        result = train(network, optax.sgd(0.1), num_steps=1, key=KEY, batch_size=5, probe=probe, progress=False)
        return float(result.probes["eigenvalues"][0, 0])

    exact = np.linalg.eigvalsh(dense(network, network.init(jax.random.split(KEY, 5)[0])))[-1]
    assert first(batch_size=7) == pytest.approx(exact, rel=1e-2)
    assert first(data="batch") != pytest.approx(exact, rel=1e-2)


def test_a_probe_may_remember(network):
    counting = Probe(
        lambda memory, params, opt_state, batch: (memory + 1, memory), every=2, init=lambda *arguments: jnp.int32(7)
    )
    result = train(network, optax.sgd(0.1), num_steps=6, key=KEY, probe=counting, progress=False)
    assert result.probes.tolist() == [7, 8, 9, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every to be an integer ≥ 1; received 0"),
        ({"num_eigenvalues": 0}, "num_eigenvalues to be an integer ≥ 1; received 0"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        CurvatureProbe(**arguments)


def test_a_measurement_of_ones_own_is_recorded_beside_the_others(network):
    probe = CurvatureProbe(every=5, gains=False, account=False, measure=lambda op, key: {"trace": trace_of(op, key)})
    run = train(network, optax.sgd(0.1), num_steps=5, key=KEY, probe=probe, record_params_every=5, progress=False)
    for i, found in enumerate(run.probes["measured"]["trace"]):
        exact = np.trace(dense(network, jax.tree.map(lambda x, i=i: x[i], run.snapshots)))
        assert found == pytest.approx(exact, rel=1e-4)


def trace_of(op, key):
    """Exact, from products with every unit vector."""
    flat, restore = ravel_pytree(vectors.zeros_like(op.like))
    product = op.linearize()
    return jnp.trace(jax.lax.map(lambda v: ravel_pytree(product(restore(v)))[0], jnp.eye(flat.size)))


def test_what_works_from_python_says_so_inside_a_run(network):
    tx = optax.sgd(0.1)
    probe = Probe(lambda p, state, batch: dynamics.stability(tx, state, network.loss, p, batch).radius)
    with pytest.raises(TypeError, match=r"stability cannot run on traced arrays.*record_params_every"):
        train(network, tx, num_steps=1, key=KEY, probe=probe, progress=False)


@pytest.mark.slow
def test_the_step_of_a_saddle_escapes_and_oscillates_as_its_eigenvalues_say():
    problem = Problem("saddle", init=lambda key: jnp.ones(2), loss=lambda p, _: jnp.sum(jnp.array([5, -0.5]) * p**2))
    probe = CurvatureProbe(every=2, gains=False, account=False, stability_matvecs=8)

    def probed(rate):
        return train(problem, optimizers.momentum(rate, 0.5), num_steps=2, key=KEY, probe=probe).probes

    found = jax.jit(jax.vmap(probed))(jnp.array([0.1, 0.4]))
    for values, errors, rate in zip(found["step_eigenvalues"], found["step_errors"], (0.1, 0.4), strict=True):
        exact = np.concatenate([np.roots([1, rate * curvature - 1.5, 0.5]) for curvature in (10, -1)])
        largest, farthest = exact[np.abs(exact).argmax()], exact[np.abs(exact - 1).argmax()]
        for value, error in zip(values, errors, strict=True):
            assert abs(value[0] - largest) <= error[0] < 1e-4
            assert min(abs(value[1] - farthest), abs(value[1] - farthest.conj())) <= error[1] < 1e-4
    # One rate escapes along the negative curvature, the other overshoots, too.
    assert (np.real(found["step_eigenvalues"][0]) > 0).all()
    assert (np.real(found["step_eigenvalues"][1]) < -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [optimizers.adam(0.05), optimizers.nesterov_lookahead(0.1, 0.9)])
def test_the_step_of_a_network_has_the_radius_that_stability_finds(network, optimizer):
    probe = CurvatureProbe(every=5, gains=False, account=False, stability_matvecs=24)
    result = train(network, optimizer, num_steps=20, key=KEY, probe=probe, record_params_every=20, progress=False)
    exact = dynamics.stability(
        optimizer, result.opt_state, network.loss, result.params, network.data, key=KEY, tol=1e-4
    )
    values, errors = result.probes["step_eigenvalues"][-1], result.probes["step_errors"][-1]
    assert errors.max() < 1e-3
    assert abs(abs(values[0]) - exact.radius) <= errors[0] + exact.error
    far = exact.eigenvalues[np.abs(exact.eigenvalues - 1).argmax()]
    assert min(abs(values[1] - far), abs(values[1] - far.conj())) <= errors[1] + exact.errors.max()


def test_steps_that_differ_in_turn_have_no_eigenvalues_of_their_own(network):
    probe = CurvatureProbe(stability_matvecs=4)
    with pytest.raises(ValueError, match="repeats only every 3 steps"):
        train(network, optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation(), num_steps=2, key=KEY, probe=probe)
    with pytest.raises(ValueError, match="stability_matvecs to be an integer ≥ 0"):
        CurvatureProbe(stability_matvecs=-1)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_gains_are_those_of_the_loss_in_any_unit(scale):
    c = jnp.float32(scale)
    bowl = Problem(
        "bowl", init=lambda key: jnp.ones(3), loss=lambda p, _: c * jnp.sum(jnp.array([3.0, 2.0, 1.0]) * p**2) / 2
    )
    run = train(bowl, optax.sgd(0.001 / scale), num_steps=1, key=KEY, probe=CurvatureProbe(account=False))
    np.testing.assert_allclose(run.probes["gain_sharpness"], 0.003, rtol=1e-2)


def test_gains_of_small_rates_in_half_precision():
    loss = lambda p, _: jnp.sum(jnp.array([3.0, 2.0, 1.0]) * p.astype(jnp.float32) ** 2) / 2
    bowl = Problem("bowl", init=lambda key: jnp.ones(3, jnp.float16), loss=loss)
    run = train(bowl, optax.sgd(0.001), num_steps=1, key=KEY, probe=CurvatureProbe(account=False, tol=0.05))
    np.testing.assert_allclose(run.probes["gain_sharpness"], 0.003, rtol=0.06)
