"""Where the values of a hyperparameter lie on an axis, be they numbers or options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxopt_study.figures._bars import reach
from jaxopt_study.figures._ticks import log_subdivisions

FEW = 6  # whole numbers between the ends, up to twice as many, are ticks as on a linear axis


@dataclass(frozen=True)
class Scale:
    """An axis for the values of one hyperparameter.

    Attributes:
        places: Shape (trials,): numbers where they are, options, sorted, at 0, 1, …, NaN where inactive.
        options: What stands at 0, 1, …; empty for numbers.
        whole: Whether all numbers are integers.
        ends: Of the axis, with a margin.
        log: Whether it is logarithmic.
    """

    places: np.ndarray
    options: list[str]
    ends: tuple[float, float]
    log: bool
    whole: bool = False

    @property
    def shaken(self) -> np.ndarray:
        """Places, of options spread a little: by the golden ratio, so that equal ones do not hide each other."""
        if not self.options:
            return self.places
        return self.places + 0.3 * (np.arange(len(self.places)) * 0.6180339887 % 1.0 - 0.5)

    def height(self, places: Any) -> np.ndarray:
        """Return where places lie between the ends, from 0 to 1.

        Args:
            places: Any shape.

        Returns:
            Of the same shape.
        """
        low, high, at = (np.log(x) if self.log else np.asarray(x, float) for x in (*self.ends, places))
        return np.asarray((at - low) / (high - low))

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights and labels of ticks.

        Returns:
            (height, label), from the lowest on.
        """
        if self.options:
            return [(float(self.height(i)), name) for i, name in enumerate(self.options)]
        return [(float(self.height(x)), f"{x:.4g}") for x in self.numbers()]

    def numbers(self) -> list[float]:
        """Return round numbers between the ends, whole ones among integers."""
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
    """Make the axis for values of any kind.

    Args:
        entries: One per trial: numbers, or anything else, which are options; None where inactive.
        log: Whether numbers get a logarithmic axis.
        ends: Of the range; None takes those of the values.
        options: What could be chosen, in order, if numbers are options, too.

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
