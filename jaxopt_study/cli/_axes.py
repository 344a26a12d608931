"""Axes that the figures of several commands share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

UNITS = {"accuracy": "accuracy (fraction)", "loss": "loss (nats per example)"}


def accuracy_floor(curves: Sequence[Any]) -> float:
    """Return where the axis of accuracies begins, so that the ends can be told apart.

    Two and a half times as far below 1 as the worst final median, and below .99, so that there is an axis.

    Args:
        curves: Each of shape (seeds, K).
    """
    lasts = [np.asarray(values, dtype=float)[:, -1] for values in curves]
    ends = [np.nanmedian(last) for last in lasts if not np.isnan(last).all()]
    return min(0.99, max(0.0, 1 - 2.5 * (1 - float(min(ends))))) if ends else 0.0
