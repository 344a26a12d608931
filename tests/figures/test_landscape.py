"""The loss along a line and in a plane, drawn beside its quadratic model."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import figures
from jaxopt_study.curvature import path, plane

U, V = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])


def loss(params, _):
    return jnp.cos(params[0]) + params[1] ** 2


def test_a_line_shows_loss_model_and_the_point():
    found = path(loss, jnp.zeros(2), U, steps=[1.0, -1.0, 0.0])
    axes = figures.loss_landscape(found, title="cosine").axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(drawn["loss"].get_xdata(), [-1, 0, 1])
    np.testing.assert_allclose(drawn["loss"].get_ydata(), np.cos([-1, 0, 1]), rtol=1e-6)
    np.testing.assert_allclose(drawn["quadratic model"].get_ydata(), [0.5, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(drawn["here"].get_xydata(), [[0, 1]], rtol=1e-6)


def test_a_plane_shows_loss_and_model_at_the_same_levels():
    found = plane(loss, jnp.zeros(2), (U, V), x=[-1.0, 0.0, 1.0], y=[0.0, 1.0])
    figure = figures.loss_landscape(found)
    left, right = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["loss", "quadratic model"]
    levels = [axes.collections[0].levels for axes in (left, right)]
    np.testing.assert_array_equal(*levels)
    assert figures.render(figure)[:4] == b"\x89PNG"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(TypeError, match=r"needs the result of curvature.path or curvature.plane"):
        figures.loss_landscape(1.0)
    nothing = path(lambda p, _: jnp.nan * jnp.sum(p), jnp.zeros(2), U)
    with pytest.raises(ValueError, match="finite somewhere"):
        figures.loss_landscape(nothing)
