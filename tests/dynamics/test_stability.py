"""The spectral radius of the training step, against dense Jacobians and hand-made block matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxopt_study import optimizers, transforms
from jaxopt_study.curvature import vectors
from jaxopt_study.dynamics import stability
from jaxopt_study.dynamics.linearised import linear_step
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
    f = lambda z: loss(restore(z), None)  # noqa: E731
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
    with pytest.raises(ValueError, match="state does not belong"):
        stability(GD, optax.adam(0.1).init(params), bowl, params, data, key=KEY)
    with pytest.raises(TypeError, match="Optax transformation"):
        stability(bowl, state, bowl, params, data, key=KEY)
    with pytest.raises(ValueError, match="NaN"):
        stability(GD, state, bowl, params.at[0].set(jnp.nan), data, key=KEY)
    with pytest.raises(ValueError, match="k must be at least 2"):
        stability(GD, state, bowl, params, data, key=KEY, k=1)
    with pytest.raises(ValueError, match="tol must lie"):
        stability(GD, state, bowl, params, data, key=KEY, tol=0.0)
    with pytest.raises(ValueError, match="basis_size must be"):
        stability(GD, state, bowl, params, data, key=KEY, basis_size=3)


def test_infinite_curvature_is_reported_not_hidden():
    found = verdict(GD, [1.0, np.nan])
    assert found.kind == "unknown"
    assert not found.converged
