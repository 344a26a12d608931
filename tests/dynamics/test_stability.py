"""The spectral radius of the training step, against dense Jacobians and hand-made block matrices."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxopt_study import optimizers, transforms
from jaxopt_study.curvature import from_matrix, hessian, sharpness
from jaxopt_study.dynamics import preconditioned_sharpness, preconditioner, stability, stability_threshold
from jaxopt_study.dynamics._linearised_step import linear_step
from jaxopt_study.dynamics._stability import _verdict
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.arnoldi import arnoldi_factorization
from jaxopt_study.transforms import chain, gradient_point

KEY = jax.random.key(0)
FEATURES = np.random.default_rng(0).normal(size=(12, 4))
TARGETS = np.sin(2 * FEATURES[:, 0])


def loss(params, data):
    """A small network's; without examples, of a fixed set."""
    x, y = (FEATURES, TARGETS) if data is None else data
    return 0.5 * jnp.mean((jnp.tanh(x @ params["in"].reshape(4, 2)) @ params["out"] - y) ** 2)


def start():
    draw = np.random.default_rng(1).normal
    return {"in": jnp.asarray(draw(size=8)), "out": jnp.asarray(draw(size=2))}


def trained(tx, num_steps=4, scale=0.1):
    """Parameters and state after a few steps, each shortened so that no method runs away."""

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(gradient_point(params, state), None)
        updates, state = tx.update(grads, state, params, value=1.0)
        return optax.apply_updates(params, jax.tree.map(lambda u: scale * u, updates)), state

    tx = optax.with_extra_args_support(tx)
    params = start()
    state = tx.init(params)
    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


def whole_jacobian(tx, params, state):
    """∂(θ′, floats of the state′)/∂(θ, floats of the state), by differentiating the step as it stands."""
    leaves, structure = jax.tree.flatten(state)
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    tx = optax.with_extra_args_support(tx)

    def step(flat):
        params, given = restore(flat)
        given = iter(given)
        state = structure.unflatten(
            [next(given) if is_float else leaf for leaf, is_float in zip(leaves, floats, strict=True)]
        )
        value, grads = jax.value_and_grad(loss)(gradient_point(params, state), None)
        updates, new = tx.update(grads, state, params, value=value)
        new = [leaf for leaf, is_float in zip(jax.tree.leaves(new), floats, strict=True) if is_float]
        return ravel_pytree((optax.apply_updates(params, updates), new))[0]

    flat, restore = ravel_pytree((params, [leaf for leaf, f in zip(leaves, floats, strict=True) if f]))
    return np.asarray(jax.jacfwd(step)(flat))


def dense(tx, params, state, freeze):
    """The matrix that `stability` multiplies with."""
    step = linear_step(tx, state, loss, params, None, freeze, None)
    flat, restore = ravel_pytree(vectors.zeros_like(step.like))

    @jax.jit
    def columns(step):
        product = step.linearize()
        return lax.map(lambda v: ravel_pytree(product(restore(v)))[0], jnp.eye(flat.size))

    return np.asarray(columns(step)).T


def nonzero(values):
    """Eigenvalues without those of clocks and of what is overwritten, sorted."""
    values = values[np.abs(values) > 1e-9]
    return values[np.lexsort((values.imag, values.real))]


def hessian_and_gradient(params, point=None):
    flat, restore = ravel_pytree(params)
    f = lambda z: loss(restore(z), None)
    at = flat if point is None else ravel_pytree(point)[0]
    return np.asarray(jax.hessian(f)(at)), np.asarray(jax.grad(f)(at))


OPTIMIZERS = {
    "sgd": optimizers.sgd(2.0),
    "momentum": optimizers.momentum(0.5),
    "nesterov": optimizers.nesterov(0.5, convention="torch"),
    "lookahead": optimizers.nesterov_lookahead(0.5),
    "adagrad": optimizers.adagrad(0.2),
    "adadelta": optimizers.adadelta(),
    "rmsprop": optimizers.rmsprop(0.1, momentum=0.5),
    "centred": optimizers.rmsprop(0.1, centered=True, eps=0.1),
    "adam": optimizers.adam(0.1),
    "amsgrad": optimizers.amsgrad(0.1),
    "adamax": optimizers.adamax(0.1),
    "nadam": optimizers.nadam(0.1),
    "radam": optimizers.radam(0.1),
    "adamw": optimizers.adamw(0.1),
    "lion": optimizers.lion(0.1, weight_decay=0.1),
    "adan": optimizers.adan(0.1),
    "clipped": chain(transforms.clip_by_global_norm(1e-2), optimizers.momentum(0.5)),
    "optax.sgd": optax.sgd(0.5, 0.9, nesterov=True),
    "optax.adam": optax.adam(0.1),
    "optax.adamw": optax.inject_hyperparams(optax.adamw)(0.1),
    "optax.rmsprop": optax.rmsprop(0.1, centered=True, momentum=0.5),
    "optax.adagrad": optax.adagrad(0.1),
    "optax.lamb": optax.lamb(0.1),
    "optax.adabelief": optax.adabelief(0.1),
    "optax.clip": optax.chain(optax.clip_by_global_norm(1e-2), optax.adam(0.1)),
    "optax.plateau": optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()),
    "optax.schedule_free": optax.contrib.schedule_free_sgd(0.5),
    "optax.partition": optax.partition({"a": optax.adam(0.1), "b": optax.sgd(0.1, 0.9)}, {"in": "a", "out": "b"}),
}
SOME = ("adam",)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_whole_map_is_the_jacobian_of_the_step(name):
    tx = OPTIMIZERS[name]
    with jax.enable_x64(True):
        params, state = trained(tx)
        expected = nonzero(np.linalg.eigvals(whole_jacobian(tx, params, state)))
        # Clocks that are floats keep their value, or decay: they are no part of the map here.
        found = nonzero(np.linalg.eigvals(dense(tx, params, state, "nothing")))
    distances = np.abs(found[:, None] - expected[None, :])
    assert distances.min(axis=1).max() < 1e-6
    clocks = expected[distances.min(axis=0) > 1e-6]
    assert len(clocks) == len(expected) - len(found)
    assert np.all(np.abs(clocks.imag) < 1e-9)


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
@pytest.mark.parametrize("freeze", ["statistics", "nothing"])
def test_radius_is_that_of_the_dense_matrix_within_its_error(name, freeze):
    tx = OPTIMIZERS[name]
    with jax.enable_x64(True):
        params, state = trained(tx)
        found = stability(tx, state, loss, params, key=KEY, freeze=freeze, tol=1e-7)
        values = np.linalg.eigvals(dense(tx, params, state, freeze))
    assert found.converged
    assert found.num_matvecs <= 120  # of up to 50 unknowns: dozens of zeros must not take the basis's room
    assert found.radius == pytest.approx(np.abs(values).max(), abs=max(1e-9, 2 * found.error))
    for value, error in zip(found.eigenvalues, found.errors, strict=True):
        assert np.abs(values - value).min() <= max(1e-8, 2 * error)


def frozen_by_hand(name, params, state):
    """The frozen step as a block matrix, from the dense Hessian and the state, as the papers write the method."""
    H, g = hessian_and_gradient(params, gradient_point(params, state))
    identity, nothing = np.eye(len(g)), np.zeros_like(H)
    count = 5  # the coming step, after four

    def flat(tree):
        return np.asarray(ravel_pytree(tree)[0])

    if name == "momentum":
        return np.block([[identity - 0.5 * H, -0.9 * identity], [0.5 * H, 0.9 * identity]])
    if name == "lookahead":
        velocity = 0.5 * H, 0.9 * identity - 0.5 * 0.9 * H
        return np.block([[identity - velocity[0], -velocity[1]], [velocity[0], velocity[1]]])
    if name == "adagrad":
        total = flat(state[0].branches[1].total) + g**2
        return identity - 0.2 * H / (np.sqrt(total) + 1e-8)[:, None]
    if name == "centred":
        second = 0.9 * flat(state[0].branches[1].average) + 0.1 * g**2
        mean = 0.9 * flat(state[0].branches[2].average) + 0.1 * g
        return identity - 0.1 * H / (np.sqrt(second - mean**2) + 0.1)[:, None]
    if name in {"optax.adam", "adam"}:
        nu = state[0].nu if name == "optax.adam" else state[0].branches[1][0].average
        nu = (0.999 * flat(nu) + 0.001 * g**2) / (1 - 0.999**count)
        step = 0.1 / (np.sqrt(nu) + 1e-8)[:, None] / (1 - 0.9**count)
        return np.block([[identity - step * 0.1 * H, -step * 0.9 * identity], [0.1 * H, 0.9 * identity + nothing]])
    raise ValueError(name)


@pytest.mark.parametrize(
    "name",
    ["adam"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("lookahead", "momentum", "adagrad", "centred", "optax.adam")
    ],
)
def test_frozen_map_is_the_linear_method_on_the_preconditioned_hessian(name):
    tx = OPTIMIZERS[name]
    with jax.enable_x64(True):
        params, state = trained(tx)
        expected = np.linalg.eigvals(frozen_by_hand(name, params, state))
        found = np.linalg.eigvals(dense(tx, params, state, "statistics"))
        whole = np.linalg.eigvals(dense(tx, params, state, "nothing")) if name == "adam" else None
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), rtol=1e-8, atol=1e-9)
    if whole is not None:  # the negative control
        assert abs(np.abs(whole).max() - np.abs(expected).max()) > 1e-2


def bowl(params, curvatures):
    return 0.5 * jnp.sum(curvatures * params**2)


def verdict(tx, curvatures, **how):
    params = jnp.ones(len(curvatures))
    return stability(tx, tx.init(params), bowl, params, jnp.asarray(curvatures), key=KEY, **how)


GD = optax.sgd(0.1)


@pytest.mark.parametrize(
    ("curvatures", "kind", "radius"),
    [
        ([1.0, 10.0, 19.0, 5.0], "stable", 0.9),
        ([1.0, 10.0, 21.0, 5.0], "oscillation", 1.1),
        ([1.0, 10.0, 15.0, -1.0], "escape", 1.1),
        ([1.0, 10.0, 22.0, -1.0], "oscillation", 1.2),
        ([1.0, 10.0, 22.0, -3.0], "escape", 1.3),
        ([1.0, 10.0, 15.0, 0.0], "marginal", 1.0),
    ],
)
def test_verdict_tells_oscillation_from_escape(curvatures, kind, radius):
    found = verdict(GD, curvatures)
    assert found.kind == kind
    assert found.radius == pytest.approx(radius, abs=1e-5)
    leading = int(np.argmax(np.abs(1 - 0.1 * np.asarray(curvatures))))
    assert abs(found.direction[leading]) == pytest.approx(1.0, abs=1e-4)


def test_complex_pair_beyond_the_circle_is_an_oscillation():
    def update(updates, state, params=None):  # the gradient of the step before: μ² − μ + ηλ = 0, modulus √(ηλ)
        return jax.tree.map(lambda g: -0.1 * g, state), updates

    tx = optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
    found = verdict(tx, [1.0, 4.0, 14.4])
    assert found.kind == "oscillation"
    assert found.radius == pytest.approx(1.2, abs=1e-4)
    assert abs(found.eigenvalues[0].imag) > 1.0


def test_sharp_directions_are_seen_beside_many_flat_ones():
    curvatures = np.zeros(3000)
    curvatures[:2] = 19.0, 12.0
    found = verdict(GD, curvatures)
    assert found.kind == "marginal"
    np.testing.assert_allclose(np.sort(found.eigenvalues.real)[:2], [-0.9, -0.2], atol=1e-4)
    assert found.errors.max() < 1e-4  # of the many at 1 too, of which none has a condition of its own


def test_identity_and_zero_are_found_exactly():
    found = verdict(GD, np.full(50, 5.0))
    np.testing.assert_allclose(found.eigenvalues, 0.5, atol=1e-5)
    assert found.converged
    found = verdict(GD, np.zeros(50))
    assert (found.kind, found.converged) == ("marginal", True)


@pytest.mark.slow
def test_batches_give_the_same_map():
    data = jnp.asarray(FEATURES, jnp.float32), jnp.asarray(TARGETS, jnp.float32)
    params = jax.tree.map(lambda x: x.astype(jnp.float32), start())
    tx = optax.sgd(1.0)
    whole, ragged = (stability(tx, tx.init(params), loss, params, data, key=KEY, batch_size=size) for size in (None, 5))
    assert ragged.radius == pytest.approx(whole.radius, rel=1e-5)


def convolved(params, images):
    out = lax.conv_general_dilated(images, params["kernel"], (1, 1), "SAME")
    return jnp.mean(jnp.tanh(out) ** 2)


@pytest.mark.slow
def test_loop_on_the_host_agrees_with_the_compiled_one():
    images = jax.random.normal(KEY, (4, 1, 5, 5))
    params = {"kernel": jax.random.normal(jax.random.key(1), (2, 1, 3, 3))}
    tx = optax.sgd(1.0, 0.9)
    state = tx.init(params)
    step = linear_step(tx, state, convolved, params, images, "statistics", None)
    flat, restore = ravel_pytree(vectors.zeros_like(step.like))
    expected = jax.vmap(lambda v: ravel_pytree(step.linearize()(restore(v)))[0])(jnp.eye(flat.size)).T
    assert step.loop == ("host" if jax.default_backend() == "cpu" else "compiled")
    found = stability(tx, state, convolved, params, images, key=KEY)
    assert found.radius == pytest.approx(np.abs(np.linalg.eigvals(expected)).max(), rel=1e-4)


def test_chosen_leaves_are_frozen_and_named():
    tx = optax.chain(optax.trace(0.9), optax.sgd(0.1))
    found = verdict(tx, [1.0, 10.0, 15.0], freeze=lambda path: "trace" in path)
    assert found.frozen == ("[0].trace",)
    assert found.radius == pytest.approx(1.0)  # the step is constant then
    assert verdict(optax.adam(0.1), [1.0, 2.0]).frozen == ("[0].nu",)


def test_nothing_is_compiled_again_for_other_parameters(compilations):
    tx = optax.sgd(0.1)
    params = jnp.ones(4)
    data, others, key = jnp.arange(4.0), (2 * params, 3 * jnp.arange(4.0)), jax.random.key(1)
    stability(tx, tx.init(params), bowl, params, data, key=KEY)
    with compilations() as counter:
        stability(tx, tx.init(params), bowl, *others, key=key)
    assert not counter.names


def test_wrong_arguments_say_what_to_do():
    params = jnp.ones(3)
    data = jnp.ones(3)
    state = GD.init(params)
    with pytest.raises(ValueError, match="opt_state was not produced by this optimizer"):
        stability(GD, optax.adam(0.1).init(params), bowl, params, data, key=KEY)
    with pytest.raises(TypeError, match="Optax transformation"):
        stability(bowl, state, bowl, params, data, key=KEY)
    with pytest.raises(ValueError, match="NaN"):
        stability(GD, state, bowl, params.at[0].set(jnp.nan), data, key=KEY)
    with pytest.raises(TypeError, match="stability needs tol to be a real number"):
        inspect.unwrap(stability)(GD, state, bowl, params, data, key=KEY, tol="1e-3")  # past the tests' type checker
    with pytest.raises(ValueError, match="stability needs k to be an integer ≥ 2; received 1"):
        stability(GD, state, bowl, params, data, key=KEY, k=1)
    with pytest.raises(ValueError, match=r"stability needs tol to be a real number in \(0, 1\)"):
        stability(GD, state, bowl, params, data, key=KEY, tol=0.0)
    with pytest.raises(ValueError, match="stability needs basis_size to be an integer ≥ 14"):
        stability(GD, state, bowl, params, data, key=KEY, basis_size=3)


def test_infinite_curvature_is_reported_not_hidden():
    found = verdict(GD, [1.0, np.nan])
    assert found.kind == "unknown"
    assert not found.converged


PAIR = optax.LookaheadParams
MOMENTUM = optax.sgd(0.05, 0.9)
PERIODIC = {  # and its period
    "sgd": (optax.sgd(0.05), 1),
    "momentum": (MOMENTUM, 1),
    "multi_steps of 2": (optax.MultiSteps(optax.sgd(0.05), 2), 2),
    "multi_steps of 3": (optax.MultiSteps(MOMENTUM, 3), 3),
    "multi_steps of 6": (optax.MultiSteps(MOMENTUM, 6), 6),  # longer than four steps, after which roles are read
    "apply_every": (optax.chain(optax.apply_every(2), optax.sgd(0.05)), 2),
    "apply_every of momentum": (optax.chain(optax.sgd(0.05, 0.9), optax.apply_every(3)), 3),
    "two periods": (
        optax.chain(optax.apply_every(2), optax.MultiSteps(optax.sgd(0.05), 3).gradient_transformation()),
        6,
    ),
    "lookahead": (optax.lookahead(MOMENTUM, 3, 0.5), 3),
}
CHEAP = ("sgd", "multi_steps of 2")


def starts(name, size):
    return PAIR(jnp.full(size, 1.0), jnp.full(size, 0.5)) if name == "lookahead" else jnp.full(size, 1.0)


def simulated(tx, state, params, curvatures, num_steps=200):
    """Parameters and state along a run on a bowl, written as a user writes it."""

    @jax.jit
    def step(params, state):
        point = params.fast if isinstance(params, PAIR) else params
        updates, state = tx.update(curvatures * point, state, params)
        return optax.apply_updates(params, updates), state

    history = [(params, state)]
    for _ in range(num_steps):
        history.append(step(*history[-1]))
    return history


@pytest.mark.parametrize(
    "name",
    [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in PERIODIC],
)
def test_verdict_is_that_of_a_run_in_every_phase_of_a_period(name):
    tx, length = PERIODIC[name]
    threshold = stability_threshold(tx)
    with jax.enable_x64(True):
        for factor, kind in ((0.9, "stable"), (1.1, "oscillation"), (-0.1, "escape")):
            curvatures = factor * threshold * jnp.array([1.0, 0.1])
            params = starts(name, 2)
            run = simulated(tx, tx.init(params), params, curvatures, num_steps=max(200, 60 * length))
            sizes = [float(optax.tree.norm(params)) for params, _ in run]
            window = 30 * length  # in which what turns slowly comes round
            growth = (max(sizes[-window:]) / max(sizes[-2 * window : -window])) ** (1 / window)
            for params, state in run[:length]:
                found = stability(tx, state, bowl, params, curvatures, key=KEY, k=4)
                assert (found.kind, found.num_steps, found.converged) == (kind, length, True)
                assert found.error < 1e-5  # Optax accumulates in single precision
                assert (found.radius > 1) == (growth > 1)
                assert found.radius == pytest.approx(growth, abs=0.02)


@pytest.mark.slow
def test_period_of_a_network_is_the_derivative_of_its_steps():
    tx = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
    with jax.enable_x64(True):
        params, state = start(), tx.init(start())

        def period(flat, count):
            params, given = restore(flat)
            given = iter(given)
            state = structure.unflatten([next(given) if f else leaf for leaf, f in zip(leaves, floats, strict=True)])
            for _ in range(count):
                updates, state = tx.update(jax.grad(loss)(params, None), state, params)
                params = optax.apply_updates(params, updates)
            new = [leaf for leaf, f in zip(jax.tree.leaves(state), floats, strict=True) if f]
            return ravel_pytree((params, new))[0]

        for _ in range(3):  # an odd phase
            updates, state = tx.update(jax.grad(loss)(params, None), state, params)
            params = optax.apply_updates(params, updates)
        leaves, structure = jax.tree.flatten(state)
        floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
        flat, restore = ravel_pytree((params, [leaf for leaf, f in zip(leaves, floats, strict=True) if f]))
        expected = np.linalg.eigvals(np.asarray(jax.jacfwd(lambda z: period(z, 2))(flat)))
        found = stability(tx, state, loss, params, freeze="nothing", tol=2e-5, key=KEY)
    assert abs(found.eigenvalues[0] - expected[np.argmax(np.abs(expected))]) <= found.errors[0]
    assert abs(found.radius - np.sqrt(np.abs(expected).max())) <= found.error
    assert found.error < 1e-3


def test_more_steps_than_one_tell_oscillation_from_escape():
    for curvature, kind in ((25.0, "oscillation"), (-5.0, "escape"), (15.0, "stable")):
        one, two = (verdict(GD, [curvature, 1.0], num_steps=n) for n in (1, 2))
        assert one.kind == two.kind == kind  # though both eigenvalues of two steps are positive
        assert two.num_steps == 2
        assert two.radius == pytest.approx(one.radius, abs=1e-5)


def test_sharpness_aware_steps_are_composed_too():
    tx = optax.contrib.sam(optax.sgd(0.05), optax.chain(optax.contrib.normalize(), optax.sgd(0.1)))
    for curvature, kind in ((30.0, "stable"), (50.0, "oscillation")):
        found = verdict(tx, [curvature, 1.0])
        assert (found.kind, found.num_steps) == (kind, 2)


def test_a_rule_that_alternates_by_a_running_counter_is_told_by_num_steps():
    tx = optax.chain(optax.conditionally_transform(optax.scale(0.0), lambda step: step % 2 == 0), optax.sgd(0.1))
    assert verdict(tx, [25.0, 1.0], num_steps=2).radius == pytest.approx(np.sqrt(1.5), abs=1e-5)


def test_wrong_periods_say_what_to_do():
    params, data = jnp.ones(3), jnp.ones(3)
    tx = optax.MultiSteps(optax.sgd(0.1), 3)
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"num_steps must be a multiple of 3.*mini_step every 3 steps.*received 2"):
        stability(tx, state, bowl, params, data, num_steps=2)
    with pytest.raises(ValueError, match="num_steps to be an integer from 1 to 10000; received 0"):
        stability(tx, state, bowl, params, data, num_steps=0)
    long = optax.MultiSteps(optax.sgd(0.1), 100)
    with pytest.raises(ValueError, match=r"received one of 100.*Give num_steps=100"):
        stability(long, long.init(params), bowl, params, data)
    growing = optax.MultiSteps(optax.sgd(0.1), lambda step: 2 + step // 8)
    with pytest.raises(ValueError, match=r"no period can be detected.*Give num_steps=…"):
        stability(growing, growing.init(params), bowl, params, data)
    ahead = optax.lookahead(optax.sgd(0.1), 3, 0.5)
    with pytest.raises(ValueError, match=r"params must be optax.LookaheadParams"):
        stability(ahead, ahead.init(PAIR(params, params)), bowl, params, data)


@pytest.mark.parametrize(
    ("values", "errors", "kind"),
    [
        ([1.0, 0.5], [6.1, 0.0], "unknown"),
        ([0.9, 0.5], [0.01, 3.0], "unknown"),
        ([1.0, 0.5], [1e-3, 0.0], "marginal"),
        ([0.9, 0.5], [0.01, 0.01], "stable"),
        ([9.0, 0.5], [6.1, 0.0], "escape"),
        ([1.5, -1.4], [6.1, 0.01], "oscillation"),  # one of them is surely outside
    ],
)
def test_verdict_is_unknown_where_the_error_decides_nothing(values, errors, kind):
    assert _verdict(np.array(values, complex), np.array(errors)) == kind


def test_a_tolerance_below_rounding_is_refused_before_anything_is_spent():
    tx, params = optax.sgd(0.1), jnp.ones(3, jnp.float32)
    with pytest.raises(ValueError, match=r"tol must be at least 7.6e-06.*received 1e-12.*Ask for 3.1e-05.*float64"):
        stability(tx, tx.init(params), bowl, params, jnp.ones(3), tol=1e-12)
    assert stability(tx, tx.init(params), bowl, params, jnp.ones(3), tol=8e-6).converged
    with pytest.raises(ValueError, match=r"tol must be at least .* received 1e-12. Ask for .* double precision"):
        preconditioned_sharpness(tx, tx.init(params), bowl, params, jnp.ones(3), tol=1e-12)


def test_no_tolerance_is_advised_that_says_nothing():
    tx = optax.sgd(0.1)
    for dtype in (jnp.float16, jnp.bfloat16):
        params = jnp.ones(3, dtype)
        with pytest.raises(ValueError, match=r"received 0.001. Every tolerance .* float32 or float64") as caught:
            stability(tx, tx.init(params), bowl, params, jnp.ones(3, dtype))
        assert "Ask for" not in str(caught.value)


def test_the_krylov_basis_is_the_same_without_compilation():
    op = from_matrix(np.diag(np.array([3.0, 2.0, 1.0], np.float32)))
    basis = vectors.with_row(vectors.zeros_basis(op.like, 3), 0, jnp.full(3, 3**-0.5))
    arguments = op, basis, jnp.zeros((3, 2)), jnp.int32(0), jnp.int32(0)
    _, compiled = arnoldi_factorization(*arguments)
    with jax.disable_jit():
        _, plain = arnoldi_factorization(*arguments)
    np.testing.assert_allclose(plain, compiled, rtol=1e-5, atol=1e-6)
    assert compiled[0, 0] == pytest.approx(2.0, rel=1e-6)  # the mean of the diagonal


@pytest.mark.slow
def test_without_compilation_the_optimizer_is_not_run_thousands_of_times():
    calls, params, inner = [], jnp.ones(2), optax.scale_by_schedule(lambda count: -0.1)

    def update(updates, state, params=None):
        calls.append(None)
        return inner.update(updates, state, params)

    tx = optax.GradientTransformation(inner.init, update)  # its counter is followed for 2,048 steps, to see a period
    with jax.disable_jit():
        found = stability(tx, tx.init(params), lambda p, _: 1.5 * jnp.sum(p**2), params, key=jax.random.key(0))
        assert stability_threshold(tx) == pytest.approx(2 / 0.1, rel=1e-5)
    assert found.radius == pytest.approx(1 - 0.1 * 3, rel=1e-5)
    assert len(calls) < 300


def test_traced_arrays_are_refused_with_what_to_do():
    tx, params = optax.sgd(0.1), jnp.ones(3)
    for function in (stability, preconditioned_sharpness):
        with pytest.raises(TypeError, match=rf"{function.__name__} cannot run on traced arrays.*record_params_every"):
            jax.jit(lambda p, f=function: f(tx, tx.init(p), bowl, p, jnp.ones(3)).num_matvecs)(params)


@pytest.mark.parametrize(
    "name", ["momentum", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sgd", "adam"))]
)
def test_single_precision_lies_within_its_errors_of_double(name):
    tx = OPTIMIZERS[name]
    single = (jnp.asarray(FEATURES, jnp.float32), jnp.asarray(TARGETS, jnp.float32))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start())
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.grad(loss)(params, single), state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: 0.1 * u, updates))
    found = stability(tx, state, loss, params, single, key=KEY, tol=1e-4)
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(
            lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )
        exact = stability(tx, wide(state), loss, wide(params), wide(single), key=KEY, tol=1e-10)
    assert found.converged
    assert found.error < 1e-3
    assert abs(found.radius - exact.radius) <= found.error + exact.error
    for value, error in zip(found.eigenvalues, found.errors, strict=True):
        if abs(value) > 0.1:  # those that matter, and are in both lists
            assert np.abs(exact.eigenvalues - value).min() <= error + exact.errors.max()


@pytest.mark.parametrize("name", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_preconditioned_sharpness_in_single_precision_encloses_that_in_double(name):
    tx = OPTIMIZERS[name]
    single = (jnp.asarray(FEATURES, jnp.float32), jnp.asarray(TARGETS, jnp.float32))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start())
    found = preconditioned_sharpness(tx, tx.init(params), loss, params, single, key=KEY, tol=1e-3)
    own = preconditioner(tx, tx.init(params), loss, params, single).diagonal
    with jax.enable_x64(True):
        params, data, own = jax.tree.map(lambda x: x.astype(jnp.float64), (params, single, own))
        read = preconditioner(tx, tx.init(params), loss, params, data)
        op = hessian(loss, params, data)
        same, wide = (
            float(sharpness(op.precondition(diagonal), key=KEY, tol=1e-9).upper) for diagonal in (own, read.diagonal)
        )
        changes = [np.asarray(a / b) for a, b in zip(jax.tree.leaves(read.diagonal), jax.tree.leaves(own), strict=True)]
    assert found.bracket.converged
    assert found.lower <= same <= found.upper
    assert found.upper - found.lower <= 2e-3 * found.upper
    assert found.threshold == pytest.approx(read.threshold, rel=1e-6)
    # Ostrowski: the eigenvalues follow a change of P within its own relative bounds.
    least, most = min(change.min() for change in changes), max(change.max() for change in changes)
    assert found.lower / most <= wide <= found.upper / least
    assert abs(least - 1) + abs(most - 1) < 1e-3
