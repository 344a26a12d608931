"""Results of one run, against loops written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.problems import Problem
from jaxopt_study.training import Probe, evaluate, linear_curriculum, train
from jaxopt_study.training import _compiled_loop as loops
from jaxopt_study.training import _plan as planning
from jaxopt_study.training import _python_loop as host
from jaxopt_study.training._plan import _wants_host

KEY = jax.random.key(0)


def by_hand(problem, start, learning_rate, decay, batches):
    """Heavy-ball SGD on the regression, in NumPy float64: v ← γv + g, θ ← θ − ηv."""
    x, y = (np.asarray(a, np.float64) for a in problem.data)
    w, b = np.asarray(start["weight"], np.float64).reshape(-1), float(start["bias"])
    velocity = np.zeros(7)
    losses, path = [], [np.append(w, b)]
    for batch in batches:
        residual = x[batch] @ w + b - y[batch]
        losses.append(np.mean(residual**2))
        gradient = 2 * np.append(x[batch].T @ residual, residual.sum()) / len(batch)
        velocity = decay * velocity + gradient
        w, b = w - learning_rate * velocity[:6], b - learning_rate * velocity[6]
        path.append(np.append(w, b))
    return np.array(losses), np.array(path)


def as_vector(params):
    params = jax.tree.map(np.asarray, params)
    return np.concatenate([params["weight"].reshape(*params["bias"].shape, -1), params["bias"][..., None]], axis=-1)


def batches_seen(problem, num_steps, batch_size, order="reshuffle"):
    """Train nothing, and let a probe write down which examples every step would see."""
    numbered = problem.replace(
        data=(*problem.data, jnp.arange(problem.num_examples)), loss=lambda p, batch: problem.loss(p, batch[:2]),
        validation=None, metrics={},
    )  # fmt: skip
    run = train(
        numbered, optax.sgd(0.0), num_steps=num_steps, key=KEY, batch_size=batch_size, order=order,
        probe=lambda params, opt_state, batch: batch[2],
    )  # fmt: skip
    return np.asarray(run.probes)[:-1]


def test_full_batch_training_is_the_recursion_written_out(regression):
    run = train(regression, optax.sgd(0.02, momentum=0.9), num_steps=60, key=KEY, record_params_every=1)
    losses, path = by_hand(regression, jax.tree.map(lambda x: x[0], run.snapshots), 0.02, 0.9, [np.arange(23)] * 60)
    np.testing.assert_allclose(run.losses, losses, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(as_vector(run.snapshots), path, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(as_vector(run.params), as_vector(run.snapshots)[-1])
    assert int(run.num_steps) == 60
    assert not run.diverged


@pytest.mark.parametrize("order", ["reshuffle", "shuffle_once", "with_replacement"])
def test_mini_batch_training_is_the_recursion_on_the_batches_it_says_it_saw(regression, order):
    batches = batches_seen(regression, 40, 5, order)
    run = train(regression, optax.sgd(0.01), num_steps=40, key=KEY, batch_size=5, order=order, record_params_every=7)
    losses, path = by_hand(regression, jax.tree.map(lambda x: x[0], run.snapshots), 0.01, 0.0, batches)
    np.testing.assert_allclose(run.losses, losses, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(run.snapshot_steps, [0, 7, 14, 21, 28, 35, 40])
    np.testing.assert_allclose(as_vector(run.snapshots), path[run.snapshot_steps], rtol=1e-4, atol=1e-5)


def test_every_epoch_of_a_run_holds_every_example_once(regression):
    seen = batches_seen(regression, 23, 5).reshape(5, 23)
    np.testing.assert_array_equal(np.sort(seen, axis=1), np.tile(np.arange(23), (5, 1)))


def test_a_curriculum_reaches_the_step(regression):
    order = linear_curriculum(np.arange(23.0), start=0.2, num_steps=30)
    seen = batches_seen(regression, 30, 4, order)
    assert np.all(seen.max(axis=1) < np.ceil((0.2 + 0.8 * np.arange(30) / 30) * 23))


@pytest.mark.parametrize("batch_size", [23, None])
def test_a_batch_of_all_examples_is_the_full_batch(regression, batch_size):
    full = train(regression, optax.sgd(0.01), num_steps=5, key=KEY)
    run = train(regression, optax.sgd(0.01), num_steps=5, key=KEY, batch_size=batch_size)
    np.testing.assert_array_equal(run.losses, full.losses)


def test_host_driven_and_compiled_loops_and_a_traced_run_agree(regression):
    settings = {"num_steps": 37, "key": KEY, "batch_size": 4, "evaluate_every": 5, "record_params_every": 4}
    settings["probe"] = Probe(lambda params, opt_state, batch: optax.tree.norm(params), every=3)
    optimizer = transforms.chain(transforms.tap("raw"), optimizers.adam(0.1))
    compiled = train(regression, optimizer, loop="compiled", **settings)
    host = train(regression, optimizer, loop="host", **settings)
    traced = jax.jit(lambda: train(regression, optimizer, **settings))()
    assert jax.tree.structure(compiled) == jax.tree.structure(host) == jax.tree.structure(traced)
    for a, b, c in zip(*map(jax.tree.leaves, (compiled, host, traced)), strict=True):
        assert a.dtype == b.dtype == c.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-5)
    np.testing.assert_array_equal(compiled.evaluations["step"], [*range(0, 37, 5), 37])
    np.testing.assert_array_equal(compiled.probe_steps, [*range(0, 37, 3), 37])
    norms = np.linalg.norm(as_vector(compiled.snapshots), axis=-1)
    np.testing.assert_allclose(compiled.probes[::4], norms[::3], rtol=1e-5)  # steps 0, 12, 24, 36


def test_convolutions_run_from_the_host_on_a_cpu_and_both_ways_agree(monkeypatch):
    images = jax.random.normal(jax.random.key(1), (16, 6, 6, 1))

    def loss(params, batch):
        out = jax.lax.conv_general_dilated(batch, params, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean((jnp.tanh(out) - 0.3) ** 2)

    problem = Problem("conv", init=lambda key: jax.random.normal(key, (3, 3, 1, 2)), loss=loss, data=images)
    driven = []
    monkeypatch.setattr(host, "host_chunk", lambda *a: driven.append(a[-3:-1]) or loops.host_chunk(*a))
    settings = {"num_steps": 12, "key": KEY, "batch_size": 5}
    auto = train(problem, optax.adam(0.1), **settings)
    assert driven[0] == (0, 1)
    assert driven[-1][1] == 12
    driven.clear()
    compiled = train(problem, optax.adam(0.1), loop="compiled", **settings)
    assert not driven
    np.testing.assert_allclose(auto.losses, compiled.losses, rtol=1e-5)
    assert auto.losses[-1] < auto.losses[0]

    program = jax.make_jaxpr(jax.grad(jax.jit(loss)))(jnp.ones((3, 3, 1, 2)), images)  # inside another program
    assert _wants_host("auto", program, traced=False, backend="cpu")
    assert not _wants_host("auto", program, traced=True, backend="cpu")
    assert not _wants_host("auto", program, traced=False, backend="gpu")
    assert not _wants_host("auto", jax.make_jaxpr(jnp.sin)(1.0), traced=False, backend="cpu")


def test_long_runs_of_many_parts_are_seamless(bowl, monkeypatch):
    whole = train(bowl, optax.sgd(1e-3), num_steps=3000, key=KEY, record_params_every=7, evaluate_every=11)
    monkeypatch.setattr(planning, "_MAX_CAPACITY", 64)
    planning._decide.cache_clear()
    parts = []
    pieces = train(
        bowl, optax.sgd(1e-3), num_steps=3000, key=KEY, record_params_every=7, evaluate_every=11,
        progress=lambda done, total, loss: parts.append((done, total, loss)),
    )  # fmt: skip
    planning._decide.cache_clear()
    assert len(parts) > 3000 / 64
    assert parts[-1] == (3000, 3000, float(whole.losses[-1]))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(whole.params, np.array([3.0, -2.0]) * 0.999**3000, rtol=1e-4)


def test_no_steps_leave_the_start(regression):
    start = regression.init(jax.random.key(5))
    run = train(regression, optax.adam(0.1), num_steps=0, key=KEY, params=start, evaluate_every=10)
    np.testing.assert_array_equal(as_vector(run.params), as_vector(start))
    assert run.losses.shape == (0,)
    assert run.evaluations["step"].tolist() == [0]
    assert float(run.evaluations["validation_loss"][0]) == pytest.approx(
        float(regression.loss(start, regression.validation)), rel=1e-6
    )


def test_the_users_start_survives(regression):
    start = regression.init(jax.random.key(5))
    before = as_vector(start)
    run = train(regression, optax.adam(0.1), num_steps=5, key=KEY, params=start)
    np.testing.assert_array_equal(as_vector(start), before)
    again = train(regression, optax.adam(0.1), num_steps=5, key=KEY, params=run.params)
    assert not np.array_equal(as_vector(run.params), as_vector(again.params))  # and the first result is still readable


def test_a_key_replays_its_run_and_another_key_does_not(regression):
    noisy = transforms.chain(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(9)), optimizers.sgd(0.01))
    start = regression.init(KEY)
    runs = [
        train(regression, noisy, num_steps=6, key=key, params=start).losses for key in (KEY, KEY, jax.random.key(1))
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.all(runs[0][1:] != runs[2][1:])  # full batch: only the noise differs


def test_the_gradient_is_taken_at_the_look_ahead_point(bowl):
    rate, decay = 0.1, 0.9
    run = train(bowl, optimizers.nesterov_lookahead(rate, decay), num_steps=50, key=KEY, record_params_every=1)
    position, velocity, path = np.array([3.0, -2.0]), np.zeros(2), []
    for _ in range(50):
        path.append(position)
        velocity = decay * velocity + rate * (position - decay * velocity)  # ∇f(x) = x
        position = position - velocity
    np.testing.assert_allclose(run.snapshots, [*path, position], rtol=1e-4, atol=1e-6)


def test_optimizers_that_ask_for_the_loss_get_it(bowl):
    run = train(bowl, optax.polyak_sgd(max_learning_rate=10.0), num_steps=20, key=KEY)
    # Polyak's step on ½‖x‖² is f/‖g‖² = ½: the distance halves.
    np.testing.assert_allclose(run.params, np.array([3.0, -2.0]) / 2**20, rtol=1e-4)
    rosenbrock = Problem(
        "rosenbrock", init=lambda key: jnp.array([-1.0, 1.0]),
        loss=lambda p, _: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2,
    )  # fmt: skip
    run = train(rosenbrock, optax.lbfgs(), num_steps=60, key=KEY)
    np.testing.assert_allclose(run.params, [1.0, 1.0], atol=1e-3)


def test_transformations_without_extra_arguments_are_welcome(bowl):
    clipped = optax.chain(optax.clip(1.0), optax.scale(-0.5))
    assert isinstance(clipped, optax.GradientTransformation)
    plain = optax.GradientTransformation(optax.identity().init, lambda u, s, p=None: (jax.tree.map(jnp.negative, u), s))
    run = train(bowl, plain, num_steps=1, key=KEY)
    np.testing.assert_array_equal(run.params, [0.0, 0.0])
    run = train(bowl, clipped, num_steps=1, key=KEY)
    np.testing.assert_array_equal(run.params, [2.5, -1.5])


def test_model_state_and_randomness_reach_the_step():
    # A model that counts its steps and centres its input by a running mean: what batch statistics do.
    def step_loss(params, state, batch, key):
        mean = 0.9 * state["mean"] + 0.1 * batch.mean()
        noise = jax.random.normal(key)
        return jnp.mean((batch - mean - params) ** 2) + 0.0 * noise, {"mean": mean, "draw": noise}

    problem = Problem(
        "stateful",
        init=lambda key: jnp.zeros(()),
        loss=lambda p, batch, state: jnp.mean((batch - state["mean"] - p) ** 2),
        data=jnp.arange(10.0),
        init_state=lambda key: {"mean": jnp.zeros(()), "draw": jnp.zeros(())},
        step_loss=step_loss,
    )
    states = train(
        problem, optax.sgd(0.0), num_steps=12, key=KEY, evaluate_every=4,
        probe=lambda params, opt_state, batch, model_state: model_state,
    )  # fmt: skip
    np.testing.assert_allclose(states.probes["mean"], 4.5 * (1 - 0.9 ** np.arange(13)), rtol=1e-5)
    assert len(set(states.probes["draw"].tolist())) == 13  # fresh randomness at every step
    expected = [np.mean((np.arange(10) - 4.5 * (1 - 0.9**t)) ** 2) for t in (0, 4, 8, 12)]
    np.testing.assert_allclose(states.evaluations["train_loss"], expected, rtol=1e-5)
    final = evaluate(problem, states.params, states.model_state, on="train")
    assert float(final["loss"]) == pytest.approx(float(states.evaluations["train_loss"][-1]), rel=1e-6)


def test_taps_are_kept_for_every_step(bowl):
    optimizer = transforms.chain(transforms.tap("clip", transforms.clip_by_global_norm(1.0)), optimizers.sgd(0.5))
    run = train(bowl, optimizer, num_steps=8, key=KEY, record_params_every=1)
    gradients = np.linalg.norm(run.snapshots, axis=1)[:-1]
    np.testing.assert_allclose(run.taps["clip"].norm_in, gradients, rtol=1e-5)
    np.testing.assert_allclose(run.taps["clip"].norm_out, np.minimum(gradients, 1.0), rtol=1e-5)


def test_evaluation_counts_every_example_once_whatever_the_batch_size(regression):
    params = regression.init(KEY)
    whole = evaluate(regression, params)
    for batch_size in (1, 5, 17, 40):  # 17 examples: 3·5 + 2, 17, and more than there are
        parts = evaluate(regression, params, batch_size=batch_size)
        assert float(parts["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-5)
    run = train(
        regression, optax.adam(0.1), num_steps=4, key=KEY, evaluate_every=2, evaluate_on=("train", "validation"),
        evaluate_batch_size=5,
    )  # fmt: skip
    assert set(run.evaluations) == {"step", "train_loss", "train_worst", "validation_loss", "validation_worst"}
    final = evaluate(regression, run.params, on="train")
    assert float(run.evaluations["train_loss"][-1]) == pytest.approx(float(final["loss"]), rel=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_batches_of_an_evaluation_are_summed_in_single_precision(dtype):
    data = {"y": np.ones(100_000, dtype)}  # more examples than a half-precision number can count
    problem = Problem("half", lambda key: jnp.zeros((), dtype), lambda p, b: jnp.mean((p - b["y"]) ** 2), data=data)
    for batch_size in (1000, 30_000):
        loss = evaluate(problem, jnp.zeros((), dtype), on="train", batch_size=batch_size)["loss"]
        assert (float(loss), loss.dtype) == (1.0, dtype)
    settings = {"num_steps": 1, "key": KEY, "evaluate_every": 1, "evaluate_batch_size": 1000}
    assert float(train(problem, optax.sgd(0.0), **settings).evaluations["train_loss"][0]) == 1.0


def test_double_precision_stays_double():
    with jax.enable_x64(True):
        bowl = Problem("bowl", init=lambda key: jnp.array([3.0, -2.0]), loss=lambda p, _: 0.5 * jnp.sum(p**2))
        run = train(bowl, optax.adam(0.1), num_steps=10, key=KEY, record_params_every=5)
        assert run.losses.dtype == run.params.dtype == run.snapshots.dtype == jnp.float64


def test_half_precision_parameters_stay_half(bowl):
    run = train(bowl, optimizers.adam(0.1), num_steps=10, key=KEY, params=jnp.array([3.0, -2.0], jnp.bfloat16))
    assert run.params.dtype == jnp.bfloat16
    assert float(run.losses[-1]) < float(run.losses[0])


def lanes_of(optimizer):
    keys = jax.random.split(jax.random.key(0), 3)
    flat = Problem("flat", init=lambda key: jnp.zeros(3), loss=lambda p, _: 0.0 * jnp.sum(p))
    return jax.vmap(lambda key: train(flat, optimizer, num_steps=2, key=key).params)(keys)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(9)), optax.sgd(0.1)),
        optax.masked(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(9)), True),
        transforms.add_gradient_noise(0.1, 0.55, jax.random.PRNGKey(9)),
        optax.add_noise(0.1, 0.55, jax.random.key(9)),
    ],
    ids=["optax.chain", "optax.masked", "an old key", "Optax's noise"],
)
def test_lanes_draw_their_own_noise_wherever_the_key_is(optimizer):
    lanes = lanes_of(optimizer)
    assert np.all(lanes[0] != lanes[1])
    assert np.all(lanes[1] != lanes[2])
    np.testing.assert_array_equal(lanes, lanes_of(optimizer))


def test_optimizers_that_are_not_pairs_or_take_few_extra_arguments_train():
    bowl = Problem("bowl", init=lambda key: jnp.ones(2), loss=lambda p, _: 0.5 * jnp.sum(p**2))
    twice = train(bowl, optax.MultiSteps(optax.sgd(0.5), 2), num_steps=4, key=jax.random.key(0))
    np.testing.assert_allclose(twice.params, 0.25)
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), sync_period=2)
    expected = train(bowl, sam, num_steps=4, key=jax.random.key(0)).losses
    assert expected[-1] < 1.0
    for around in (transforms.chain(sam), transforms.tap("sam", sam)):
        np.testing.assert_array_equal(train(bowl, around, num_steps=4, key=jax.random.key(0)).losses, expected)
