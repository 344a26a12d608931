"""The ends of the accumulators' range: never NaN from finite gradients, and right wherever the square is a number.

The oracle is the same chain in double precision, where squares of 1e±30 are ordinary numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import (
    bias_correction,
    chain,
    clip_by_global_norm,
    clip_by_leaf_norm,
    clip_by_percentile,
    clip_by_unit_norm,
    divide_by_deviation,
    ema,
    heavy_ball,
    identity,
    merge,
    nesterov,
    project_to_max_norm,
    read_taps,
    running_max,
    scale_by_update_rms,
    tap,
    total,
)
from tests.transforms.cases import CASES, OPTIMIZERS, each, gradients, params, run, value_fn

SIZES = (1e20, 1e37, 1e-20, 1e-30)


def at_size(size, num_steps=4):
    """Gradients of one magnitude whose signs change, and a zero gradient at the end."""
    start = params(jnp.float32)
    signs = [jax.tree.map(jnp.sign, g) for g in gradients(start, num_steps)]
    grads = [jax.tree.map(lambda s: s * jnp.float32(size), g) for g in signs]
    return start, [*grads, jax.tree.map(jnp.zeros_like, start)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
def test_optimizers_stay_numbers_at_every_size_of_the_gradient(case, size):
    start, grads = at_size(size)
    state, update = case.tx.init(start), jax.jit(functools.partial(case.tx.update, value_fn=value_fn))
    for g in grads:
        updates, state = update(g, state, start)
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))
    assert not any(np.isnan(np.asarray(leaf, dtype=float)).any() for leaf in jax.tree.leaves(state))


TWICE = [
    chain(ema(0.999, of=jnp.square), bias_correction(0.999)),
    ema(0.0, of=jnp.square),
    ema(0.3, of=jnp.square),
    ema(0.9, of=lambda g: -jnp.square(g)),
    total(),
    chain(running_max(0.9, of=jnp.square), bias_correction(0.5)),
    scale_by_update_rms(),
    merge(divide_by_deviation(), identity(), ema(0.9, of=jnp.square), ema(0.9)),
    transforms.scale_by_radam(eps_corrected=False),
]


@pytest.mark.parametrize("traced", [False, True], ids=["numbers", "traced"])
@pytest.mark.parametrize("tx", TWICE, ids=lambda tx: repr(tx)[:40].replace("\n", ""))
def test_a_statistic_that_overflows_is_infinite_and_never_nan(tx, traced):
    def statistics(tx):
        state, outputs = tx.init(jnp.zeros(2)), []
        for g in ([1e20, 1.0], [1e20, 1.0], [-3e38, 1.0], [0.0, 0.0]):
            output, state = tx.update(jnp.array(g), state)
            outputs.append(output)
        return outputs, state

    outputs, state = jax.jit(statistics)(tx) if traced else statistics(tx)
    for leaf in jax.tree.leaves((outputs, state)):
        assert not np.isnan(np.asarray(leaf, dtype=float)).any()
    assert all(np.isfinite(output[1]) for output in outputs)  # the neighbour is not touched


@pytest.mark.parametrize("name", ["adam", "amsgrad", "nadam", "adamw", "adagrad", "rmsprop", "adadelta", "adan"])
def test_a_coordinate_whose_square_overflows_rests_and_the_others_move_as_without_it(name):
    build = optimizers.named()[name]
    tx = (
        build(0.1)
        if name in ("adagrad", "rmsprop")
        else build(**({} if name == "adadelta" else {"learning_rate": 0.1}))
    )
    start, update = jnp.zeros(2), jax.jit(tx.update)
    state, alone = tx.init(start), tx.init(start)
    for _ in range(3):
        updates, state = update(jnp.array([1e20, 2.0]), state, start)
        expected, alone = update(jnp.array([0.5, 2.0]), alone, start)
        assert updates[0] == 0.0
        np.testing.assert_allclose(updates[1], expected[1], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-17, 1e-10, 1e10, 1e18])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_single_precision_agrees_with_double_inside_the_stated_range(size, eps):
    signs = np.array([[1.0, -1.0], [1.0, 0.5], [-0.7, 1.0]])

    def steps(dtype):
        tx = optimizers.adam(0.1, eps=eps)
        grads = [jnp.asarray(g * size, dtype=dtype) for g in signs]
        return np.array(run(tx, jnp.zeros(2, dtype=dtype), grads)[0], dtype=float)

    single = steps(jnp.float32)
    with jax.enable_x64(True):
        double = steps(jnp.float64)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 3e38), (jnp.float16, 3e4), (jnp.float16, 6e4)])
def test_differences_of_finite_gradients_stay_finite(dtype, size):
    tx, start = optimizers.adan(), jnp.zeros(2, dtype)
    state = tx.init(start)
    for sign in (1.0, -1.0, 1.0, 0.0):
        updates, state = tx.update(jnp.asarray([sign * size, 0.0], dtype), state, start)
        np.testing.assert_array_equal(updates, 0.0)


@pytest.mark.parametrize(
    "make", [optimizers.adam, optimizers.adamw, optimizers.nadam, optimizers.rmsprop, optimizers.adagrad]
)
def test_an_infinite_gradient_shows_in_the_step(make):
    """A quotient of infinities is no step of 0: a run that ends there must be seen to end."""
    tx, start = make(0.1), jnp.ones(2)
    state = tx.init(start)
    for infinite in (False, True):
        updates, state = tx.update(jnp.asarray([jnp.inf if infinite else 1.0, 1.0]), state, start)
    assert np.isfinite(np.asarray(updates)).tolist() == [False, True]


def test_averages_of_changing_signs_do_not_overflow():
    state = ema(0.9).init(jnp.zeros(1))
    for sign in (1.0, -1.0, 1.0):
        average, state = ema(0.9).update(jnp.array([sign * 3e38]), state)
    expected = 0.1 * (0.81 - 0.9 + 1.0) * 3.0  # in units of 1e38
    np.testing.assert_allclose(np.float64(average[0]) / 1e38, expected, rtol=1e-5)


# Half precision: the function acts in the wider dtype.

HALF = np.float16(300.0), np.float16(0.001)  # whose squares overflow and vanish in half precision


@pytest.mark.parametrize("g", HALF, ids=["large", "small"])
@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (lambda: ema(0.9, of=jnp.square, dtype=jnp.float32), lambda g: 0.1 * g**2),
        (lambda: total(dtype=jnp.float32), lambda g: g**2),
        (lambda: running_max(of=jnp.square, dtype=jnp.float32), lambda g: g**2),
    ],
    ids=["ema", "total", "running_max"],
)
def test_statistics_of_half_precision_gradients_in_single_precision(tx, expected, g):
    grads = jnp.asarray([g], dtype=jnp.float16)
    statistic, state = tx().update(grads, tx().init(grads))
    assert statistic.dtype == jnp.float32
    np.testing.assert_allclose(statistic, [expected(np.float64(g))], rtol=1e-6)
    np.testing.assert_allclose(jax.tree.leaves(state)[0], [expected(np.float64(g))], rtol=1e-6)


def test_a_narrow_accumulator_does_not_narrow_its_statistic():
    tx = total(of=lambda g: (g - 1000.0) * 1000.0, dtype=jnp.bfloat16)
    statistic, _ = tx.update(jnp.array([1001.0]), tx.init(jnp.zeros(1)))
    np.testing.assert_allclose(np.asarray(statistic, dtype=float), [1000.0], rtol=1e-2)  # 1001 is 1000 in bfloat16


@pytest.mark.parametrize("build", [heavy_ball, nesterov])
def test_a_memory_in_single_precision_under_half_precision_gradients(build):
    tx = build(0.9, accumulator_dtype=jnp.float32)
    assert tx == build(0.9, dtype=jnp.float32)
    grads = jnp.asarray([0.1], dtype=jnp.float16)
    state = tx.init(grads)
    assert state.trace.dtype == jnp.float32
    memory = 0.0
    for _ in range(50):
        output, state = tx.update(grads, state)
        memory = 0.9 * memory + np.float64(grads[0])
    assert output.dtype == state.trace.dtype == jnp.float32
    np.testing.assert_allclose(state.trace, [memory], rtol=1e-5)


def test_a_memory_narrower_than_the_gradient_keeps_its_dtype():
    tx = heavy_ball(0.9, dtype=jnp.bfloat16)
    output, state = tx.update(jnp.array([1.001]), tx.init(jnp.zeros(1)))
    assert (output.dtype, state.trace.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(output, [1.001])


# Norms.


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e20, 1e38, 3e38])
@pytest.mark.parametrize("build", [clip_by_global_norm, clip_by_leaf_norm])
def test_clipping_keeps_the_direction_and_gives_the_length(build, size):
    direction = np.array([0.6, -0.8, 0.0, 1.0])
    limit = 0.5 if size >= 1.0 else 0.5 * size
    clipped, _ = build(limit).update(jnp.asarray(direction * size, dtype=jnp.float32), optax.EmptyState())
    expected = direction / np.linalg.norm(direction) * limit
    np.testing.assert_allclose(np.float64(clipped), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1e20, 1e38, 3e38])
def test_every_norm_of_a_huge_gradient_is_scaled(size):
    grads, weights = jnp.full((4, 2), size, dtype=jnp.float32), jnp.ones((4, 2))
    for tx, expected in ((clip_by_unit_norm(0.1), 0.1), (project_to_max_norm(1.0), 0.5 - 1.0)):
        updates, _ = tx.update(grads, tx.init(weights), weights)
        np.testing.assert_allclose(updates, np.full((4, 2), expected), rtol=1e-5)
    tx = clip_by_percentile(0.0)
    _, state = tx.update(weights, tx.init(weights))
    clipped, state = tx.update(grads, state)  # to the shortest so far
    np.testing.assert_allclose(clipped, weights, rtol=1e-5)
    assert np.isfinite(state.norms).all()


def test_clipping_many_halves_whose_factor_vanishes_in_half_precision():
    grads = jnp.full(100_000, 6e4, dtype=jnp.float16)
    clipped, _ = clip_by_global_norm(10.0).update(grads, optax.EmptyState())
    np.testing.assert_allclose(np.float64(clipped), 10.0 / np.sqrt(1e5), rtol=2e-3)


@pytest.mark.parametrize("size", [1e-30, 1e20, 1e37])
def test_taps_measure_what_does_not_fit_when_squared(size):
    tx = chain(tap("clip", clip_by_global_norm(0.5 * size)))
    grads = {"a": jnp.asarray([3.0 * size], dtype=jnp.float32), "b": jnp.asarray([-4.0 * size], dtype=jnp.float32)}
    seen = read_taps(tx.update(grads, tx.init(grads))[1])["clip"]
    np.testing.assert_allclose(np.array([seen.norm_in, seen.norm_out], dtype=float), [5 * size, size / 2], rtol=1e-5)
    np.testing.assert_allclose([seen.cosine, seen.clipped_fraction], [1.0, 1.0], rtol=1e-6)


# Complex parameters: right where the transformation is linear, refused where it is not.

Z = jnp.array([1.0 + 2.0j, -0.5j])
LINEAR = (
    *(
        "add_decayed_weights",
        "bias_correction",
        "decay_proximally",
        "gradient_difference",
        "heavy_ball",
        "identity",
        "merge-4",
    ),
    *("momentum", "nadam_average", "negate", "nesterov", "nesterov_lookahead", "scale_by_learning_rate", "sgd"),
)


@each(c for c in CASES if not c.names_leaves and "from_optax" not in repr(c.tx) and c.name != "bare-inside")
def test_complex_parameters_are_two_real_ones_or_refused(case):
    try:
        complex_updates, _ = run(case.tx, Z, [Z * (1 - 2j), Z * 1j])
    except TypeError as error:
        assert "split_real_and_imaginary" in str(error)  # noqa: PT017 - either outcome is right, another error is not
        assert not case.name.removeprefix("optimizers.").startswith(LINEAR)
        return
    pair = lambda z: {"re": z.real, "im": z.imag}
    real_updates, _ = run(case.tx, pair(Z), [pair(Z * (1 - 2j)), pair(Z * 1j)])
    for z, parts in zip(complex_updates, real_updates, strict=True):
        np.testing.assert_allclose(z.real, parts["re"], rtol=1e-5)
        np.testing.assert_allclose(z.imag, parts["im"], rtol=1e-5)


def test_the_remedy_for_complex_parameters_is_right():
    tx = optax.contrib.split_real_and_imaginary(optimizers.adam(0.1))
    updates, _ = tx.update(Z, tx.init(Z), Z)
    # Adam's first step is the sign of each part.
    np.testing.assert_allclose(updates, -0.1 * (np.sign(Z.real) + 1j * np.sign(Z.imag)), atol=1e-5)


@pytest.mark.parametrize("g", [1e-3, 1e-6])
@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad"])
def test_a_wide_momentum_over_a_second_moment_that_vanished_is_no_step(name, g):
    """In half precision 1e-3 has no square and 1e-8 is 0: nothing is known of the size, so the step is 0, not m/ε."""
    tx = getattr(optimizers, name)(0.01, mu_dtype=jnp.float32)
    start, grads = jnp.ones(2, jnp.float16), jnp.full(2, g, jnp.float16)
    still, _ = run(tx, start, [jnp.zeros_like(grads)] * 6)
    moved, _ = run(tx, start, [grads] * 6)
    np.testing.assert_array_equal(moved[-1], still[-1])  # its weight decay alone


def test_wide_numerators_divide_by_the_epsilon_of_a_narrow_statistic():
    wide, narrow = jnp.ones(1, jnp.float32), jnp.zeros(1, jnp.float16)
    assert divide_by_deviation(eps=1e-8)(wide, narrow, jnp.zeros(1))[0] == 0
    assert transforms.divide_by(eps=1e-8)(wide, narrow)[0] == 0
    assert transforms.divide_by_root(eps=0.0, eps_root=1e-8)(wide, narrow)[0] == 0
    assert transforms.divide_by_root(eps=0.5)(wide, narrow)[0] == 2
