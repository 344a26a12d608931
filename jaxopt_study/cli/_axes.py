"""Units and ranges of axes in the figures of several commands."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

UNITS = {"accuracy": "accuracy (fraction)", "loss": "loss (nats)"}


def accuracy_floor(curves: Sequence[Float[np.ndarray, "_ _"]]) -> float:
    """Return the lower end of an axis of accuracies, such that the final values can be told apart.

    It lies 2.5 times as far below 1 as the worst final median, at most at .99.

    Args:
        curves: Accuracies of each candidate.
    """
    lasts = [np.asarray(values, dtype=float)[:, -1] for values in curves]
    ends = [np.nanmedian(last) for last in lasts if not np.isnan(last).all()]
    return min(0.99, max(0.0, 1 - 2.5 * (1 - float(min(ends))))) if ends else 0.0
