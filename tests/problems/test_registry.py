"""The catalogue: everything in it can be built by name and trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import problems
from jaxopt_study.problems import listed

ANALYTIC = [name for name, make in problems.catalogue().items() if ".datasets" not in make.__module__]


def test_the_catalogue_holds_every_family():
    names = set(problems.catalogue())
    assert names >= set(problems.planar.all_problems())
    assert names >= {"quadratic", "noisy_quadratic", "linear_regression", "linear_network", "deep_linear_network"}
    assert len(problems.planar.all_problems()) == 12


@pytest.mark.parametrize("name", [name for name in ANALYTIC if "networks" not in problems.catalogue()[name].__module__])
def test_every_listed_problem_has_a_finite_loss_and_gradient_at_its_start(name):
    make = problems.catalogue()[name]
    problem = make()
    value, gradient = jax.value_and_grad(problem.loss)(problem.init(jax.random.key(0)), problem.data)
    assert value.shape == ()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    assert len(make.__doc__.splitlines()[0]) < 110  # one line of a listing


def test_the_catalogue_is_a_copy():
    problems.catalogue().clear()
    assert problems.catalogue()


def test_a_name_of_another_module_a_needed_argument_and_a_missing_docstring_are_refused():
    def beale():
        """Build something else."""

    def unnamed():
        pass

    def sized(size):
        """Build something of a size."""

    with pytest.raises(ValueError, match="Two problems are called 'beale'"):
        listed(beale)
    with pytest.raises(ValueError, match="docstring"):
        listed(unnamed)
    with pytest.raises(ValueError, match="'size'"):
        listed(sized)
    assert not {"unnamed", "sized"} & set(problems.catalogue())
