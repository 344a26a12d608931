"""`plot`: the picture of any result, in one axes."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes

from jaxopt_study._checks import describe_argument
from jaxopt_study.figures import _drawn_measurements as _drawn_measurements
from jaxopt_study.figures import _drawn_sweeps as _drawn_sweeps
from jaxopt_study.figures._drawn import drawn
from jaxopt_study.figures._style import SETTINGS, new_figure


def plot(result: Any, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw a result in one axes; `result.plot()` is the same.

    Options, by the kind of result:

        Trajectory          quantity: an evaluated metric instead of the training losses
        SpectralDensity     edge: an eigenvalue to mark, such as the edge of stability
        Search              over: the hyperparameter on the horizontal axis, the first numeric one by default
        Comparison          problem, settings: as in `Comparison.median`
        Report              quantity: one of its curves
        IllConditioning     rate: a step to mark

    Args:
        result: The result of a function of `curvature`, `dynamics`, `training` or `sweeps` that has a picture.
        ax: Axes to draw in; None makes a figure with one.
        **options: As above.

    Returns:
        The axes. In a notebook, those of a new figure show themselves.

    Raises:
        TypeError: If such a result has no picture, or does not take an option.
        ValueError: If it holds nothing that can be drawn, such as a batch of results from `vmap`.

    Example:
        >>> import numpy as np
        >>> from jaxopt_study import curvature
        >>> line = curvature.path(lambda p, _: p**2, np.float32(1.0), np.float32(1.0))
        >>> plot(line).get_xlabel()
        'step along the direction'
    """
    drawing = drawn.dispatch(type(result))
    if drawing is drawn.dispatch(object):
        raise TypeError(f"plot needs a result that has a picture; received {describe_argument(result)}.")
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"plot needs ax to be Matplotlib axes, or None; received {describe_argument(ax)}.")
    with matplotlib.rc_context(SETTINGS):
        if ax is not None:
            drawing(result, ax, **options)
            return ax
        figure = new_figure(6.4, 3.8)
        alone = figure.add_subplot()
        drawing(result, alone, **options)
        lines = sum(label.get_text().count("\n") + 1 for label in alone.get_yticklabels())
        figure.set_figheight(max(3.8, 1.2 + 0.25 * lines))  # rows with names need more than ticks do
    return alone
