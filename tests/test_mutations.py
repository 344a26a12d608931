"""Mutation tests: every small error must be noticed.

Each module of atoms is copied with one change at a time (`tests.oracles.mutations`), run for some steps and compared
with its reference. A mutant that nobody notices fails the test, unless it is listed below with the reason why it
computes the same. Outside of the atoms, mistakes that a maintainer might make (`tests.oracles.edits`) are put into
copies of the package, and the default tests must fail.
"""

import importlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import transforms
from tests.oracles import edits, gradients
from tests.oracles.mutations import ROOT, mutants, survivors, unchanged, unnoticed
from tests.oracles.references import adafactor, adagrad_family, adam_family, atoms, descent, resilient
from tests.oracles.references.reference import run

STEPS = 10
GRADS = np.concatenate([gradients.stream(seed=5)[:STEPS, [0, 2, 5]], np.zeros((STEPS, 1))], axis=1)
GRADS[7] *= 1e3
GRADS[9] = -0.6 * GRADS[7]
START = np.array([1.5, -0.7, 0.4, 2.0])
RATES = (0.1, 0.03, 0.2)
GAMMAS = (0.9, 0.6, 0.8)


def _rate(count):
    return RATES[int(count) % 3]


def _gamma(count):
    return GAMMAS[int(count) % 3]


def _run(tx, grads=GRADS, params=START, *, held=False):
    """Run eagerly; return outputs, parameters and the list of states."""
    grads, params = jax.tree.map(jnp.asarray, (grads, params))
    state = tx.init(params)
    outputs, trajectory, states = [], [], []
    for t in range(len(jax.tree.leaves(grads)[0])):
        updates, state = tx.update(jax.tree.map(lambda g, t=t: g[t], grads), state, params)
        if not held:
            params = jax.tree.map(lambda p, u: p + u, params, updates)
        outputs.append(updates)
        trajectory.append(params)
        states.append(state)
    stack = lambda trees: jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
    return SimpleNamespace(outputs=stack(outputs), params=stack(trajectory), states=states)


def _same(actual, desired, rtol=1e-11):
    np.testing.assert_allclose(np.asarray(actual), desired, rtol=rtol, atol=1e-13)


def _same_tree(actual, desired):
    jax.tree.map(_same, actual, desired)


# One check for each public function of each module of atoms. `new` holds the mutant's names.


def check_ema(new):
    for decay in (0.9, 0.3):
        _same(_run(new["ema"](decay, of=jnp.square)).outputs, atoms.ema(GRADS**2, decay))
    out = _run(new["ema"](jnp.asarray(0.9)))
    _same(out.outputs, atoms.ema(GRADS, 0.9))
    _same(out.states[-1].average, atoms.ema(GRADS, 0.9)[-1])
    started = _run(new["ema"](0.9, initial=2.0)).outputs
    _same(started, atoms.ema(GRADS, 0.9) + 2.0 * 0.9 ** np.arange(1, STEPS + 1)[:, None])
    # A tiny decay under a huge average: the form of the recursion that keeps the small term.
    huge = np.array([[1e20], [1.0], [1.0], [1.0]])
    _same(_run(new["ema"](1e-10), huge, np.zeros(1)).outputs, atoms.ema(huge, 1e-10), rtol=1e-9)


def check_total(new):
    _same(_run(new["total"](initial=0.3)).outputs, atoms.total(GRADS**2, 0.3))


def check_running_max(new):
    _same(_run(new["running_max"](of=jnp.abs, initial=0.3)).outputs, atoms.running_max(np.abs(GRADS), 0.3))
    expected = run(adam_family.adamax(0.1, b2=0.9), GRADS, START)["u"]
    _same(_run(new["running_max"](0.9, of=jnp.abs)).outputs, expected)


def check_gradient_difference(new):
    _same(_run(new["gradient_difference"]()).outputs, np.diff(GRADS, axis=0, prepend=GRADS[:1]))


def check_bias_correction(new):
    weights = atoms.bias_corrections(0.9, STEPS + 2)[:, None]
    for power in (1.0, -0.5):
        out = _run(new["bias_correction"](0.9, power=power))
        _same(out.outputs, GRADS / weights[:STEPS] ** power)
        assert int(out.states[-1].count) == STEPS
    _same(_run(new["bias_correction"](0.9, ahead=2)).outputs, GRADS / weights[2:])


def check_heavy_ball(new):
    expected = run(descent.momentum_trace(1.0, _gamma), GRADS, START)
    out = _run(new["heavy_ball"](_gamma))
    _same(out.outputs, expected["trace"])
    assert int(out.states[-1].count) == STEPS


def check_nesterov(new):
    tx = transforms.chain(transforms.scale_by_learning_rate(_rate), new["nesterov"](_gamma))
    out = _run(tx)
    _same(out.params, run(descent.nesterov_bengio(_rate, _gamma), GRADS, START)["params"])
    assert float(out.states[-1][1].next_decay) == _gamma(STEPS)
    assert float(tx.init(START)[1].next_decay) == _gamma(0)


def _gradient(point):
    return np.array([1.0, 0.05, 3.0, 0.0]) * point + 0.3 * np.sin(3.0 * np.asarray(point))


def check_nesterov_lookahead(new):
    tx = new["nesterov_lookahead"](_rate, _gamma)
    true = descent.nesterov_lookahead(_rate, _gamma)
    params, state = START, tx.init(START)
    expected, reference = START, true.init(START)
    for _ in range(STEPS):
        updates, state = tx.update(_gradient(transforms.gradient_point(params, state)), state)
        params = params + updates
        expected, reference = true.step(_gradient, reference, expected)
        _same(params, expected)
        _same(state.velocity, reference["velocity"])
    assert int(state.count) == STEPS


def check_nesterov_iterates(new):
    shifted = transforms.chain(transforms.scale_by_learning_rate(_rate), new["nesterov"](_gamma))
    true = descent.nesterov_lookahead(_rate, _gamma)
    params, state = START, shifted.init(START)
    expected, reference = START, true.init(START)
    for _ in range(STEPS):
        updates, state = shifted.update(_gradient(params), state)
        params = params + updates
        expected, reference = true.step(_gradient, reference, expected)
        _same(transforms.evaluation_params(params, state), expected)
    both = np.stack([GRADS[0], 2.0 * GRADS[0]])
    _, lanes = jax.vmap(new["nesterov"](0.9).update)(both, jax.vmap(new["nesterov"](0.9).init)(both))
    _same(transforms.evaluation_params(jnp.zeros((2, 4)), lanes), -0.9 * both)  # a batched state, read outside the vmap
    before = transforms.chain(new["nesterov"](0.9), transforms.scale_by_learning_rate(0.1))
    updates, state = before.update(GRADS[0], before.init(START))
    _same(transforms.evaluation_params(START + updates, state, learning_rate=0.1), START - 0.1 * GRADS[0])


def check_gradient_point(new):
    direction, amount = np.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.5, -2.0])  # two lanes, each with its own
    _same(new["shifted"](np.ones((2, 2)), direction, amount), [[1.5, 2.0], [-5.0, -7.0]])
    _, state = transforms.nesterov_lookahead(0.1, 0.9).update(
        START, transforms.nesterov_lookahead(0.1, 0.9).init(START)
    )
    _same(new["gradient_point"](START, (state,)), 0.91 * START)


def check_evaluation_params(new):
    optimizer = optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.7)
    params, average, steps = jnp.asarray(START), START, np.asarray(START)
    state = optimizer.init(params)
    for t, gradient in enumerate(GRADS, start=1):  # equal rates: x is the plain mean of the points z of SGD
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + updates
        steps = steps - 0.1 * gradient
        average = average + (steps - average) / t
        _same(new["evaluation_params"](params, state), average)


def _over(combine, of):
    return transforms.merge(combine, transforms.identity(), transforms.total(of=of))


def check_divide_by_root(new):
    for eps, eps_root in ((0.1, 0.0), (0.0, 0.1), (0.1, 0.3), (0.0, 0.0)):
        out = _run(_over(new["divide_by_root"](eps=eps, eps_root=eps_root), jnp.square)).outputs
        bottom = np.sqrt(atoms.total(GRADS**2) + eps_root) + eps
        expected = np.divide(GRADS, bottom, out=np.zeros_like(GRADS), where=bottom > 0.0)
        _same(out, expected)
        traced = jax.vmap(lambda e, r: new["divide_by_root"](eps=e, eps_root=r)(GRADS, atoms.total(GRADS**2)))
        _same(traced(jnp.array([eps]), jnp.array([eps_root]))[0], expected)
    zero, one = jnp.zeros((), jnp.float16), jnp.ones((), jnp.float16)
    for eps, expected in ((1e-8, 0.0), (6.103515625e-05, 16384.0)):  # nothing, and the least normal number, of float16
        _same(new["divide_by_root"](eps=eps)(one, zero), expected)
    wide = jax.vmap(lambda e: new["divide_by_root"](eps=e)(jnp.ones((), jnp.float32), zero))  # ε as float16 has it
    _same(wide(jnp.array([0.5, 1e-8])), [2.0, 0.0])
    assert jnp.isnan(new["divide_by_root"](eps=0.0)(one, jnp.asarray(jnp.nan, jnp.float16)))  # a diverged run shows
    slope = jax.grad(lambda v: new["divide_by_root"](eps=0.0)(jnp.zeros(()), v))
    _same(slope(jnp.zeros(())), 0.0)


def check_divide_by_deviation(new):
    for eps, eps_root in ((0.1, 0.0), (0.1, 0.3)):
        branches = transforms.identity(), transforms.ema(0.9, of=jnp.square), transforms.ema(0.9)
        out = _run(transforms.merge(new["divide_by_deviation"](eps=eps, eps_root=eps_root), *branches)).outputs
        variance = atoms.ema(GRADS**2, 0.9) - atoms.ema(GRADS, 0.9) ** 2
        _same(out, GRADS / (np.sqrt(variance + eps_root) + eps))
    below = new["divide_by_deviation"](eps=1.0)(jnp.asarray(1.0), jnp.asarray(1.0), jnp.asarray(1.1))
    _same(below, 1.0)


def check_divide_by(new):
    for eps in (0.0, 0.1):
        bottom = atoms.total(np.abs(GRADS)) + eps
        expected = np.divide(GRADS, bottom, out=np.zeros_like(GRADS), where=bottom > 0.0)
        _same(_run(_over(new["divide_by"](eps=eps), jnp.abs)).outputs, expected)


def check_root(new):
    values = np.abs(GRADS)
    _same(new["root"](eps=0.1, eps_root=0.3)(values), np.sqrt(values + 0.3) + 0.1)


def check_magnitude(new):
    _same(new["magnitude"](eps=0.1)(GRADS), np.abs(GRADS) + 0.1)


def check_weighted_sum(new):
    _same(new["weighted_sum"](0.3)(GRADS, GRADS**2), GRADS + 0.3 * GRADS**2)


def check_interpolate(new):
    _same(new["interpolate"](0.3)(GRADS, GRADS**2), 0.3 * GRADS + 0.7 * GRADS**2)


def check_elementwise(new):
    _same(_run(new["elementwise"](jnp.sign)).outputs, np.sign(GRADS))


def check_scale_by_learning_rate(new):
    rates = np.array([_rate(t) for t in range(STEPS)])[:, None]
    _same(_run(new["scale_by_learning_rate"](_rate)).outputs, -rates * GRADS)
    _same(_run(new["scale_by_learning_rate"](_rate, flip_sign=False)).outputs, rates * GRADS)


def check_negate(new):
    _same(_run(new["negate"]()).outputs, -GRADS)


def check_add_decayed_weights(new):
    _same(_run(new["add_decayed_weights"](0.3), held=True).outputs, GRADS + 0.3 * START)
    _same(_run(new["add_decayed_weights"](0.3, flip_sign=True), held=True).outputs, GRADS - 0.3 * START)
    _same(_run(new["add_decayed_weights"](0.3, mask=False), held=True).outputs, GRADS)
    scheduled = np.stack([GRADS[t] + _gamma(t) * START for t in range(STEPS)])
    _same(_run(new["add_decayed_weights"](_gamma), held=True).outputs, scheduled)


def check_decay_proximally(new):
    for decay, at in ((0.3, lambda t: 0.3), (_gamma, _gamma)):
        tx = transforms.chain(transforms.scale_by_learning_rate(_rate), new["decay_proximally"](decay, _rate))
        out, theta = _run(tx).params, START
        for t in range(STEPS):
            theta = (theta - _rate(t) * GRADS[t]) / (1.0 + at(t) * _rate(t))
            _same(out[t], theta)


def check_scale_by_update_rms(new):
    scale = transforms.scale_by_rms(0.8, eps=0.0, eps_root=0.1)
    tx = transforms.chain(scale, new["scale_by_update_rms"](0.8, eps=0.1), transforms.scale_by_learning_rate(1.0))
    _same(_run(tx).params, run(adagrad_family.adadelta(0.8, 0.1), GRADS, START)["params"])


def check_nadam_average(new):
    for scheduled in (True, False):
        average = new["nadam_average"](0.8, momentum_decay=0.3, average_with_schedule=scheduled)
        second = transforms.chain(transforms.ema(0.7, of=jnp.square), transforms.bias_correction(0.7))
        ratio = transforms.merge(transforms.divide_by_root(eps=0.1), average, second)
        out = _run(transforms.chain(ratio, transforms.scale_by_learning_rate(0.1)))
        reference = adam_family.nadam(0.1, 0.8, 0.7, 0.1, 0.3, average_with_mu=scheduled)
        expected = run(reference, GRADS, START)
        _same(out.params, expected["params"])
        _same(out.states[-1][0].branches[0].product, expected["mu_product"][-1])


def check_rectify(new):
    for threshold, inclusive in ((4.0, False), (5.0, True)):
        square = transforms.chain(
            transforms.ema(0.9, of=jnp.square),
            transforms.bias_correction(0.9),
            transforms.elementwise(transforms.root(eps=0.1)),
            new["rectify"](0.9, threshold=threshold, inclusive=inclusive),
        )
        first = transforms.chain(transforms.ema(0.8), transforms.bias_correction(0.8))
        ratio = transforms.merge(transforms.divide_by(), first, square)
        out = _run(transforms.chain(ratio, transforms.scale_by_learning_rate(0.1))).params
        _same(out, run(adam_family.radam(0.1, 0.8, 0.9, 0.1, threshold=threshold), GRADS, START)["params"])
    # b2 = .75 ends at ρ∞ = 7 exactly, where the two readings of the threshold part.
    state = new["rectify"](0.75).init(np.zeros(1))._replace(count=jnp.asarray(300, dtype=jnp.int32))
    for inclusive, expected in ((True, 2.0), (False, 1.0)):
        tx = new["rectify"](0.75, threshold=7.0, inclusive=inclusive)
        _same(tx.update(np.full(1, 2.0), state)[0], expected)


TREE = {"bias": GRADS[:, :3] * 1.0, "kernel": np.stack([GRADS[:, :3], GRADS[:, 1:], GRADS[:, :3] ** 2], axis=1)}
TREE["kernel"][:, :, 1] = 0.0
TREE_PARAMS = {
    "bias": np.array([0.5, -1.0, 0.0]),
    "kernel": np.array([[1.0, 2.0, 0.0], [0.3, -1.0, 0.0], [2.0, 0.1, 0.0]]),
}


def _clipped(rule):
    steps = [rule([TREE["bias"][t], TREE["kernel"][t]]) for t in range(STEPS)]
    return {"bias": np.stack([s[0] for s in steps]), "kernel": np.stack([s[1] for s in steps])}


def _clip_check(name, limits=(0.0, 0.8)):
    def check(new):
        for limit in limits:
            out = _run(new[name](limit), TREE, TREE_PARAMS, held=True).outputs
            _same_tree(out, _clipped(lambda tree, limit=limit: getattr(atoms, name)(tree, limit)))

    return check


def check_clip_by_unit_norm(new):
    params = [TREE_PARAMS["bias"], TREE_PARAMS["kernel"]]
    for clipping in (0.0, 0.2, 1.0):
        out = _run(new["clip_by_unit_norm"](clipping, eps=0.1), TREE, TREE_PARAMS, held=True).outputs
        _same_tree(out, _clipped(lambda tree, c=clipping: atoms.clip_adaptively(tree, params, c, 0.1)))


def check_clip_by_percentile(new):
    for percentile, window in ((30.0, 5), (77.0, 100), (100.0, 4)):
        out = _run(new["clip_by_percentile"](percentile, window=window))
        _same(out.outputs, atoms.clip_by_percentile(GRADS, percentile, window))
        assert int(out.states[-1].count) == STEPS
    # A norm that is not finite is not remembered as such.
    tx = new["clip_by_percentile"](100.0, window=3)
    _, state = tx.update(np.array([np.inf]), tx.init(np.zeros(1)))
    _same(tx.update(np.array([2.0]), state)[0], 2.0)
    with pytest.raises(ValueError, match="window"):
        new["clip_by_percentile"](window=0)
    new["clip_by_percentile"](window=1)


def check_shorten(new):
    x = np.array([3.0, -4.0])
    for size, limit, expected in (
        (1.0, 1.0, 0.2),
        (1.0, 5.5, 1.0),
        (0.0, 0.0, 1.0),
        (1.0, 0.0, 0.0),
        (1e200, 1e200, 0.2),
    ):
        length = new["norm"]([x * size])
        _same(new["shorten"](jnp.asarray(x * size), length, limit) / (size or 1.0), x * (size and expected))
    unknown = new["norm"]([np.array([np.nan, 1.0])])
    assert np.isnan(new["shorten"](jnp.asarray(x), unknown, 1.0)).all()


def check_norm(new):
    for size in (1e200, 1.0, 1e-200):  # whose squares neither overflow nor vanish
        _same(new["norm"]([np.array([3.0, 0.0]) * size, np.array(-4.0 * size)]).value / size, 5.0)
    _same(new["norm"]([np.array([3.0, 0.0]) * 1e200, np.array(-4e200)]).scale / 1e200, 4.0)
    _same(new["norm"]([np.zeros(2)]).value, 0.0)
    assert np.isinf(new["norm"]([np.array([np.inf, 1.0])]).value)
    huge = new["norm"]([np.array([1.5e308, 1.5e308])])  # whose norm is no number any more
    assert np.isinf(huge.value)
    _same(huge.relative * (huge.scale / 1.5e308), np.sqrt(2.0))


def check_unit_norm(new):
    kernel = np.arange(24.0).reshape(2, 3, 4)
    _same(new["unit_norm"](kernel).value, np.linalg.norm(kernel.reshape(6, 4), axis=0).reshape(1, 1, 4))
    _same(new["unit_norm"](np.array([3.0, 4.0])).value, 5.0)
    _same(new["unit_norm"](np.array([[3.0, 1.0], [4.0, 1.0]])).value, [[5.0, np.sqrt(2.0)]])
    assert np.shape(new["unit_norm"](np.asarray(3.0)).value) == ()


def check_project_to_max_norm(new):
    tx = transforms.chain(transforms.scale_by_learning_rate(0.1), new["project_to_max_norm"](1.2))
    out, kernel, bias = _run(tx, TREE, TREE_PARAMS).params, TREE_PARAMS["kernel"], TREE_PARAMS["bias"]
    for t in range(STEPS):
        kernel = atoms.project_to_max_norm([kernel - 0.1 * TREE["kernel"][t]], 1.2)[0]
        bias = bias - 0.1 * TREE["bias"][t]
        _same(out["kernel"][t], kernel, rtol=1e-9)
        _same(out["bias"][t], bias)
    end = START.reshape(1, 4) * np.array([[1.0], [2.0]])
    tx = new["project_to_max_norm"](1.2, axis=1)
    moved, _ = tx.update(jnp.zeros((2, 4)), tx.init(end), jnp.asarray(end))
    _same(end + moved, end * 1.2 / np.linalg.norm(end, axis=1, keepdims=True))


def check_clip_weights(new):
    out, expected = _run(transforms.chain(transforms.scale_by_learning_rate(0.1), new["clip_weights"](1.0))), START
    for t in range(STEPS):
        expected = atoms.clip_by_value([expected - 0.1 * GRADS[t]], 1.0)[0]
        _same(out.params[t], expected, rtol=1e-9)
    assert np.all(out.outputs[1:, 3] == 0.0)  # inside the box an update passes untouched


def check_add_gradient_noise(new):
    size = 4000
    tx = new["add_gradient_noise"](0.3, 2.0, jax.random.key(0))
    out = _run(tx, {"a": np.full((3, size), 5.0), "b": np.zeros((3, size))}, {"a": np.zeros(size), "b": np.zeros(size)})
    for t in range(3):
        deviation = np.sqrt(atoms.gradient_noise_variance(0.3, 2.0, t))
        for leaf, mean in (("a", 5.0), ("b", 0.0)):
            noise = out.outputs[leaf][t] - mean
            assert abs(noise.std() / deviation - 1.0) < 5.0 / np.sqrt(2 * size)
            assert abs(noise.mean()) < 5.0 * deviation / np.sqrt(size)
    assert int(out.states[-1].count) == 3
    _run(tx, {"only": np.zeros((1, 2))}, {"only": np.zeros(2)})
    assert tx.update({}, tx.init({}))[0] == {}


def check_dampen(new):
    tx = transforms.chain(new["dampen"](0.3), transforms.heavy_ball(0.9), transforms.scale_by_learning_rate(0.1))
    out = _run(tx)
    _same(out.params, run(descent.momentum_trace(0.1, 0.9, dampening=0.3), GRADS, START)["params"])
    assert int(out.states[-1][0].count) == STEPS


def check_average_iterates(new):
    for start in (0, 3):
        out = _run(transforms.chain(transforms.scale_by_learning_rate(0.1), new["average_iterates"](start)))
        for t, state in enumerate(out.states):
            _same(state[-1].average, out.params[min(t, start) : t + 1].mean(axis=0))
        assert int(out.states[-1][-1].count) == STEPS


def check_average_of_iterates(new):
    average, params = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2))
    state = new["AverageIteratesState"](jnp.asarray(average), jnp.asarray([0, 5]))  # two lanes, the first not begun
    _same(state.evaluation_params(jnp.asarray(params)), [[0.0, 0.0], [3.0, 4.0]])


def _check_schedule(name, law, *args, **kwargs):
    def check(new):
        for rate in (0.1, _rate):
            schedule = new[name](rate, *args, **kwargs)
            for count in (0, 1, 2, 5, 401):
                _same(schedule(count), law(rate if rate == 0.1 else _rate(count), count))

    return check


def check_regularised_decay(new):
    _check_schedule("regularised_decay", lambda rate, t: rate / (1 + 0.7 * rate * t) ** 0.6, 0.7, power=0.6)(new)
    lagged = new["regularised_decay"](_rate, 0.7, power=0.6, lagged=True)
    for count in (0, 1, 2, 5):
        rate = _rate(max(count - 1, 0))
        _same(lagged(count), rate / (1 + 0.7 * rate * count) ** 0.6)


def check_scale_by_rprop(new):
    tight = {"eta_minus": 0.3, "eta_plus": 1.5, "min_size": 0.04, "max_size": 0.2}
    grads = np.concatenate([GRADS, 0.3 * np.ones((4, 4)), GRADS[::-1]])
    for kwargs in ({}, {"on_reversal": "rest"}, {"on_reversal": "rest", "lagged": True}):
        tx = transforms.chain(new["scale_by_rprop"](0.1, **tight, **kwargs), transforms.negate())
        out = _run(tx, grads)
        reference = resilient.rprop(
            0.1, 0.3, 1.5, 0.04, 0.2, backtracking=not kwargs, lagged=kwargs.get("lagged", False)
        )
        expected = run(reference, grads, START)
        _same(out.params, expected["params"])
        _same(out.states[-1][0].size, expected["size"][-1])


MATRICES = {shape: np.resize(GRADS[:, :3], (STEPS, *shape)) * 1.0 for shape in ((2, 3), (4, 1, 3), (3,))}


def check_scale_by_factored_rms(new):
    for shape, axes in (((2, 3), (-2, -1)), ((4, 1, 3), (-2, -1)), ((4, 1, 3), (2, 0)), ((3,), None), ((2, 3), None)):
        for floor in (False, True):
            tx = new["scale_by_factored_rms"](
                0.7,
                eps=0.1,
                eps_is_floor=floor,
                factored=axes is not None,
                axes="largest" if axes == (2, 0) else "last",
                min_dim_size_to_factor=3 if axes == (2, 0) else 1,
            )
            rate = transforms.scale_by_learning_rate(0.1)
            start = np.resize(START, shape)
            out = _run(transforms.chain(tx, transforms.scale_by_param_rms(1e-3), rate), MATRICES[shape], start)
            reference = adafactor.adafactor(0.1, 0.7, 0.1, 1e-3, np.inf, as_torch=floor, relative=False, axes=axes)
            _same(out.params, run(reference, MATRICES[shape], start)["params"])
    whole = new["scale_by_factored_rms"](min_dim_size_to_factor=3)
    assert whole.init(np.zeros((2, 3))).second.shape == (2, 3)
    huge = np.array([[1e200, -1e200], [1e200, 1e-200]])  # whose squares neither exist nor are told from zero
    for kwargs in ({}, {"eps_is_floor": True}, {"factored": False}):
        tx = new["scale_by_factored_rms"](**kwargs)
        out = tx.update(huge, tx.init(huge))[0]
        assert np.isfinite(out).all()
        assert (np.sign(out)[0] == [1, -1]).all()
    still = new["scale_by_factored_rms"](eps=0.0)
    assert not still.update(np.zeros((2, 3)), still.init(np.zeros((2, 3))))[0].any()


def check_clip_by_leaf_rms(new):
    for limit in (0.0, 0.5, np.inf):
        out = _run(new["clip_by_leaf_rms"](limit), TREE, TREE_PARAMS, held=True).outputs
        expected = {name: leaf.copy() for name, leaf in TREE.items()}
        for leaf in expected.values():
            for x in leaf:
                x *= min(1.0, limit / adafactor.rms(x)) if x.any() else 1.0
        _same_tree(out, expected)


def check_scale_by_param_rms(new):
    out = _run(new["scale_by_param_rms"](1.0), TREE, TREE_PARAMS, held=True).outputs
    _same_tree(out, {name: leaf * max(1.0, adafactor.rms(TREE_PARAMS[name])) for name, leaf in TREE.items()})


def check_complement(new):
    assert new["complement"](0.99999) == 1.0 - 0.99999
    _same(new["complement"](jnp.asarray(0.75)), 0.25)


def check_one_minus_power(new):
    for decay in (0.0, 0.9, 0.99999):
        for t in (1, 2, 1000):
            expected = atoms.bias_corrections(decay, t)[-1]
            _same(new["one_minus_power"](decay, t), expected, rtol=1e-14)
            _same(new["one_minus_power"](jnp.asarray(decay), t), expected, rtol=1e-14)
            slope = jax.grad(new["one_minus_power"])(jnp.asarray(decay), t)
            _same(slope, -t * decay ** (t - 1), rtol=1e-10)
        _same(new["one_minus_power"](jnp.asarray(decay), 0), 0.0)


def check_at_step(new):
    assert new["at_step"](_rate, 1) == _rate(1)
    assert new["at_step"](0.5, 1) == 0.5


def check_cast(new):
    assert new["cast"](0.5, jnp.float32) == 0.5
    assert new["cast"](jnp.asarray(0.5, dtype=jnp.float64), jnp.float32).dtype == jnp.float32


def check_increment(new):
    assert int(new["increment"](jnp.asarray(3))) == 4


CLIPS = {name: _clip_check(name) for name in ("clip_by_value", "clip_by_global_norm", "clip_by_leaf_norm")}

SCHEDULES = {
    "inverse_time_decay": _check_schedule("inverse_time_decay", lambda rate, t: rate / (1 + 0.3 * t), 0.3),
    "relative_step": _check_schedule("relative_step", lambda rate, t: min(rate, 1 / np.sqrt(t + 1))),
    "schedule_product": _check_schedule("schedule_product", lambda rate, t: rate * _gamma(t), _gamma),
}


CHECKS = {
    "statistics": [check_ema, check_total, check_running_max],
    "gradient_difference": [check_gradient_difference],
    "bias_correction": [check_bias_correction],
    "momentum": [check_heavy_ball],
    "nesterov": [check_nesterov, check_nesterov_lookahead, check_nesterov_iterates],
    "gradient_point": [check_gradient_point, check_evaluation_params],
    "functions": [
        check_divide_by_root,
        check_divide_by_deviation,
        check_divide_by,
        check_root,
        check_magnitude,
        check_weighted_sum,
        check_interpolate,
    ],
    "elementwise": [check_elementwise],
    "steps": [check_scale_by_learning_rate, check_negate, check_add_decayed_weights, check_decay_proximally],
    "adaptive": [check_scale_by_update_rms, check_nadam_average, check_rectify],
    "clipping": [check_clip_by_unit_norm, check_clip_by_percentile, check_norm, check_shorten, check_unit_norm],
    "projections": [check_project_to_max_norm, check_clip_weights],
    "noise": [check_add_gradient_noise],
    "dampening": [check_dampen],
    "averaging": [check_average_iterates, check_average_of_iterates],
    "rprop": [check_scale_by_rprop],
    "factored": [check_scale_by_factored_rms, check_clip_by_leaf_rms, check_scale_by_param_rms],
    "schedules": [check_regularised_decay],
    "scalars": [check_complement, check_one_minus_power, check_at_step, check_cast, check_increment],
}

# Mutants that compute the same, and why.
EQUIVALENT = {
    # Only the 100th percentile reads it, and there both the maximum and NaN let the gradient pass.
    "clipping": ["clip_by_percentile: filled - 1 → filled + 1"],
    # What is not known to be protected goes the longer way, to the same values.
    "functions": [
        "_protects: value >= float(jnp.finfo(kept).tiny) → value > float(jnp.finfo(kept).tiny)",
        "_over_root: eps → 0.0",
        "_over_root: eps_root → 0.0",
    ],
    # The normal distribution is symmetric.
    "noise": [
        "add_gradient_noise: "
        "g + cast(deviation, g.dtype) * jax.random.normal(k, (g.size,), dtype=g.dtype).reshape(g.shape)"
        " → g - cast(deviation, g.dtype) * jax.random.normal(k, (g.size,), dtype=g.dtype).reshape(g.shape)"
    ],
    # A number's kind is checked, and another number is of the same kind.
    # The other branch forms the same logarithm on the device.
    "scalars": ["at_step: now → 1 - now", "one_minus_power: rate < 1.0 → rate > 1.0"],
}


def _checks(name):
    own = {check.__name__.removeprefix("check_"): check for check in CHECKS[name]}
    return own | {"clipping": CLIPS, "schedules": SCHEDULES}.get(name, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_every_mutant_of_an_atom_is_noticed(name):
    module = importlib.import_module(f"jaxopt_study.transforms._{name}")
    checks = _checks(name)
    with jax.enable_x64(True):
        for check in checks.values():
            check(unchanged(module))
        alive, _ = survivors(module, checks)
    assert alive == EQUIVALENT.get(name, [])


@pytest.mark.parametrize("name", CHECKS)
def test_every_public_atom_of_the_module_has_a_check(name):
    module = importlib.import_module(f"jaxopt_study.transforms._{name}")
    defined = {label for label in vars(module) if getattr(vars(module)[label], "__module__", "") == module.__name__}
    public = {label for label in defined & set(transforms.__all__) if label.islower()}
    assert public <= set(_checks(name)) | {"identity"}  # which has no arithmetic


def test_the_errors_the_study_warns_of_are_among_the_mutants():
    """An ε on the other side of the root, a count off by one, β for 1 − β, and the wrong operators."""
    labels = []
    for name in CHECKS:
        labels += [mutant.label for mutant in mutants(importlib.import_module(f"jaxopt_study.transforms._{name}"))]
    assert "_over_root: jnp.sqrt(inside) + cast(eps, dtype) → jnp.sqrt(inside + cast(eps, dtype))" in labels
    assert "root: jnp.sqrt(v + cast(eps_root, v.dtype)) → jnp.sqrt(v) + cast(eps_root, v.dtype)" in labels
    assert "bias_correction: increment(state.count) → state.count" in labels
    assert "ema: complement(decay) → decay" in labels
    assert len(labels) > 200


def test_every_edit_fits_the_source_as_it_is_and_names_a_test_that_exists():
    for edit in edits.EDITS:
        assert (ROOT / "jaxopt_study" / edit.module).read_text().count(edit.original) == 1, edit.label
        assert edit.changed not in (edit.original, "")
        for test in edit.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
    assert len({edit.label for edit in edits.EDITS}) == len(edits.EDITS)
    counts = [len(found) for found in (edits.CURVATURE, edits.DYNAMICS, edits.SWEEPS, edits.TRAINING)]
    assert all(count >= least for count, least in zip(counts, (20, 12, 15, 13), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("package", ["CURVATURE", "DYNAMICS", "SWEEPS", "TRAINING"])
def test_every_edit_of_a_package_is_noticed_by_its_tests(package):
    assert unnoticed(getattr(edits, package)) == []
