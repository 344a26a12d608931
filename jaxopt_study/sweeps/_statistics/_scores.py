"""Scores: directions, penalties for diverged runs, and steps to a target."""

from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxopt_study._checks import check_static_real, describe_argument
from jaxopt_study.types import Mode


def penalised(scores: Any, mode: Mode | str) -> Float[np.ndarray, "*shape"]:
    """Replace NaN, the score of a diverged run, by the worst possible score.

        NaN → +∞ if smaller is better, −∞ if larger is

    A diverged run then loses against every other run, and no average silently omits it. An infinite score on the better
    side is an overflow, and also becomes the worst score. Finite scores are unchanged, however bad, so one of them may
    dominate an average.

    Args:
        scores: Any shape.
        mode: Whether "min" or "max" is better.

    Returns:
        A copy in double precision, of the same shape.

    Raises:
        TypeError: If scores are not numbers.
        ValueError: If `mode` is unknown.

    Example:
        >>> print(penalised([0.5, np.nan], "min"), penalised([0.5, np.inf], "max"))
        [0.5 inf] [ 0.5 -inf]
    """
    sign = sign_of(mode)
    array = numbers("penalised", "scores", scores)
    array[np.isnan(array) | (array == -sign * np.inf)] = sign * np.inf
    return array


def numbers(who: str, name: str, values: Any) -> Float[np.ndarray, "*shape"]:
    """Return real numbers as a new array in double precision.

    Args:
        who: The function that was called, for the message.
        name: The argument's name.
        values: An array of any shape, or nested lists.

    Returns:
        The numbers.

    Raises:
        TypeError: If the values are text, complex, objects, or lists of unequal lengths.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:  # JAX keys, lists of unequal lengths
        raise TypeError(
            f"{who} needs {name} to be an array of numbers; received {describe_argument(values)}."
        ) from error
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{who} needs {name} to be an array of real numbers; received {describe_argument(values)}.")
    return np.array(array, dtype=np.float64)


def rounding_of(*values: Float[np.ndarray, "..."]) -> float:
    """Return the relative difference up to which numbers may be equal: two roundings of the precision they are in.

    Args:
        values: Numbers in double precision, which may have been in single precision before.

    Returns:
        2 ε of single precision if all of them are numbers of it, else of double precision.

    Example:
        >>> f"{rounding_of(np.array([0.5, 0.25])):.1e} {rounding_of(np.array([0.1])):.1e}"
        '2.4e-07 4.4e-16'
    """
    with np.errstate(over="ignore"):
        single = all(np.array_equal(array, array.astype(np.float32), equal_nan=True) for array in values)
    return 2 * float(np.finfo(np.float32 if single else np.float64).eps)


def sign_of(mode: Mode | str) -> float:
    """Return 1 if smaller is better and −1 if larger is, so that sign · score is a cost.

    Args:
        mode: "min" or "max".

    Returns:
        1.0 or −1.0.

    Raises:
        ValueError: If `mode` is neither.
    """
    if not isinstance(mode, str) or mode not in get_args(Mode):
        raise ValueError(f'mode: expected "min" or "max"; received {mode!r}.')
    return 1.0 if mode == "min" else -1.0


def steps_to_target(
    curves: Any, steps: Any, target: float | int, *, mode: Mode | str = "min"
) -> Float[np.ndarray, "*curves"]:
    """Return the first evaluated step at which each curve is at least as good as a target.

    A value that differs from the target by rounding reaches it: in single precision .9 is 2e-8 below the number that a
    target of .9 is. There is no interpolation between evaluations, so the result is late by up to the distance of two
    evaluations, and curves to be compared need the same steps. A curve that reaches the target and leaves it again
    counts at its first crossing.

    Args:
        curves: One value per evaluation, shape (…, K), such as (seeds, K). NaN never reaches the target.
        steps: Number of steps before each evaluation, increasing, shape (K,).
        target: The target in the units of the curves.
        mode: Whether the target is reached from above ("min") or from below ("max").

    Returns:
        Steps of shape (…); ∞ for a curve that never reaches the target.

    Raises:
        TypeError: If an argument is not numeric.
        ValueError: If a curve does not have a value per step, steps do not increase, or the target is NaN.

    Example:
        >>> print(steps_to_target([[3.0, 1.0, 2.0], [3.0, 2.0, np.nan]], [0, 10, 20], target=1.5))
        [10. inf]
    """
    cost = sign_of(mode) * numbers("steps_to_target", "curves", curves)
    places = numbers("steps_to_target", "steps", steps)
    target = check_static_real("steps_to_target", "target", target, closed="[]")
    if places.ndim != 1 or not cost.ndim or cost.shape[-1] != len(places):
        raise ValueError(
            f"steps_to_target needs steps of shape (K,) and curves of shape (…, K); received {places.shape} and "
            f"{cost.shape}."
        )
    if np.isnan(target) or not (np.diff(places) > 0).all():
        raise ValueError(f"steps_to_target needs increasing steps and a target that is a number; received {target}.")
    with np.errstate(invalid="ignore"):  # 0 · ∞
        reached = cost <= sign_of(mode) * target + (rounding_of(cost) * abs(target) if np.isfinite(target) else 0.0)
    return np.asarray(np.where(reached, places, np.inf).min(axis=-1, initial=np.inf))


__all__ = ["Mode", "numbers", "penalised", "rounding_of", "sign_of", "steps_to_target"]
