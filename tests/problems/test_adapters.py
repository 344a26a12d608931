"""Adapters: a user's loss or model becomes the same problem that the user would have trained by hand."""

from dataclasses import dataclass, field
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxopt_study import problems

RNG = np.random.default_rng(0)
DATA = {"x": RNG.normal(size=(16, 3)).astype(np.float32), "y": RNG.normal(size=(16, 2)).astype(np.float32)}
KEY = jax.random.key(7)


def mse(outputs, batch):
    return jnp.mean((outputs - batch["y"]) ** 2)


def model_mse(model, batch):
    return mse(model(batch["x"]), batch)


class LinenNet(linen.Module):
    rate: float = 0.5

    @linen.compact
    def __call__(self, x, train):
        x = linen.Dense(8)(x)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = linen.Dropout(self.rate, deterministic=not train)(linen.relu(x))
        return linen.Dense(2)(x)


class LinenNoise(linen.Module):
    @linen.compact
    def __call__(self, x, deterministic):
        if not deterministic:
            x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        return linen.Dense(2)(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs, rate=0.5):
        self.first = nnx.Linear(3, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.rest = nnx.List([nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)])

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.first(x))))
        for layer in self.rest:
            x = layer(x)
        return x


@pytest.fixture(scope="module", params=["linen", "nnx"])
def problem(request):
    """One network with batch statistics and dropout, written twice."""
    if request.param == "linen":
        return problems.from_linen(LinenNet(), mse, DATA, metrics={"mse": mse})
    return problems.from_nnx(lambda rngs: NNXNet(rngs), model_mse, DATA, metrics={"mse": model_mse})


def trees_equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))
    )


def test_state_is_threaded_through_a_scan_of_training_steps(problem):
    params, state = problem.init(KEY), problem.init_state(KEY)

    def step(carry, key):
        params, state = carry
        (loss, state), grads = jax.value_and_grad(problem.step_loss, has_aux=True)(params, state, DATA, key)
        return (jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state), loss

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    (trained, updated), losses = run((params, state), jax.random.split(jax.random.key(1), 200))
    assert not trees_equal(state, updated)
    assert jax.tree.structure(state) == jax.tree.structure(updated)
    assert np.isfinite(losses).all()
    before, after = problem.loss(params, DATA, state), problem.loss(trained, DATA, updated)
    assert after < 0.8 * before
    assert problem.metrics["mse"](trained, DATA, updated) == after


def test_a_key_is_replayed_exactly_and_lanes_differ(problem):
    params, state = problem.init(KEY), problem.init_state(KEY)
    step = jax.jit(problem.step_loss)
    keys = jax.random.split(jax.random.key(2), 4)
    alone = np.array([step(params, state, DATA, key)[0] for key in keys])
    assert len(set(alone.tolist())) == 4
    assert step(params, state, DATA, keys[0])[0] == alone[0]
    lanes = jax.vmap(problem.step_loss, in_axes=(None, None, None, 0))(params, state, DATA, keys)[0]
    np.testing.assert_allclose(lanes, alone, rtol=1e-5)


def test_evaluation_is_deterministic_uses_running_statistics_and_changes_nothing(problem):
    params, state = problem.init(KEY), problem.init_state(KEY)
    assert problem.loss(params, DATA, state) == problem.loss(params, DATA, state)
    parts = [{name: leaf[part] for name, leaf in DATA.items()} for part in (slice(8), slice(8, None))]
    halves = [problem.loss(params, part, state) for part in parts]
    np.testing.assert_allclose(np.mean(halves), problem.loss(params, DATA, state), rtol=1e-6)  # additive over batches
    shifted = jax.tree.map(lambda leaf: leaf + 1, state)
    assert problem.loss(params, DATA, shifted) != problem.loss(params, DATA, state)


def test_seeds_differ_and_init_runs_under_vmap_and_jit(problem):
    keys = jax.random.split(KEY, 3)
    lanes = jax.jit(jax.vmap(problem.init))(keys)
    solo = problem.init(keys[1])
    for lane, leaf in zip(jax.tree.leaves(lanes), jax.tree.leaves(solo), strict=True):
        np.testing.assert_allclose(lane[1], leaf, rtol=1e-6)
    kernels = [leaf for leaf in jax.tree.leaves(lanes) if leaf.ndim == 3]
    assert all(not np.array_equal(kernel[0], kernel[1]) for kernel in kernels)


def test_a_linen_step_is_the_one_flax_takes():
    model = LinenNet(rate=0.0)
    problem = problems.from_linen(model, mse, DATA)
    params, state = problem.init(KEY), problem.init_state(KEY)
    outputs, mutated = model.apply({"params": params, **state}, DATA["x"], train=True, mutable=["batch_stats"])
    loss, updated = problem.step_loss(params, state, DATA, KEY)
    np.testing.assert_allclose(loss, mse(outputs, DATA), rtol=1e-6)
    assert trees_equal(updated, dict(mutated))
    assert problem.name == "LinenNet"


def test_an_nnx_step_is_the_one_flax_takes():
    problem = problems.from_nnx(lambda rngs: NNXNet(rngs, rate=0.0), model_mse, DATA)
    model = NNXNet(nnx.Rngs(KEY), rate=0.0)
    params, state = problem.init(KEY), problem.init_state(KEY)
    assert trees_equal(params, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    model.train()
    loss, grads = nnx.value_and_grad(model_mse)(model, DATA)
    (ours, updated), our_grads = jax.value_and_grad(problem.step_loss, has_aux=True)(params, state, DATA, KEY)
    np.testing.assert_allclose(ours, loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(our_grads), jax.tree.leaves(nnx.to_pure_dict(grads)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for a, b in zip(
        jax.tree.leaves(updated), jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    model.eval()
    np.testing.assert_allclose(problem.loss(params, DATA, updated), model_mse(model, DATA), rtol=1e-5)


def test_an_nnx_module_is_the_start_and_is_never_changed():
    model = NNXNet(nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    mode = model.dropout.deterministic
    problem = problems.from_nnx(model, model_mse, DATA, name="mine")
    params, state = problem.init(jax.random.key(1)), problem.init_state(jax.random.key(2))
    assert trees_equal(params, problem.init(jax.random.key(5)))
    jax.jit(lambda p: jax.tree.map(lambda leaf: 0 * leaf, p), donate_argnums=0)(params)  # a donated start is a copy
    problem.step_loss(problem.init(KEY), state, DATA, KEY)
    assert trees_equal(before, nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    assert model.dropout.deterministic == mode
    assert problem.name == "mine"


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")  # Flax deprecates it outside nnx.capture, but it is in use
def test_what_layers_sow_does_not_enter_the_state():
    class Sowing(NNXNet):
        def __call__(self, x):
            x = super().__call__(x)
            self.sow(nnx.Intermediate, "outputs", x)
            return x

    problem = problems.from_nnx(lambda rngs: Sowing(rngs), model_mse, DATA)
    state = problem.init_state(KEY)
    _, updated = problem.step_loss(problem.init(KEY), state, DATA, KEY)
    assert jax.tree.structure(updated) == jax.tree.structure(state)


class LinenInspected(linen.Module):
    """Sows without reduction, into a collection of its own, and perturbs, so that gradients can be seen."""

    inspected: bool

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(x)
        if self.inspected:
            self.sow("losses", "square", jnp.mean(x**2))
            x = self.perturb("normalised", x)
        return linen.Dense(2)(x)


def test_what_linen_layers_sow_or_perturb_does_not_enter_the_state():
    plain, inspected = (problems.from_linen(LinenInspected(on), mse, DATA) for on in (False, True))
    params, state = inspected.init(KEY), inspected.init_state(KEY)
    assert trees_equal((params, state), (plain.init(KEY), plain.init_state(KEY)))
    for batch in (DATA, {name: values[:3] for name, values in DATA.items()}):  # perturbations have a batch's shape
        assert trees_equal(inspected.step_loss(params, state, batch, KEY), plain.step_loss(params, state, batch, KEY))
        assert inspected.loss(params, batch, state) == plain.loss(params, batch, state)


def test_models_without_state_or_randomness_keep_the_plain_form():
    for problem in (
        problems.from_linen(linen.Dense(2), mse, DATA, metrics={"mse": mse}),
        problems.from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs), model_mse, DATA, metrics={"mse": model_mse}),
    ):
        params = problem.init(KEY)
        assert problem.init_state is None
        assert problem.step_loss is None
        expected = np.mean((DATA["x"] @ np.asarray(params["kernel"]) + np.asarray(params["bias"]) - DATA["y"]) ** 2)
        np.testing.assert_allclose(problem.loss(params, DATA), expected, rtol=1e-5)
        assert problem.metrics["mse"](params, DATA) == problem.loss(params, DATA)


def test_random_models_without_state_pass_the_state_through():
    class Dropped(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(self.dropout(x))

    for problem in (
        problems.from_linen(LinenNoise(), mse, DATA, rng_names=("noise",)),
        problems.from_nnx(Dropped, model_mse, DATA),
    ):
        params = problem.init(KEY)
        assert problem.init_state is None
        first, state = problem.step_loss(params, None, DATA, jax.random.key(0))
        assert state is None
        assert first != problem.step_loss(params, None, DATA, jax.random.key(1))[0]
        assert first != problem.loss(params, DATA)


def test_a_random_stream_that_is_not_named_is_found_at_once():
    with pytest.raises(flax.errors.InvalidRngError, match="noise"):
        problems.from_linen(LinenNoise(), mse, DATA)


def test_double_precision_numpy_data_and_other_inputs_work():
    data = (np.arange(4.0)[:, None], np.ones((4, 1)))
    problem = problems.from_linen(
        linen.Dense(1), lambda out, batch: jnp.mean((out - batch[1]) ** 2), data, inputs=lambda batch: batch[0]
    )
    assert problem.loss(problem.init(KEY), data).dtype == jnp.float32


def test_a_pytree_and_its_loss_are_the_problem_they_say():
    params = (jnp.array([1.0, 2.0]), {"b": np.array(3.0)})
    problem = problems.from_pytree(
        params, lambda p, batch: jnp.sum(p[0] ** 2) + p[1]["b"] ** 2, name="sum", domain=None
    )
    assert problem.name == "sum"
    assert problem.data is None
    assert problem.loss(problem.init(KEY), None) == 14.0
    jax.jit(lambda p: jax.tree.map(lambda leaf: 2 * leaf, p), donate_argnums=0)(problem.init(KEY))
    assert problem.loss(problem.init(KEY), None) == 14.0  # the start survives the donation of a copy


@jax.tree_util.register_dataclass
@dataclass
class Layer:  # as in Equinox: arrays, functions and numbers in one tree
    weight: jax.Array
    table: jax.Array
    activation: Any
    rate: float = 0.5
    name: str = field(default="layer", metadata={"static": True})


def test_leaves_that_are_not_trained_are_refused_by_name_or_frozen():
    layer = Layer(jnp.array([1.0, -2.0]), jnp.array([0, 1]), jnp.abs)

    def loss(layer, batch):
        return layer.rate * jnp.sum(layer.activation(layer.weight[layer.table]) ** 2)

    with pytest.raises(ValueError, match=r"at .table, .activation.*freeze_others=True"):
        problems.from_pytree(layer, loss)
    problem = problems.from_pytree(layer, loss, freeze_others=True, metrics={"half": lambda p, b: loss(p, b) / 2})
    params = problem.init(KEY)
    assert len(jax.tree.leaves(params)) == 1
    gradient = jax.jit(jax.grad(problem.loss))(params)
    assert isinstance(gradient, Layer)
    assert gradient.weight.tolist() == [1.0, -2.0]
    assert problem.metrics["half"](params, None) == 1.25


@pytest.mark.parametrize("params", [1.0, {"n": jnp.array(3)}, {}])
def test_nothing_to_train_is_refused(params):
    with pytest.raises(ValueError, match="no floating array"):
        problems.from_pytree(params, lambda p, batch: 0.0, freeze_others=True)


def test_an_nnx_module_without_parameters_is_refused():
    with pytest.raises(ValueError, match=r"no nnx\.Param"):
        problems.from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs), model_mse, DATA)


@pytest.mark.parametrize(
    "make",
    [
        lambda: problems.from_pytree(jnp.ones(2), lambda p, batch: p**2),
        lambda: problems.from_pytree(jnp.ones(2), lambda p, batch: (jnp.sum(p), {})),
        lambda: problems.from_linen(linen.Dense(2), lambda out, batch: (out - batch["y"]) ** 2, DATA),
        lambda: problems.from_nnx(
            lambda rngs: nnx.Linear(3, 2, rngs=rngs), lambda model, batch: (model(batch["x"]) - batch["y"]) ** 2, DATA
        ),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(make):
    with pytest.raises(ValueError, match=r"must be one scalar.*jnp\.mean"):
        make()


def test_parameters_of_a_tree_may_be_traced():
    square = lambda params, batch: jnp.sum(params["a"] ** 2 * batch["x"])
    posed = lambda a, x: problems.from_pytree({"a": a}, square, data={"x": x}).loss({"a": a}, {"x": x})
    a, x = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    assert float(jax.jit(posed)(a, x)) == 3.0 - 4.0
    np.testing.assert_array_equal(jax.vmap(posed, (0, None))(jnp.stack([a, 2 * a]), x), [-1.0, -4.0])
