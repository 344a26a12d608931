"""Agreement to rounding, at every step."""

import numpy as np

RTOL = 1e-12


def assert_agree(actual, desired, *, name: str = "", rtol: float = RTOL, cumulative: bool = False) -> None:
    """Check |actual − desired| ≤ rtol·|desired| at every step (leading axis) and coordinate.

    `cumulative` measures against the largest value a coordinate has had so far instead: parameters are running sums,
    and after a step of 1e12 nothing can be known below 1e12·2⁻⁵³. Two NaN or equal infinities do not agree.
    """
    actual, desired = np.asarray(actual, dtype=np.float64), np.asarray(desired, dtype=np.float64)
    assert actual.shape == desired.shape, f"{name}: shape {actual.shape}, reference {desired.shape}"
    assert np.all(np.isfinite(desired)), f"{name}: the reference is not finite"
    scale = np.abs(desired)
    if cumulative:
        scale = np.maximum.accumulate(scale, axis=0)
    wrong = ~(np.abs(actual - desired) <= rtol * scale)  # NaN is wrong
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{name}: first disagreement at (step, coordinate) {first}: {actual[first]!r}, "
            f"reference {desired[first]!r}; {int(wrong.sum())} of {wrong.size} entries disagree"
        )


def disagreement(actual, desired) -> float:
    """The largest |actual − desired| relative to the largest |desired| of that coordinate so far."""
    actual, desired = np.asarray(actual, dtype=np.float64), np.asarray(desired, dtype=np.float64)
    scale = np.maximum.accumulate(np.abs(desired), axis=0)
    return float(np.max(np.abs(actual - desired) / np.maximum(scale, np.finfo(np.float64).tiny)))
