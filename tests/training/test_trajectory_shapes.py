"""The fields of a trajectory have the shapes that their annotations state, for one run and under vmap.

JAX builds trajectories of shapes and axes, too, so type checkers do not look into them: this does.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest
from jaxtyping import PyTree, jaxtyped

from jaxopt_study import problems, transforms
from jaxopt_study.training import EarlyStopping, Trajectory, train

BOWL = problems.planar.bowl().replace(validation=jnp.zeros(1))
CHAIN = optax.chain(transforms.tap("gradient"), optax.sgd(0.1))


def run(key):
    return train(
        BOWL, CHAIN, num_steps=7, key=key, evaluate_every=3, record_params_every=2, progress=False,
        early_stopping=EarlyStopping(patience=9), probe=lambda params, *_: {"at": params, "sum": params.sum()},
    )  # fmt: skip


@pytest.mark.parametrize("num_runs", [None, 3])
def test_every_field_is_what_its_annotation_states(num_runs):
    key = jax.random.key(0)
    found = run(key) if num_runs is None else jax.vmap(run)(jax.random.split(key, num_runs))
    types = {field.name: field.type for field in dataclasses.fields(Trajectory)}
    with jaxtyped("context"):  # the same names of axes mean the same lengths
        for name in ("losses", "num_steps", "diverged", "diverged_at", "stopped_early"):
            assert isinstance(getattr(found, name), types[name]), name
        for name in ("best_step", "snapshot_steps", "probe_steps", "stalled", "last_moved"):
            assert isinstance(getattr(found, name), types[name]), name
        assert isinstance(found.params, PyTree)
        (_, each) = types["evaluations"].__args__
        for name, values in found.evaluations.items():
            assert isinstance(values, each), name
