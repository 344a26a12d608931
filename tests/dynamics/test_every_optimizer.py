"""Every optimizer that Optax has: its threshold is that of a simulated run on a matrix, or it is refused.

The simulation is plain: the optimizer's own `update` on ½λ‖θ‖² in double precision, from parameters of 1e-12, so that
squares of the gradient are lost beside statistics of 1; statistics and clocks are set back before each step. Which
leaves are statistics is written down here by the names of their fields.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.dynamics import stability, stability_limit, stability_threshold

SHAPE = (2, 3)
SGD = optax.sgd(0.1)
# Names of fields that hold sizes of gradients.
USED_BEFORE = "e_x"  # AdaDelta's step divides by the size of the steps before it
LATE = {"count": jnp.int32(10**6), "t": jnp.int32(10**6), "is_initial_step": jnp.asarray(False)}
STATISTICS = {"nu", "nu_max", "sum_of_squares", "e_g", "e_x", "n", "exp_avg_sq", "v_row", "v_col"}

SIMULATED = {
    name: getattr(optax, name)(0.01)
    for name in (
        "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "nadam", "nadamw",
        "novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop", "sgd",
        "yogi",
    )
} | {
    "sgd, momentum": optax.sgd(0.01, 0.9),
    "sgd, nesterov": optax.sgd(0.01, 0.9, nesterov=True),
    "rmsprop, momentum": optax.rmsprop(0.01, momentum=0.9),
    "ema": optax.chain(optax.ema(0.9), SGD),
    "tight clip by norm, adam": optax.chain(optax.clip_by_global_norm(1e-3), optax.adam(0.01)),
    "tight clip by value, adam": optax.chain(optax.clip(1e-3), optax.adam(0.01)),
    "clip by value": optax.chain(optax.clip(1.0), SGD),
    "adaptive_grad_clip": optax.chain(optax.adaptive_grad_clip(0.01), SGD),
    "apply_if_finite": optax.apply_if_finite(optax.adam(0.01), 3),
    "reduce_on_plateau": optax.chain(SGD, optax.contrib.reduce_on_plateau()),
    "ademamix": optax.contrib.ademamix(0.01),
    "simplified_ademamix": optax.contrib.simplified_ademamix(0.01, alpha=2.0),
    "adopt": optax.contrib.adopt(0.01),
    "acprop": optax.contrib.acprop(0.01),
    "split_real_and_imaginary": optax.contrib.split_real_and_imaginary(optax.adam(0.01)),
}  # fmt: skip

REFUSED = {
    "adafactor": optax.adafactor(0.01),
    "fromage": optax.fromage(0.01),
    "lamb": optax.lamb(0.01),
    "lars": optax.lars(0.01),
    "lbfgs": optax.lbfgs(),
    "lbfgs, no search": optax.lbfgs(0.1, linesearch=None),
    "polyak_sgd": optax.polyak_sgd(),
    "rprop": optax.rprop(0.01),
    "muon": optax.contrib.muon(0.02),
    "galore": optax.contrib.galore(0.01, rank=2),
    "momo": optax.contrib.momo(0.01),
    "momo_adam": optax.contrib.momo_adam(0.01),
    "dadapt_adamw": optax.contrib.dadapt_adamw(0.01),
    "madgrad": optax.contrib.madgrad(0.01),
    "sophia": optax.contrib.sophia(0.01),
    "sam": optax.contrib.sam(SGD, optax.chain(optax.contrib.normalize(), SGD)),
    "normalize": optax.chain(optax.contrib.normalize(), SGD),
    "backtracking": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15)),
    "trust ratio": optax.chain(optax.scale_by_trust_ratio(), SGD),
    "centralize": optax.chain(optax.centralize(), SGD),
    "param_block_norm": optax.chain(optax.scale_by_param_block_norm(), SGD),
    "param_block_rms": optax.chain(optax.scale_by_param_block_rms(), SGD),
    "normalize_by_update_norm": optax.chain(optax.normalize_by_update_norm(), SGD),
    "no end": optax.sgd(lambda t: 0.1 / (t + 1) ** 0.5),
}
FACTORED = optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=2), SGD)
WITHOUT_END = {"lion": optax.lion(0.01), "sign_sgd": optax.sign_sgd(0.01), "signum": optax.signum(0.01)}
SOME = ("sgd, nesterov", "tight clip by norm, adam")
SOME_REFUSED = ("muon", "lars", "polyak_sgd")


def some(names, quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def field(path):
    return [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)][-1:]


def neutral(tx, params):
    """A late state whose statistics are 1 after a step at zero gradient, and which of its leaves a run carries on."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tx.init(params))
    names = [(field(path) or [""])[0] for path, _ in paths]
    late = [LATE.get(name, x) if x.ndim == 0 else x for name, (_, x) in zip(names, paths, strict=True)]
    sizes = [name in STATISTICS and jnp.issubdtype(x.dtype, jnp.floating) for name, x in zip(names, late, strict=True)]
    ones = [jnp.ones_like(x) if size else x for size, x in zip(sizes, late, strict=True)]
    zeros = jax.tree.map(jnp.zeros_like, params)
    after = jax.tree.leaves(tx.update(zeros, structure.unflatten(ones), zeros, value=1.0)[1])
    start = [
        x / y if size and name != USED_BEFORE else x for name, size, x, y in zip(names, sizes, ones, after, strict=True)
    ]
    carried = [
        not size and x.shape == SHAPE and jnp.issubdtype(x.dtype, jnp.floating)
        for size, x in zip(sizes, start, strict=True)
    ]
    return structure.unflatten(start), carried


def sizes_of_run(tx, params, state, carried, num_steps=6000):
    @jax.jit
    def run(curvature):
        def step(carry, _):
            theta, state = carry
            updates, new = tx.update(curvature * theta, state, theta, value=1.0)
            leaves = zip(carried, jax.tree.leaves(new), jax.tree.leaves(state), strict=True)
            kept = jax.tree.unflatten(jax.tree.structure(state), [a if keep else b for keep, a, b in leaves])
            kept = jax.tree.map(lambda a, b: a.astype(b.dtype), kept, state)
            return (theta + updates, kept), jnp.abs(theta).max()

        return jax.lax.scan(step, (params, state), None, num_steps)[1]

    return lambda curvature: np.asarray(run(curvature))


@pytest.mark.parametrize("name", some(SIMULATED, SOME))
def test_threshold_is_where_the_simulated_run_starts_to_grow(name):
    tx = optax.with_extra_args_support(SIMULATED[name])
    with jax.enable_x64(True):
        params = jnp.asarray(1e-12 * np.random.default_rng(0).normal(size=SHAPE))
        state, carried = neutral(tx, params)
        threshold = stability_threshold(tx, state, params)
        assert threshold == pytest.approx(stability_threshold(tx, None, params), rel=1e-4)
        run = sizes_of_run(tx, params, state, carried)
        below, above = run(0.97 * threshold), run(1.03 * threshold)
    assert below[-500:].max() < 0.5 * below[500:1000].max() or below[-500:].max() < 1e-20
    settled = above[-500:].max() > 1e4 * above[0]  # it has grown until the clip held it
    assert settled or not above[-500:].max() < 2 * above[500:1000].max()  # or it has overflowed


@pytest.mark.parametrize("name", some(REFUSED, SOME_REFUSED))
@pytest.mark.parametrize("function", [stability_threshold, stability_limit])
def test_what_is_no_recursion_of_single_numbers_is_refused(name, function):
    tx = REFUSED[name]
    for params in (None, jnp.ones(SHAPE)):
        with pytest.raises(ValueError, match=rf"^{function.__name__}: "):
            function(tx, None, params)


@pytest.mark.parametrize("name", some(WITHOUT_END, ("lion",)))
def test_signs_have_neither_threshold_nor_limit(name):
    assert stability_threshold(WITHOUT_END[name]) == np.inf
    assert stability_limit(WITHOUT_END[name]) == np.inf


def test_factored_statistics_at_1_change_no_threshold_and_need_the_matrix():
    with pytest.raises(ValueError, match=r"is not elementwise.*shape or norm of an array"):
        stability_threshold(FACTORED)
    assert stability_threshold(FACTORED, None, jnp.ones(SHAPE)) == pytest.approx(2 / 0.1, rel=1e-6)


def test_rows_and_columns_of_a_matrix_need_the_matrix():
    with pytest.raises(ValueError, match=r"^stability_threshold: .*raises IndexError.*Pass params="):
        stability_threshold(optax.sm3(0.1))
    assert stability_threshold(optax.sm3(0.1), None, jnp.ones(SHAPE)) == pytest.approx(3.8 / (0.1 * 0.1), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SIMULATED, "factored", "lamb", "lars", "fromage", "muon"])
def test_radius_on_a_matrix_is_that_of_the_dense_jacobian(name):
    tx = optax.with_extra_args_support((SIMULATED | REFUSED | {"factored": FACTORED})[name])
    curvatures = np.array([[9.0, 4.0, 1.0], [0.5, 2.0, 6.0]])
    loss = lambda p, _: 0.5 * jnp.sum(curvatures * p**2)
    with jax.enable_x64(True):
        params = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE))
        state = tx.init(params)
        for _ in range(3):
            updates, state = jax.jit(tx.update)(jax.grad(loss)(params, None), state, params, value=1.0)
            params = params + 0.1 * updates
        found = stability(tx, state, loss, params, freeze="nothing", tol=1e-7, k=4)
        leaves, structure = jax.tree.flatten(state)
        floats = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
        flat, restore = jax.flatten_util.ravel_pytree((params, [x for x, f in zip(leaves, floats, strict=True) if f]))

        def step(z):
            theta, given = restore(z)
            given = iter(given)
            state = structure.unflatten([next(given) if f else x for x, f in zip(leaves, floats, strict=True)])
            value, grads = jax.value_and_grad(loss)(theta, None)
            updates, new = tx.update(grads, state, theta, value=value)
            return jax.flatten_util.ravel_pytree(
                (theta + updates, [x for x, f in zip(jax.tree.leaves(new), floats, strict=True) if f])
            )[0]

        values = np.linalg.eigvals(np.asarray(jax.jacfwd(step)(flat)))
    assert np.abs(values - found.eigenvalues[0]).min() <= max(1e-6, 2 * found.errors[0])


def test_every_optimizer_that_optax_has_is_in_a_table():
    """Those that are called as `name(learning_rate)`, so that a new one of Optax is looked at."""
    found = {
        name
        for module in (optax, optax.contrib)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters
    }
    in_tables = {name.split(",")[0] for name in SIMULATED | REFUSED | WITHOUT_END}
    # By other tests, deprecated, or with statistics that are compared with nothing: distances gone and wealth.
    others = {
        "sm3", "optimistic_adam", "noisy_sgd", "schedule_free", "schedule_free_adamw", "schedule_free_sgd", "prodigy",
        "cocob", "mechanize", "dpsgd", "dog", "dowg",
    }  # fmt: skip
    assert {name for name in found if not name.startswith(("_", "scale_by"))} <= in_tables | others
