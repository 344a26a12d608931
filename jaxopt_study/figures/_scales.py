"""Axis positions and ticks for the values of a hyperparameter, numbers or options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxopt_study.figures._bars import reach
from jaxopt_study.figures._ticks import log_subdivisions

FEW = 6  # up to twice as many whole numbers between the ends are ticks, as on a linear axis


@dataclass(frozen=True)
class Scale:
    """An axis for the values of one hyperparameter.

    Attributes:
        places: Positions, shape (trials,): numbers at their value, sorted options at 0, 1, …, NaN if inactive.
        options: The options at 0, 1, …; empty for numbers.
        whole: Whether all numbers are integers.
        ends: Ends of the axis, with a margin.
        log: Whether the axis is logarithmic.
    """

    places: Float[np.ndarray, " trials"]
    options: list[str]
    ends: tuple[float, float]
    log: bool
    whole: bool = False

    @property
    def shaken(self) -> Float[np.ndarray, " trials"]:
        """The positions; those of options are spread by the golden ratio, so that equal ones do not overlap."""
        if not self.options:
            return self.places
        return self.places + 0.3 * (np.arange(len(self.places)) * 0.6180339887 % 1.0 - 0.5)

    def height(self, places: Any) -> Float[np.ndarray, "*places"]:
        """Return positions relative to the ends, from 0 to 1.

        Args:
            places: Positions, any shape.

        Returns:
            An array of the same shape.
        """
        low, high, at = (np.log(x) if self.log else np.asarray(x, float) for x in (*self.ends, places))
        return np.asarray((at - low) / (high - low))

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights and labels of ticks.

        Returns:
            Pairs (height, label) in ascending order.
        """
        if self.options:
            return [(float(self.height(i)), name) for i, name in enumerate(self.options)]
        return [(float(self.height(x)), f"{x:.4g}") for x in self.numbers()]

    def numbers(self) -> list[float]:
        """Return round numbers between the ends; integers if all values are."""
        whole = MaxNLocator(6, integer=True, min_n_ticks=1) if self.whole else MaxNLocator(5)
        wide = self.log and not (self.whole and self.ends[1] < 2 * FEW * self.ends[0])
        locator = LogLocator(subs=log_subdivisions(*self.ends), numticks=7) if wide else whole
        inside = [float(x) for x in locator.tick_values(*self.ends) if self.ends[0] <= x <= self.ends[1]]
        return [x for x in inside if (x or not self.log) and (x.is_integer() or not self.whole)]


def scale_of(
    entries: Sequence[Any],
    log: bool,
    ends: tuple[float | int, float | int] | None,
    options: Sequence[Any] | None = None,
) -> Scale:
    """Make the axis for the values of a hyperparameter.

    Args:
        entries: One value per trial: numbers, or options of any other kind; None if inactive.
        log: Whether numbers get a logarithmic axis.
        ends: Ends of the range; None takes those of the values.
        options: All options in order, if numbers are to be treated as options.

    Returns:
        The axis.

    Example:
        >>> scale_of(["tanh", None, "relu"], False, None).places
        array([ 1., nan,  0.])
        >>> scale_of([64, 32, 64], False, None, options=(32, 64, 128)).ticks()
        [(0.16666666666666666, '32'), (0.5, '64'), (0.8333333333333334, '128')]
    """
    given = [entry for entry in entries if entry is not None]
    numeric = all(isinstance(x, int | float | np.number) and not isinstance(x, bool | np.bool) for x in given)
    if numeric and options is None:
        places = np.array([np.nan if x is None else float(x) for x in entries])
        shown = places if ends is None else np.array(ends, dtype=float)
        whole = bool(given) and all(isinstance(x, int | np.integer) for x in given)
        return Scale(places, [], reach(shown, log=log, share=0.05 if whole else 0.03), log, whole)
    names = sorted({str(x) for x in given}) if options is None else [str(x) for x in options]
    places = np.array([np.nan if x is None else float(names.index(str(x))) for x in entries])
    return Scale(places, names, (-0.5, len(names) - 0.5), False)
