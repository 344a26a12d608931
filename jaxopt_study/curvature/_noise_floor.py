"""Noise floor: the expected rounding error of an operator's products."""

from typing import Any

import jax
from jax.core import Tracer

from jaxopt_study._checks import check_real
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.linalg import vectors
from jaxopt_study.linalg.operator import check_operator

GROWTH = 16  # rounding error of a product in units of the machine epsilon: see `noise_floor`
_MATMUL_UNITS = {"default": 2.0**-8, "high": 2.0**-11}  # bfloat16 on TPUs, TF32 on GPUs


def noise_floor(op: Operator) -> float:
    """Return the expected rounding error of a product, relative to ‖H‖, without computing one.

    The floor is 16 ε, with the ε of the dtype, or of an accelerator's matmul units where the precision is below
    "highest". Losses of ordinary networks stay below it; losses of very deep networks (20 layers of tanh or more) and
    ill-conditioned ones may exceed it. `audit` measures the error. For finite differences the floor is their error.

    Args:
        op: The operator.

    Returns:
        The floor. Cost: no product.

    Raises:
        TypeError: If `op` is not an operator.
        ValueError: If it has no coordinates.

    Example:
        >>> from jaxopt_study.curvature import from_matrix
        >>> bool(noise_floor(from_matrix(jnp.eye(2, dtype=jnp.float32))) == 16 * jnp.finfo(jnp.float32).eps)
        True
    """
    return GROWTH * rounding_unit(check_operator("noise_floor", op))


def check_noise_floor(name: str, op: Operator, value: Any, *, below: float = 1.0) -> Any:
    """Return a valid noise floor: the given one, or the expected one for None.

    Args:
        name: The function that was called, for the messages.
        op: The operator.
        value: The argument; None for the default.
        below: Exclusive upper limit, above which the function cannot use a product.

    Returns:
        The floor; a Python float unless it is traced.

    Raises:
        TypeError: If the argument is not a real number.
        ValueError: If the argument, or the default, is not in [0, below); for the default, as with 8-bit parameters.
    """
    remedy = "Pass audit(op).noise_floor, the error of a product relative to the norm, or omit it."
    if value is not None:
        value = check_real(name, "noise_floor", value, 0.0, below, closed="[)", remedy=remedy)
        return value if isinstance(value, Tracer) else float(value)
    floor = noise_floor(op)
    if not floor < below:
        raise ValueError(
            f"{name} needs products with a relative error below {below:g}; received an operator in {op.dtype}, with an "
            f"expected error of {floor:.1e}. Convert the parameters to float32, or pass the measured error: "
            "noise_floor=audit(op).noise_floor."
        )
    return floor


def rounding_unit(op: Operator) -> float:
    """Return the relative rounding error of one operation of a product."""
    eps = max(vectors.epsilon(op.like), op.product_error / GROWTH)
    if op.precision in _MATMUL_UNITS and jax.default_backend() != "cpu":
        return max(eps, _MATMUL_UNITS[op.precision])
    return eps
