"""Flat layout: the optimizers that may be carried as vectors, with unchanged results."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.problems import Problem
from jaxopt_study.training import train

SHAPES = {"kernel": (3, 3, 2, 4), "matrix": (5, 3), "matrix_t": (3, 5), "bias": (4,), "scale": ()}


@pytest.fixture(scope="module")
def problem():
    targets = {name: jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) for name, shape in SHAPES.items()}

    def loss(params, batch):
        assert {name: leaf.shape for name, leaf in params.items()} == SHAPES  # the user never sees vectors
        return sum(jnp.mean(jnp.cosh((params[name] - targets[name]) / 40)) for name in SHAPES)

    return Problem("shapes", init=lambda key: jax.tree.map(jnp.zeros_like, targets), loss=loss)


def decayed_matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def scale_by_dimension():
    """Looks at the number of dimensions in no operation, only in the value of a constant."""
    update = lambda u, s, p=None: (jax.tree.map(lambda leaf: leaf * (0.5 if leaf.ndim > 1 else 1.0), u), s)
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_rows():
    update = lambda u, s, p=None: (jax.tree.map(lambda leaf: leaf * len(jnp.atleast_1d(leaf)), u), s)
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def reversed_leaves():
    update = lambda u, s, p=None: (jax.tree.map(lambda leaf: jnp.flip(leaf), u), s)
    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def swapped_by_shape():
    """The same operations on other operands: what a comparison of operation names would miss."""

    def update(updates, state, params=None):
        scale = lambda leaf: (jnp.sum(leaf), jnp.max(leaf))[:: 1 if leaf.ndim > 1 else -1]
        return jax.tree.map(lambda leaf: leaf * scale(leaf)[0] - scale(leaf)[1], updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


INDIFFERENT = {
    "optax.adam": optax.adam(1e-2),
    "optax.sgd": optax.sgd(1e-2, momentum=0.9),
    "optax.adamw": optax.adamw(1e-2),
    "schedule": optax.adam(optax.cosine_decay_schedule(1e-2, 50)),
    "global norm": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2)),
    "leaf norms": optax.lamb(1e-2),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=1e-2),
    "masked by name": optax.adamw(1e-2, mask={name: name != "bias" for name in SHAPES}),
    "polyak": optax.polyak_sgd(max_learning_rate=0.1),
    "plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(accumulation_size=3)),
    "noise": optax.chain(optax.add_noise(0.1, 0.55, jax.random.key(3)), optax.sgd(1e-2)),
    "concatenated": optax.flatten(optax.adam(1e-2)),
    "atoms": optimizers.adam(1e-2),
    "look-ahead": optimizers.nesterov_lookahead(1e-2),
    "clipped atoms": transforms.chain(transforms.clip_by_global_norm(0.1), optimizers.rmsprop(1e-2)),
    "clipped leaves": transforms.chain(transforms.clip_by_leaf_norm(0.1), optimizers.sgd(1e-1)),
    "tapped": transforms.chain(transforms.tap("raw"), optimizers.sgd(1e-1)),
    "own noise": transforms.chain(
        transforms.add_gradient_noise(0.01, 0.55, jax.random.key(0)), optimizers.sgd(1e-2)
    ),
}  # fmt: skip

SHAPED = {
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=2),
    "unit-wise clipping": optax.chain(optax.adaptive_grad_clip(0.1), optax.sgd(1e-2)),
    "masked by dimensions": optax.adamw(1e-2, mask=decayed_matrices),
    "scaled by dimensions": optax.chain(scale_by_dimension(), optax.sgd(1e-2)),
    "scaled by rows": optax.chain(scale_by_rows(), optax.sgd(1e-2)),
    "reversed": optax.chain(reversed_leaves(), optax.sgd(1e-2)),
    "swapped": optax.chain(swapped_by_shape(), optax.sgd(1e-2)),
    "muon": optax.contrib.muon(1e-2),
    "own unit-wise clipping": transforms.chain(transforms.clip_by_unit_norm(0.1), optimizers.sgd(1e-2)),
}


@pytest.mark.parametrize("name", INDIFFERENT)
def test_optimizers_indifferent_to_shapes_are_carried_as_vectors(planned, problem, name):
    assert planned(problem, INDIFFERENT[name])[0].layout == "flat"


@pytest.mark.parametrize("name", SHAPED)
def test_optimizers_that_look_at_shapes_are_not(planned, problem, name):
    assert planned(problem, SHAPED[name])[0].layout == "tree"
    with pytest.raises(ValueError, match=r"layout='flat' would change what this optimizer computes: .*layout='auto'"):
        planned(problem, SHAPED[name], layout="flat")


@pytest.mark.parametrize("name", ["optax.adam", "global norm", "leaf norms", "own noise", "look-ahead", "tapped"])
def test_both_layouts_give_the_same_numbers_and_the_users_shapes(problem, name):
    runs = [
        train(problem, INDIFFERENT[name], num_steps=30, key=jax.random.key(0), layout=layout)
        for layout in ("flat", "tree")
    ]
    assert jax.tree.map(jnp.shape, runs[0]) == jax.tree.map(jnp.shape, runs[1])
    assert {name: leaf.shape for name, leaf in runs[0].params.items()} == SHAPES
    for a, b in zip(*(jax.tree.leaves(run) for run in runs), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)  # sums over a leaf may be taken in another order


def test_a_state_with_shapes_of_its_own_is_returned_in_them(problem):
    run = train(problem, SHAPED["adafactor"], num_steps=3, key=jax.random.key(0))
    expected = SHAPED["adafactor"].init(run.params)
    assert jax.tree.map(jnp.shape, run.opt_state) == jax.tree.map(jnp.shape, expected)


def test_parameters_that_are_vectors_already_are_left_alone(planned, bowl):
    assert planned(bowl, optax.adam(1e-2))[0].layout == "tree"
