"""Curvature along runs: three panels, of which two have a level at 1."""

import numpy as np
import pytest

from jaxopt_study import figures


def probed(steps, *, limit=2.0, seeds=2):
    """Measurements of which the panels show 3 + t, (1 + t)/limit and 1 + t/100, the same in every seed."""
    t = np.broadcast_to(np.asarray(steps, dtype=float), (seeds, len(steps)))
    predicted = {"linear": -2 * np.ones_like(t), "quadratic": np.ones_like(t)}
    eigenvalues = np.stack([3 + t, np.ones_like(t)], axis=-1)
    return predicted | {
        "step": steps, "limit": limit, "eigenvalues": eigenvalues, "gain_sharpness": 1 + t, "realised": -(1 + t / 100)
    }  # fmt: skip


def test_the_panels_show_sharpness_its_ratio_to_the_limit_and_the_account_of_the_step():
    figure = figures.curvature_along_runs({"a": probed([0, 10, 20]), "b": probed([0, 10, 20], limit=4.0)}, title="two")
    sharp, edge, account = figure.axes
    for axes, expected in ((sharp, [3, 13, 23]), (edge, [0.5, 5.5, 10.5]), (account, [1.0, 1.1, 1.2])):
        np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)
        assert "2 seeds" in axes.get_xlabel()
    np.testing.assert_allclose(edge.lines[1].get_ydata(), [0.25, 2.75, 5.25])
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]
    for axes, levels in ((sharp, []), (edge, [1.0]), (account, [1.0])):
        assert [line.get_ydata()[0] for line in axes.lines[2:]] == levels
    told = ["a", "b", "1: edge of stability; change as predicted"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == told
    assert edge.get_title(loc="left") == "preconditioned sharpness / limit"
    assert account.get_ylim() == (-1.0, 3.0)


def test_steps_at_which_nothing_was_measured_are_passed_over_and_may_differ():
    every, other = probed([0, 1, 2, 3, 4]), probed([0, 3, 6])
    every["eigenvalues"][:, 1::2] = np.nan
    every["realised"][0, 2:] = np.nan  # one seed has diverged
    sharp, edge, account = figures.curvature_along_runs({"a": every, "b": other}).axes
    assert sharp.lines[0].get_xdata().tolist() == [0, 2, 4]
    assert np.isfinite(sharp.lines[0].get_ydata()).all()
    assert edge.lines[0].get_xdata().tolist() == [0, 1, 2, 3, 4]
    assert edge.lines[1].get_xdata().tolist() == [0, 3, 6]
    assert np.isnan(account.lines[0].get_ydata()).tolist() == [False, False, True, True, True]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one optimizer"):
        figures.curvature_along_runs({})


def test_an_optimizer_without_a_stability_limit_is_named():
    figure = figures.curvature_along_runs({"a": probed([0, 1]), "b": probed([0, 1], limit=np.nan)}, title="two")
    assert figure.get_suptitle() == "two\nno single stability limit: b"
    assert figures.curvature_along_runs({"a": probed([0, 1])}, title="one").get_suptitle() == "one"
