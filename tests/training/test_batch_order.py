import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxopt_study.problems import from_pytree
from jaxopt_study.training import (
    BatchOrder,
    Curriculum,
    LinearPace,
    batch_indices,
    batch_order,
    linear_curriculum,
    shuffle,
    train,
)
from jaxopt_study.training._batch_order import _epoch_and_offset
from jaxopt_study.training._shuffle import MAX_EXAMPLES, _permute_grid


@pytest.fixture(scope="module")
def whole_epoch():
    """All of one permutation; compiled once per N."""
    return jax.jit(lambda key, epoch, n: shuffle(jnp.arange(n), n, key=key, epoch=epoch), static_argnums=2)


def test_shuffle_is_a_bijection_for_every_small_number_of_examples():
    # One program for all N: the sides of the grid, static in `shuffle`, are traced here.
    sizes = np.arange(1, 201)
    a = np.array([math.isqrt(n - 1) + 1 for n in sizes])
    words = jax.random.bits(jax.random.key(3), (8,), jnp.uint32)
    position = jnp.arange(200)

    def permute(n, a, b):
        return _permute_grid(jnp.minimum(position, n - 1), jnp.uint32(5), words, n, a, b)

    orders = np.asarray(jax.jit(jax.vmap(permute))(sizes, a, -(-sizes // a)))
    for n, order in zip(sizes, orders, strict=True):
        np.testing.assert_array_equal(np.sort(order[:n]), np.arange(n), err_msg=f"N = {n}")
    np.testing.assert_array_equal(orders[22, :23], shuffle(jnp.arange(23), 23, key=jax.random.key(3), epoch=5))


@pytest.mark.parametrize("n", [60_000, 65_536, 65_537, 1_000_003])
def test_shuffle_is_a_bijection_for_large_numbers_of_examples(whole_epoch, n):
    order = np.asarray(whole_epoch(jax.random.key(0), 7, n))
    assert np.array_equal(np.sort(order), np.arange(n))
    # A random permutation's correlation with the identity has standard deviation 1/√(n − 1).
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 4 / np.sqrt(n)


def test_shuffle_covers_the_largest_permitted_number_of_examples_without_overflow():
    n = MAX_EXAMPLES
    positions = jnp.concatenate([jnp.arange(4096), n - 1 - jnp.arange(4096)])
    drawn = np.asarray(shuffle(positions, n, key=jax.random.key(1)))
    assert len(set(drawn.tolist())) == 8192
    assert drawn.min() >= 0
    assert drawn.max() < n
    assert stats.kstest(drawn / n, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 3, 5, 7, 12, 30])
def test_every_example_is_equally_likely_at_every_position(n):
    keys = jax.random.split(jax.random.key(n), 4000)
    orders = np.asarray(jax.jit(jax.vmap(lambda k: shuffle(jnp.arange(n), n, key=k)))(keys))
    counts = np.stack([np.bincount(orders[:, i], minlength=n) for i in range(n)])
    statistic = ((counts - 4000 / n) ** 2 / (4000 / n)).sum()
    # n² cells with rows and columns summing to 4000: (n − 1)² degrees of freedom, up to the factor n/(n − 1).
    assert stats.chi2.sf(statistic * (n - 1) / n, (n - 1) ** 2) > 1e-4


@pytest.mark.parametrize("n", [5, 6, 12])
def test_every_pair_of_examples_is_equally_likely_at_every_pair_of_neighbours(n):
    keys = jax.random.split(jax.random.key(n), 6000)
    orders = np.asarray(jax.jit(jax.vmap(lambda k: shuffle(jnp.arange(n), n, key=k)))(keys))
    for i in range(n - 1):
        pairs = np.bincount(orders[:, i] * n + orders[:, i + 1], minlength=n * n).reshape(n, n)
        counts = pairs[~np.eye(n, dtype=bool)]
        assert np.all(np.diag(pairs) == 0)
        assert stats.chisquare(counts).pvalue > 1e-5


def test_successive_epochs_are_independent():
    n, epochs = 10, 4000
    orders = np.asarray(
        jax.jit(jax.vmap(lambda e: shuffle(jnp.arange(n), n, key=jax.random.key(0), epoch=e)))(jnp.arange(epochs + 1))
    )
    for position in (0, 4, 9):
        first, second = orders[:-1, position], orders[1:, position]
        table = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
        assert stats.chi2_contingency(table).pvalue > 1e-4


def _first_epochs(order, batch_size, n, epochs, key=0):
    state = batch_order(order).init(jax.random.key(key), n)
    steps = -(-n * epochs // batch_size)
    draw = jax.jit(jax.vmap(lambda t: batch_indices(order, state, t, batch_size, n)))
    return np.asarray(draw(jnp.arange(steps))).reshape(-1)[: n * epochs].reshape(epochs, n)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 22, 23])
def test_every_epoch_holds_every_example_exactly_once_at_any_batch_size(batch_size):
    epochs = _first_epochs("reshuffle", batch_size, 23, 5)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(23), (5, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_the_order_of_the_examples_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(_first_epochs("reshuffle", 4, 23, 3), _first_epochs("reshuffle", 9, 23, 3))


def test_once_repeats_the_first_order():
    epochs = _first_epochs("shuffle_once", 4, 23, 4)
    np.testing.assert_array_equal(epochs, np.tile(epochs[0], (4, 1)))
    np.testing.assert_array_equal(np.sort(epochs[0]), np.arange(23))


def test_with_replacement_every_draw_is_uniform_and_independent():
    drawn = _first_epochs("with_replacement", 5, 20, 600)
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=20)).pvalue > 1e-4
    # The number of distinct examples in 20 draws: mean 20 (1 − .95²⁰) = 12.83, standard deviation 1.45.
    distinct = np.array([len(set(row)) for row in drawn.tolist()])
    assert abs(distinct.mean() - 20 * (1 - 0.95**20)) < 4 * 1.45 / np.sqrt(600)


def test_mini_batch_gradients_average_to_the_full_gradient_over_an_epoch():
    values = np.random.default_rng(0).normal(size=(24, 3))
    batches = _first_epochs("reshuffle", 4, 24, 2).reshape(-1, 4)
    means = values[batches].mean(axis=1)  # gradient of ½‖p − x‖² at 0, up to sign
    np.testing.assert_allclose(means[:6].mean(axis=0), values.mean(axis=0), rtol=1e-12)
    assert means[:6].std() > 0.1


@pytest.mark.parametrize(("step", "batch_size", "n"), [
    (0, 1, 1), (5, 7, 23), (2**31 - 1, 60_000, 60_001), (2**31 - 1, 2**28, 2**28), (2**31 - 1, 2**28 - 7, 2**28 - 3),
    (123_456_789, 99_991, 1_000_003),
])  # fmt: skip
def test_epoch_and_offset_are_exact_where_their_product_needs_64_bits(step, batch_size, n):
    epoch, offset = _epoch_and_offset(jnp.int32(step), batch_size, n)
    quotient, remainder = divmod(step * batch_size, n)
    assert (int(epoch), int(offset)) == (quotient % 2**32, remainder)


def test_a_curriculum_admits_the_easiest_examples_first():
    difficulty = np.random.default_rng(0).permutation(50).astype(np.float32)
    order = linear_curriculum(difficulty, start=0.1, num_steps=100)
    state = order.init(jax.random.key(0), 50)
    draw = jax.jit(jax.vmap(lambda t: batch_indices(order, state, t, 8, 50)))
    hardest = difficulty[np.asarray(draw(jnp.arange(200)))].max(axis=1)
    admitted = np.ceil(np.minimum(1.0, 0.1 + 0.9 * np.arange(200) / 100) * 50)
    assert np.all(hardest < admitted + 1e-6)
    assert hardest[100:].max() == 49
    assert set(difficulty[np.asarray(draw(jnp.arange(5))).ravel()]) > {0.0, 1.0, 2.0, 3.0, 4.0}


@pytest.mark.parametrize(("share", "admitted"), [(0.01, 1), (0.2, 1), (0.21, 2), (0.5, 3), (0.81, 5), (1.0, 5)])
def test_a_curriculum_rounds_the_number_of_examples_up(share, admitted):
    order = Curriculum(np.array([4.0, 0.0, 3.0, 1.0, 2.0]), lambda step: jnp.float32(share))
    drawn = batch_indices(order, order.init(jax.random.key(0), 5), 0, 200, 5)
    assert set(np.asarray(drawn).tolist()) == set([1, 3, 4, 2, 0][:admitted])  # from easy to hard


def test_a_constant_pace_of_one_is_sampling_with_replacement():
    order = Curriculum(np.arange(10.0), pace=lambda t: 1.0)
    state = order.init(jax.random.key(0), 10)
    drawn = jax.jit(jax.vmap(lambda t: batch_indices(order, state, t, 10, 10)))(jnp.arange(500))
    assert stats.chisquare(np.bincount(np.asarray(drawn).ravel(), minlength=10)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: shuffle(jnp.arange(3), 0, key=jax.random.key(0)), "1 to 2²⁸"),
        (lambda: LinearPace(0.0, 10), r"\(0, 1\]; received 0.0"),
        (lambda: LinearPace(0.5, 0), "num_steps to be an integer ≥ 1"),
    ],
)
def test_impossible_orders_are_refused(make, expected):
    with pytest.raises(ValueError, match=expected):
        make()


@dataclass(frozen=True)
class Backwards:
    """Somebody's own order: from the last example to the first, from an offset."""

    offset: int = 0

    def init(self, key, num_examples):
        return jnp.int32(num_examples - 1 - self.offset)

    def indices(self, state, step, batch_size, num_examples):
        return (state - step * batch_size - jnp.arange(batch_size)) % num_examples


@partial(jax.tree_util.register_dataclass, data_fields=["weights"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Weighted:
    """Somebody's own order with arrays: drawn in proportion to weights."""

    weights: Any
    repeats = True

    def init(self, key, num_examples):
        return key

    def indices(self, state, step, batch_size, num_examples):
        key = jax.random.fold_in(state, step)
        return jax.random.choice(key, num_examples, (batch_size,), p=self.weights / self.weights.sum())


def _seen(order, num_steps=3, batch_size=2, n=6):
    """The examples of each step, which the loss of this problem is the sum of."""
    data = 10.0 ** jnp.arange(n)
    problem = from_pytree(jnp.zeros(1), lambda p, batch: jnp.sum(batch) + 0 * p.sum(), data=data)
    run = train(problem, optax.sgd(0.0), num_steps=num_steps, batch_size=batch_size, order=order, key=jax.random.key(0))
    return np.asarray(run.losses)


def test_an_order_of_somebodys_own_is_followed():
    assert isinstance(Backwards(), BatchOrder)
    np.testing.assert_allclose(_seen(Backwards()), [110000, 1100, 11], rtol=1e-6)
    np.testing.assert_allclose(_seen(Backwards(2)), [1100, 11, 110000], rtol=1e-6)
    only_two = Weighted(jnp.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    assert set(_seen(only_two, 40).tolist()) == {20.0, 10010.0, 20000.0}


def test_arrays_of_an_order_are_arguments_of_the_program(compilations):
    _seen(Weighted(jnp.arange(6.0)))
    with compilations() as counted:
        _seen(Weighted(jnp.arange(6.0)[::-1]))
    assert "jit(run)" not in counted.names, counted.names


@dataclass(frozen=True)
class WrongAt(Backwards):
    """An order that leaves the data at one step."""

    step: int = 0

    def indices(self, state, step, batch_size, num_examples):
        return jnp.arange(batch_size) + num_examples * (step == self.step)


def test_what_leaves_the_data_is_an_error_or_a_diverged_run():
    with pytest.raises(ValueError, match="indices to return 2 numbers from 0 to 5; received"):
        _seen(WrongAt(step=6), 12)
    assert np.isnan(_seen(WrongAt(step=5), 12)[5:]).all()  # neither the first, the middle nor the last


@pytest.mark.parametrize("order", [Backwards, object(), "by size", None, 3])
def test_what_is_no_order_is_refused(order):
    with pytest.raises(ValueError, match="batch_order needs order to be one of 'reshuffle'"):
        batch_order(order)


class Unhashable:
    """An order that has neither a hash nor the structure of a pytree."""

    __hash__ = None
    init, indices = Backwards.init, Backwards.indices
    offset = 0


def test_an_order_that_cannot_be_told_from_another_is_refused():
    with pytest.raises(TypeError, match=r"must be hashable, or a registered pytree; received .* Make it a frozen"):
        _seen(Unhashable())
