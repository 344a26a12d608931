"""The figure of a spectrum holds every number with its error, and chooses axes on which they can be read."""

import matplotlib
import numpy as np
import pytest

from jaxopt_study import figures
from jaxopt_study.figures._style import SETTINGS

GRID = np.linspace(-1.0, 1.0, 101)
WIDTH = 0.1
SIZE = 1000


def results(outliers=(50.0, 20.0), **changes):
    density = np.exp(-0.5 * (GRID / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi))
    found = {
        "eigenpairs": {
            "values": [-0.5, 20.0, 50.0], "residuals": [0.2, 0.01, 0.01], "converged": [False, True, True]
        },
        "sharpness": {"lower": 49.0, "upper": 51.0, "confidence": 0.99},
        "spectral_density": {
            "grid": GRID, "density": density, "density_error": 0.1 * density, "kernel_width": WIDTH, "size": SIZE,
            "outliers": {"values": list(outliers)},
        },
        "gradient": {"gg": 4.0, "ghg": 8.0, "ghg_error": 0.1},
    }  # fmt: skip
    return found | changes


def labels(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend is not None for text in legend.get_texts()]


def panels(figure):
    ends, density, *rest = figure.axes
    return density, ends, *rest


def test_density_outliers_pairs_and_bracket_are_where_they_were_measured():
    figure = figures.spectrum(results(), title="a title", edge=100.0, edge_label="edge of sgd: 100")
    density, ends, parabola, _ = panels(figure)
    assert density.get_title(loc="left") == "a title"
    assert density.get_yscale() == "log"
    single = 1 / (SIZE * WIDTH * np.sqrt(2 * np.pi))
    curve, outliers = density.lines[:2]
    assert np.nanmax(curve.get_ydata()) == pytest.approx(1 / (WIDTH * np.sqrt(2 * np.pi)))
    np.testing.assert_array_equal(outliers.get_xdata(), [50.0, 20.0])
    np.testing.assert_allclose(outliers.get_ydata(), single)
    band = density.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.2 / (WIDTH * np.sqrt(2 * np.pi)))
    solid, hollow, bracket = ends.containers
    np.testing.assert_array_equal(solid.lines[0].get_xdata(), [20.0, 50.0])
    np.testing.assert_array_equal(hollow.lines[0].get_xdata(), [-0.5])
    np.testing.assert_allclose(hollow.lines[2][0].get_segments()[0][:, 0], [-0.7, -0.3])
    np.testing.assert_allclose(bracket.lines[2][0].get_segments()[0][:, 0], [49.0, 51.0])
    assert [text.get_text() for text in ends.texts] == ["49 to 51"]
    for axes in (density, ends):
        assert [100.0] * 2 in [list(line.get_xdata()) for line in axes.lines]
    assert "edge of sgd: 100" in labels(figure)
    assert "eigenpairs that did not converge" in labels(figure)
    assert f"σ = {WIDTH}" in density.get_ylabel()
    assert parabola.get_xlabel() == "step ε"


@pytest.mark.parametrize(("outliers", "scale"), [((50.0, 20.0), "symlog"), ((), "linear")])
def test_a_spectrum_much_wider_than_its_bulk_gets_a_logarithmic_axis(outliers, scale):
    pairs = {"values": [-0.5, *outliers], "residuals": [0.1] * (1 + len(outliers)), "converged": [True] * 3}
    pairs["converged"] = pairs["converged"][: len(pairs["values"])]
    found = results(outliers, eigenpairs=pairs)
    del found["sharpness"]
    density, ends, *_ = panels(figures.spectrum(found))
    assert ends.get_xscale() == density.get_xscale() == scale
    low, high = ends.get_xlim()
    assert low < -0.5
    assert max([0.3, *outliers]) < high
    assert ("linear within" in ends.get_xlabel()) == (scale == "symlog")
    assert (0.0 in ends.get_xticks()) or scale == "linear"


def test_an_edge_that_is_infinite_is_not_drawn():
    figure = figures.spectrum(results(), edge=np.inf, edge_label="edge")
    assert "edge" in labels(figures.spectrum(results(), edge=10**30, edge_label="edge"))
    assert "edge" not in labels(figure)
    assert np.isfinite(panels(figure)[0].get_xlim()).all()


def test_what_was_not_measured_is_left_out():
    found = results()
    del found["gradient"], found["spectral_density"], found["sharpness"]
    density, ends = panels(figures.spectrum(found))
    assert [text.get_text() for text in density.texts] == ["no spectral density"]
    assert [tick.get_text() for tick in ends.get_yticklabels()] == ["eigenpairs"]
    with pytest.raises(ValueError, match="received neither"):
        figures.spectrum({})


def test_a_density_of_nan_does_not_hide_the_rest():
    found = results()
    found["spectral_density"] |= {"density": np.full(101, np.nan), "density_error": np.full(101, np.nan)}
    density, ends, *_ = panels(figures.spectrum(found))
    assert [text.get_text() for text in density.texts] == ["no spectral density"]
    assert len(ends.containers) == 3


def drawn(ghg, rate=None, gg=4.0):
    found = results(gradient={"gg": gg, "ghg": ghg, "ghg_error": 0.0})
    with matplotlib.rc_context(SETTINGS):
        return panels(figures.spectrum(found, rate=rate))[2]


def test_the_parabola_has_its_lowest_point_at_the_cauchy_step():
    axes = drawn(8.0, rate=0.25)
    marks = {
        tuple(map(float, (*line.get_xdata(), *line.get_ydata()))) for line in axes.lines if len(line.get_xdata()) == 1
    }
    assert marks == {(0.5, -1.0), (1.0, 0.0)}
    texts = " ".join(text.get_text() for text in axes.texts)
    assert "Cauchy step\n0.5" in texts
    assert "rises beyond 1" in texts
    assert "one step: 0.25" in texts
    model = next(line for line in axes.lines if len(line.get_xdata()) == 200 and line.get_ydata()[-1] > 0)
    assert model.get_ydata().min() == pytest.approx(-1.0, rel=1e-3)


@pytest.mark.parametrize("ghg", [0.0, -8.0])
def test_without_positive_curvature_there_is_no_cauchy_step(ghg):
    axes = drawn(ghg)
    assert [text.get_text() for text in axes.texts] == ["slope alone"]


@pytest.mark.parametrize("gg", [0.0, np.nan])
def test_without_a_gradient_there_is_no_parabola(gg):
    axes = drawn(8.0, gg=gg)
    assert [text.get_text() for text in axes.texts] == ["no gradient here"]


def test_small_changes_are_counted_in_powers_of_ten():
    axes = drawn(8e-6, gg=4e-6)
    assert axes.get_ylabel() == "change of the loss   ($10^{-6}$)"
    assert axes.get_ylim()[0] == pytest.approx(-1.5)


def test_eigenpairs_that_cannot_be_told_apart_are_drawn_as_such():
    pairs = {"values": [-0.5, -0.45, 20.0], "residuals": [0.04, 0.04, 0.01], "converged": [True] * 3}
    figure = figures.spectrum(results(eigenpairs=pairs))
    solid, grey, _ = panels(figure)[1].containers
    np.testing.assert_array_equal(solid.lines[0].get_xdata(), [20.0])
    np.testing.assert_array_equal(grey.lines[0].get_xdata(), [-0.5, -0.45])
    assert solid.lines[0].get_markerfacecolor() != grey.lines[0].get_markerfacecolor()
    assert "eigenpairs ± residual, not resolved" in labels(figure)


def test_the_number_of_negative_eigenvalues_is_a_range_where_it_is_only_bounded():
    def title(interval, **index):
        index |= {"interval": interval, "tau": 2e-5}
        return panels(figures.spectrum(results(classification={"index": index}), title="a"))[0].get_title(loc="left")

    assert title([178.1, 17002.9], confidence=0.95) == "a\neigenvalues below −2.0e-05: 178 to 17,003 (95%)"
    assert title(np.array([3.0, 3.0]), confidence=None) == "a\neigenvalues below −2.0e-05: 3"


def test_the_ends_of_a_narrow_bracket_are_told_apart():
    found = results(sharpness={"lower": 50.0001, "upper": 50.0002, "confidence": 0.99})
    assert [text.get_text() for text in panels(figures.spectrum(found))[1].texts] == ["50.0001 to 50.0002"]


def test_the_longest_legend_stays_within_the_figure():
    pairs = {
        "values": [-0.5, -0.1, -0.1, 20.0], "residuals": [0.2, 0.1, 0.1, 0.01], "converged": [False, True, True, True]
    }  # fmt: skip
    figure = figures.spectrum(results(eigenpairs=pairs), edge=100.0)
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    assert len(legend.get_texts()) == 8
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert figure.bbox.y0 <= box.y0
    assert box.x1 <= figure.bbox.x1
