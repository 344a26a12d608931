"""Every transformation accepts what Optax accepts: other leaves, Optax's wrappers, and its functions of states."""

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from flax import nnx

from jaxopt_study import optimizers
from jaxopt_study.transforms import (
    add_decayed_weights,
    chain,
    clip_by_global_norm,
    clip_by_value,
    decay_proximally,
    evaluation_params,
    from_optax,
    gradient_point,
    merge,
    nesterov,
    read_taps,
    scale_by_learning_rate,
    tap,
)
from tests.transforms.cases import CASES, OPTIMIZERS, bits, each, gradients, params, run, value_fn

READERS = {
    "average": (evaluation_params, optimizers.asgd(0.1)),
    "trace": (evaluation_params, chain(scale_by_learning_rate(0.1), nesterov(0.9))),
    "look-ahead": (gradient_point, optimizers.nesterov_lookahead(0.1, 0.9)),
}


@pytest.mark.parametrize(("function", "tx"), READERS.values(), ids=READERS)
def test_states_and_parameters_of_nnx_are_read_like_plain_ones(function, tx):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, chain(tap("raw"), tx), wrt=nnx.Param)
    plain = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    state = optimizer.tx.init(plain)
    for _ in range(2):
        optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
        updates, state = optimizer.tx.update(jax.tree.map(jnp.ones_like, plain), state, plain)
        plain = optax.apply_updates(plain, updates)
    expected, params = function(plain, state), nnx.state(model, nnx.Param)
    assert not np.array_equal(expected["kernel"], plain["kernel"])
    for given in (params, nnx.to_pure_dict(params)):
        found = function(given, optimizer.opt_state)
        assert jax.tree.structure(found) == jax.tree.structure(given)
        chex.assert_trees_all_close(jax.tree.leaves(found), jax.tree.leaves(expected), rtol=1e-6)
    assert float(read_taps(optimizer.opt_state)["raw"].norm_in) == pytest.approx(3.0)
    with pytest.raises(TypeError, match="received its container, of type Optimizer"):
        function(params, optimizer)
    with pytest.raises(TypeError, match="received the mapping that holds it"):
        function(params, nnx.state(optimizer))


each_case = each(CASES)
each_optimizer = each(OPTIMIZERS)


@each_case
def test_state_of_shapes_is_the_state_of_arrays(case):
    start = params(jnp.float32)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), start)
    expected = case.tx.init(start)
    chex.assert_trees_all_equal(bits(case.tx.init(shapes)), bits(expected))
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(case.tx.init, shapes), expected)


@each(c for c in CASES if not c.names_leaves and "from_optax" not in repr(c.tx) and c.name != "bare-inside")
@pytest.mark.parametrize("number", [float, np.float32, np.float64, np.asarray], ids=lambda n: n.__name__)
def test_numbers_of_python_and_numpy_are_leaves(case, number):
    start, grads = {"a": 0.5, "b": None}, {"a": -0.25, "b": None}
    as_numbers = jax.tree.map(number, (start, grads))
    expected = case.tx.init(jax.tree.map(jnp.float32, start))
    state = case.tx.init(as_numbers[0])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, expected)
    updates, state = case.tx.update(as_numbers[1], state, as_numbers[0])
    wanted, _ = case.tx.update(jax.tree.map(jnp.float32, grads), expected, jax.tree.map(jnp.float32, start))
    np.testing.assert_allclose(updates["a"], wanted["a"], rtol=1e-6)
    assert [leaf.weak_type for leaf in jax.tree.leaves(state) if hasattr(leaf, "weak_type")].count(True) == 0


WRAPPERS = {
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "flatten": optax.flatten,
    "with_extra_args_support": optax.with_extra_args_support,
    "named_chain": lambda tx: optax.named_chain(("only", tx)),
    "conditionally": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@each_optimizer
def test_wrappers_of_optax_change_nothing(case, wrapper):
    if wrapper == "flatten" and ("adafactor" in case.name or "is_matrix" in repr(case.tx)):
        pytest.skip("its step depends on the shape of the leaf")
    start = params(jnp.float32)
    (grads,) = gradients(start, 1)
    wrapped = WRAPPERS[wrapper](case.tx)
    updates, _ = wrapped.update(grads, wrapped.init(start), start, value_fn=value_fn)
    alone, _ = case.tx.update(grads, case.tx.init(start), start, value_fn=value_fn)
    chex.assert_trees_all_close(updates, alone, rtol=1e-5)


@each_optimizer
def test_functions_of_optax_find_their_way_in_the_state(case):
    start = params(jnp.float32)
    state = case.tx.init(start)
    doubled = optax.tree_map_params(case.tx, lambda leaf: leaf + 1.0, state)
    changed = optax.tree_map_params(case.tx, lambda leaf: leaf + 1.0, state, transform_non_params=lambda leaf: leaf)
    chex.assert_trees_all_equal(doubled, changed)
    sizes = sum(leaf.shape == start["kernel"].shape for leaf in jax.tree.leaves(state))
    moved = [a.shape for a, b in zip(*map(jax.tree.leaves, (doubled, state)), strict=True) if not (a == b).all()]
    assert moved.count(start["kernel"].shape) == sizes
    if "adafactor" not in case.name:  # which keeps rows and columns of the kernel
        assert len(moved) == 2 * sizes  # kernels and scales, and no counters
    counts = optax.tree.get_all_with_path(state, "count")
    if counts:
        later = optax.tree.set(state, count=jnp.int32(7))
        assert all(int(value) == 7 for _, value in optax.tree.get_all_with_path(later, "count"))
    restored = flax.serialization.from_state_dict(state, flax.serialization.to_state_dict(state))
    chex.assert_trees_all_equal(restored, state)


def test_the_injected_learning_rate_is_found_and_set():
    tx = optax.inject_hyperparams(optimizers.adam)(learning_rate=0.1)
    state = tx.init(jnp.zeros(1))
    assert optax.tree.get(state, "learning_rate") == jnp.float32(0.1)
    updates, _ = tx.update(jnp.ones(1), optax.tree.set(state, learning_rate=0.5))
    np.testing.assert_allclose(updates, [-0.5], rtol=1e-5)


# Transformations that change shapes on purpose.


def private():
    return optax.contrib.differentially_private_aggregate(1.0, 0.0, 0)


@pytest.mark.parametrize(
    "build",
    [lambda tx: chain(private(), tx), lambda tx: chain(chain(private()), merge(jnp.add, tx, tx))],
    ids=["chain", "merge"],
)
def test_gradients_of_single_examples_become_one(build):
    examples = jnp.array([[3.0, 4.0], [0.0, 0.5]])  # clipped to length 1: (.6, .8), (0, .5)
    tx = build(optimizers.sgd(0.1))
    updates, _ = tx.update(examples, tx.init(jnp.zeros(2)), jnp.zeros(2))
    times = 2.0 if "merge" in repr(tx) else 1.0
    np.testing.assert_allclose(updates, -0.1 * times * np.array([0.3, 0.65]), rtol=1e-6)


def test_every_optimizer_takes_their_sum():
    start = params(jnp.float32)
    examples = jax.tree.map(lambda p: jnp.stack([p, -0.5 * p]), start)
    for case in OPTIMIZERS:
        tx = chain(private(), case.tx)
        (updates, _) = tx.update(examples, tx.init(start), start, value_fn=value_fn)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, start)


def test_a_tap_around_them_has_norms_and_no_angle():
    examples = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    tx = chain(tap("private", private()), clip_by_global_norm(1.0))
    seen = read_taps(tx.update(examples, tx.init(jnp.zeros(2)))[1])["private"]
    np.testing.assert_allclose(list(seen), [5.0, 0.5, 0.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        chain(optax.add_decayed_weights(0.1), optimizers.sgd(0.1)),
        chain(from_optax(optax.add_decayed_weights)(0.1)),
        chain(from_optax(optax.scale_by_trust_ratio)(), add_decayed_weights(0.1)),
        decay_proximally(0.1, 0.1),
    ],
    ids=["bare", "wrapped", "atom behind", "atom"],
)
def test_parameters_that_only_broadcast_are_refused(tx):
    with pytest.raises(ValueError, match=r"shape|do not match|does not belong to these parameters"):
        tx.update(jnp.ones((2, 1)), tx.init(jnp.ones((2, 2))), jnp.ones((2, 2)))


# Schedules.


@pytest.mark.parametrize("convention", ["before", "behind"])
def test_weight_decay_may_be_a_schedule(convention):
    decay, rate = lambda count: 0.1 / (1 + count), 0.5
    parts = [add_decayed_weights(decay), scale_by_learning_rate(rate)]
    if convention == "behind":
        parts = [scale_by_learning_rate(rate), add_decayed_weights(decay, flip_sign=True)]
    outputs, _ = run(chain(*parts), jnp.array([2.0]), [jnp.array([1.0])] * 3)
    theta = 2.0
    for t, output in enumerate(outputs):
        factor = rate if convention == "before" else 1.0
        step = -rate * 1.0 - factor * 0.1 / (1 + t) * theta
        np.testing.assert_allclose(output, [step], rtol=1e-6)
        theta += step


def test_proximal_decay_may_be_a_schedule():
    tx = decay_proximally(lambda count: 1.0 + count, 0.5)
    outputs, _ = run(tx, jnp.array([3.0]), [jnp.zeros(1)] * 2)
    np.testing.assert_allclose(outputs, [[3.0 / 1.5 - 3.0], [2.0 / 2.0 - 2.0]], rtol=1e-6)


def test_a_schedule_returns_one_real_number():
    for wrong in (lambda count: 1j, lambda count: jnp.ones(2), lambda count: None, lambda count: True):
        tx = optimizers.sgd(wrong)
        with pytest.raises(
            TypeError, match="scale_by_learning_rate needs learning_rate to be one real number at every"
        ):
            tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


WARMUP = (0.0, 0.3, 3, 10, 0.05, 2.0)


def test_the_warmed_up_cosine_is_optaxs_when_its_peak_is_traced():
    build, count = from_optax(optax.warmup_cosine_decay_schedule), jnp.arange(14)
    ours = jax.jit(lambda init, peak, end: build(init, peak, 3, 10, end, 2.0)(count))
    for peak in (0.3, 0.0, 1e-6):
        expected = optax.warmup_cosine_decay_schedule(0.01, peak, 3, 10, 0.05, 2.0)(count)
        np.testing.assert_allclose(ours(0.01, peak, 0.05), expected, rtol=1e-5, atol=1e-9)
    rates = jnp.array([0.1, 0.3])
    tx = optimizers.sgd(build(0.1, 0.3, 3, 10))
    lanes = jax.vmap(lambda peak: run(tx.replace({"peak_value": peak}), jnp.zeros(1), [jnp.ones(1)] * 5)[0][-1])(rates)
    expected = [-optax.warmup_cosine_decay_schedule(0.1, float(rate), 3, 10)(4) for rate in rates]
    np.testing.assert_allclose(lanes[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda x: from_optax(optax.exponential_decay)(0.1, 10, x), "decay_rate"),
        (lambda x: from_optax(optax.contrib.reduce_on_plateau)(factor=x), "factor"),
        (lambda x: from_optax(optax.scale_by_sm3)(b2=x), "b2"),
    ],
    ids=["exponential_decay", "reduce_on_plateau", "sm3"],
)
def test_what_cannot_be_traced_says_which_and_what_to_do(build, name):
    def use(x):
        tx = build(x)
        if not isinstance(tx, optax.GradientTransformation):
            tx = chain(optimizers.sgd(tx))
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2), value=1.0)[0]

    with pytest.raises(TypeError, match=rf"needs the value of {name} in Python.*Pass it as a plain number"):
        jax.eval_shape(use, jnp.float32(0.5))


def test_clipping_passes_through_structures_of_optax():
    masked = optax.masked(clip_by_value(1.0), {"a": True, "b": False})
    grads = {"a": jnp.array([2.0]), "b": jnp.array([2.0])}
    updates, _ = masked.update(grads, masked.init(grads))
    np.testing.assert_array_equal([updates["a"][0], updates["b"][0]], [1.0, 2.0])


@pytest.mark.parametrize("number", [3, np.arange(3), jnp.arange(3)], ids=["Python", "NumPy", "JAX"])
@pytest.mark.parametrize(
    ("tx", "reference"),
    [
        (optimizers.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
        (optimizers.nesterov(0.1, convention="optax"), optax.sgd(0.1, momentum=0.9, nesterov=True)),
        (optimizers.adam(0.1, convention="optax"), optax.adam(0.1)),
        (from_optax(optax.adam)(0.1), optax.adam(0.1)),
        (chain(optax.trace(0.9), scale_by_learning_rate(0.1)), optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["momentum", "nesterov", "adam", "lift", "chain"],
)
def test_integers_step_as_the_same_numbers_in_floating_point_do_in_optax(tx, reference, number):
    real = jnp.asarray(number, float)
    state, expected = tx.init(number), reference.init(real)
    for _ in range(4):  # by the second step a memory in integers would have lost what it keeps of the first
        update, state = tx.update(number, state, number)
        step, expected = reference.update(real, expected, real)
        np.testing.assert_allclose(update, step, rtol=1e-4)  # Optax rounds its bias correction
    jax.tree.map(lambda a, b: chex.assert_trees_all_equal_dtypes(a, b), state, tx.init(real))


def test_shapes_of_integers_give_the_state_of_real_numbers():
    tx = optimizers.adam(0.1)
    shape = jax.ShapeDtypeStruct((3,), jnp.int32)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shape), tx.init(jnp.zeros(3)))
