"""Panels show one quantity each, over the same steps, under one legend."""

import numpy as np
import pytest

from jaxopt_study import figures
from jaxopt_study.figures import Panel, panels

STEPS = np.array([0, 5, 10])


def test_lines_are_medians_in_bands_of_the_range_and_a_name_looks_the_same_everywhere():
    lanes = np.array([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0], [2.0, 3.0, 4.0]])
    figure = panels(STEPS, [Panel("loss", {"a": lanes}, log=True), Panel("norm", {"b": lanes, "a": lanes}, level=2.0)])
    loss, norm = figure.axes
    assert (loss.get_yscale(), norm.get_yscale()) == ("log", "linear")
    assert loss.get_title(loc="left") == "loss"
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2.0, 3.0, 4.0])
    band = loss.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (1.0, 9.0)
    colours = {line.get_label(): line.get_color() for line in norm.lines}
    assert colours["a"] == loss.lines[0].get_color() != colours["b"]
    assert "3 seeds" in loss.get_xlabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_curve_is_interrupted_where_any_seed_is_not_finite():
    (axes,) = panels(STEPS, [Panel("loss", {"a": [[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]]})]).axes
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True, False]


def test_one_step_is_drawn_without_a_warning():
    curves = {"a": [[2.0], [3.0]]}
    for figure in (
        figures.panels([0], [figures.Panel("loss", curves)]),
        figures.learning_curves([0], curves, ylabel="loss"),
        figures.response([0], curves, xlabel="rate", ylabel="loss"),
    ):
        assert figure.axes[0].lines[0].get_ydata().tolist() == [2.5]


def test_ends_of_an_axis_may_be_integers_of_any_size():
    panel = figures.Panel("loss", {"a": [[2.0, 3.0]]}, smallest=-(10**30), largest=10**30)
    assert figures.panels([0, 1], [panel]).axes[0].get_ylim() == (-1e30, 1e30)
    figure = figures.learning_curves([0, 1], {"a": [[2.0, 3.0]]}, ylabel="loss", largest=10**30)
    assert figure.axes[0].get_ylim()[1] == 1e30


def test_no_axes_are_left_empty():
    figure = panels(STEPS, [Panel(str(i), {"a": [[1.0, 2.0, 3.0]]}) for i in range(4)], columns=3)
    assert len(figure.axes) == 4
    assert figure.axes[-1].get_xlabel() == "step"


def test_wrong_shapes_and_nothing_are_refused():
    with pytest.raises(ValueError, match="needs the shape"):
        panels(STEPS, [Panel("loss", {"a": [[1.0, 2.0]]})])
    with pytest.raises(ValueError, match="received none"):
        panels(STEPS, [])


def test_a_step_at_which_no_seed_was_measured_is_passed_over():
    lanes = [[1.0, np.nan, 3.0], [1.0, np.nan, np.inf]]
    (axes,) = panels(STEPS, [Panel("loss", {"a": lanes})]).axes
    assert axes.lines[0].get_xdata().tolist() == [0, 10]
    assert np.isnan(axes.lines[0].get_ydata()).tolist() == [False, True]


@pytest.mark.parametrize(("top", "labels"), [(50.0, {"2", "5", "20"}), (1e6, set())])
def test_few_decades_have_labels_between_the_powers_of_ten(top, labels):
    (axes,) = panels(STEPS, [Panel("loss", {"a": [[1.0, 10.0, top]]}, log=True)]).axes
    found = {label.get_text() for label in axes.get_yticklabels()}
    assert labels <= found
    assert labels or not found & {"2", "20"}


def test_bands_are_those_of_learning_curves_and_what_all_show_is_at_the_left():
    lanes = np.arange(9.0)[:, None] + np.ones(3)
    left, right = panels(STEPS, [Panel("one", {"a": lanes}), Panel("two", {"a": lanes})], ylabel="loss (nats)").axes
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (3.0, 7.0)
    assert "line: median, band: quartiles of 9 seeds" in left.get_xlabel()
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss (nats)", "")


def test_the_legend_says_what_a_line_across_is_and_stays_within_the_figure():
    names = [f"optimizer {i} with a name" for i in range(7)]
    curves = {name: [[1.0, 2.0, 3.0]] for name in names}
    levels = [Panel(str(i), curves, level=2.0, level_label="the limit") for i in range(2)]
    figure = panels(STEPS, levels, columns=2)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*names, "the limit"]
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
