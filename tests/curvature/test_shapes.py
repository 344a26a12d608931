"""The fields of results have the shapes and kinds of numbers that their annotations state.

Type checkers look at arguments and returned values, not into named tuples: so this looks into them.
"""

from typing import get_type_hints

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import AbstractArray, jaxtyped

from jaxopt_study import curvature, dynamics
from jaxopt_study.linalg.gauss_quadrature import lanczos_quadrature

KEY = jax.random.key(0)
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": jnp.ones(4)}
DATA = jnp.linspace(-2.0, 2.0, 30).reshape(10, 3)


def loss(params, x):
    return jnp.mean(jnp.sin(x @ params["w"] + params["b"]) ** 2) + 0.05 * jnp.sum(params["w"] ** 2)


def is_array_type(hint):
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def check_fields(result):
    """Check all array fields of a result, and of the results inside it; return how many there are."""
    hints, count = get_type_hints(type(result)), 0
    with jaxtyped("context"):
        for name, hint in hints.items():
            if is_array_type(hint):
                value, count = getattr(result, name), count + 1
                assert isinstance(value, hint), (type(result).__name__, name, value.dtype, value.shape, hint)
    inside = [value for value in result if hasattr(value, "_fields")]
    return count + sum(map(check_fields, inside))


def results():
    op = curvature.hessian(loss, PARAMS, DATA)
    grads = jax.grad(loss)(PARAMS, DATA)
    density = curvature.spectral_density(op, num_probes=2, num_steps=8, key=KEY)
    yield curvature.eigenpairs(op, 2, which="BE", key=KEY)
    yield curvature.sharpness(op, key=KEY)
    yield density
    yield curvature.cross_check(op, density, num_steps=4)
    yield curvature.trace(op, key=KEY)
    yield curvature.diagonal(op, num_probes=2, rank=0, key=KEY)
    yield curvature.log_det(op, shift=5.0, num_probes=2, num_steps=4, key=KEY)
    yield curvature.condition_number(op, key=KEY)
    yield curvature.ill_conditioning(op, grads, key=KEY)
    yield curvature.morse_index(op, key=KEY)
    yield curvature.classify_point(loss, PARAMS, DATA, key=KEY)
    yield curvature.find_critical_point(loss, PARAMS, DATA, max_steps=3, key=KEY)
    yield lanczos_quadrature(op, jax.random.split(KEY, 3), num_steps=4)
    yield dynamics.account_step(loss, PARAMS, jax.tree.map(lambda g: -0.1 * g, grads), DATA)


def test_the_fields_of_results_are_what_their_annotations_state():
    for result in results():
        assert check_fields(result) > 0, type(result).__name__


def test_a_field_of_another_shape_is_found():
    pairs = curvature.eigenpairs(curvature.hessian(loss, PARAMS, DATA), 2, key=KEY)
    with pytest.raises(AssertionError, match=r"Eigenpairs.*residuals"):
        check_fields(pairs._replace(residuals=pairs.residuals[:1]))
