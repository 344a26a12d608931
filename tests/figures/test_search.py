"""Figures of a search show every trial, which may be the best, where the range ends, and what diverged."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxopt_study import figures
from jaxopt_study.figures._hyperparameters import CHOSEN, EDGE, MAYBE

RATES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
SCORES = np.array([3.0, 2.0, 1.0, 1.1, np.nan])
MAYBE_BEST = np.array([False, False, True, True, False])
OPTIONS = {
    "rate": RATES,
    "activation": ["tanh", "relu", "relu", "tanh", "relu"],
    "momentum": [0.1, None, 0.5, 0.9, 0.2],
}
SEARCH = {
    "chosen": 2, "maybe_best": MAYBE_BEST, "log": ["rate"], "ranges": {"rate": (1e-4, 1.0), "momentum": (0.0, 0.9)},
}  # fmt: skip


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def points(axes):
    return [tuple(map(float, p)) for collection in axes.collections for p in getattr(collection, "get_offsets", list)()]


def test_every_trial_is_a_point_the_chosen_a_star_and_the_diverged_a_cross_at_the_frame():
    figure = figures.hyperparameter_scatter(OPTIONS, SCORES, ylabel="loss (nats)", title="a title", **SEARCH)
    rate, activation, momentum = figure.axes
    assert sorted(points(rate)) == [(1e-4, 3.0), (1e-3, 2.0), (1e-2, 1.0), (1e-1, 1.1)]
    assert (rate.get_xscale(), momentum.get_xscale()) == ("log", "linear")
    assert [axes.get_xlabel() for axes in figure.axes] == ["rate", "activation", "momentum"]
    assert rate.get_ylabel() == "loss (nats)"
    crosses, star = rate.lines[0], rate.lines[1]
    assert (crosses.get_marker(), list(crosses.get_xdata())) == ("x", [1.0])
    assert (star.get_marker(), star.get_xydata().tolist()) == ("*", [[1e-2, 1.0]])
    assert [tick.get_text() for tick in activation.get_xticklabels()] == ["relu", "tanh"]
    assert sorted(round(x) for x, _ in points(activation)) == [0, 0, 1, 1]
    assert sorted(points(momentum)) == [(0.1, 3.0), (0.5, 1.0), (0.9, 1.1)]  # where it is inactive there is no point
    assert legend(figure) == ["chosen", "may be the best", "worse", "where the best may lie", "diverged"]
    assert "no other trial is shown to be better" in figure.legends[0].get_title().get_text().replace("\n", " ")
    assert rate.get_ylim()[1] < 4


def test_the_region_of_the_best_is_shaded_and_an_end_of_the_range_flagged():
    figure = figures.hyperparameter_scatter(OPTIONS, SCORES, ylabel="loss", edges={"rate": "high"}, **SEARCH)
    rate, activation, momentum = figure.axes
    (shade,) = rate.patches
    np.testing.assert_allclose((shade.get_x(), shade.get_x() + shade.get_width()), (1e-2, 1e-1))
    assert not activation.patches
    title = rate.title if rate.get_title() else rate._left_title
    assert title.get_text() == "rate: at the upper end of its range"
    assert to_hex(title.get_color()) == EDGE.lower()
    assert any(to_hex(line.get_color()) == EDGE.lower() and line.get_xdata()[0] == 1.0 for line in rate.lines)
    assert not momentum.get_title(loc="left")
    assert legend(figure)[-1] == "end of the range: widen it"


def test_intervals_are_drawn_and_those_of_hopeless_trials_do_not_flatten_the_rest():
    low, high = SCORES - 0.2, SCORES + 0.3
    high[0] = 1e6
    figure = figures.hyperparameter_scatter({"rate": RATES}, SCORES, ylabel="loss", intervals=(low, high), **SEARCH)
    (axes,) = figure.axes
    segments = [segment for lines in axes.collections for segment in getattr(lines, "get_segments", list)()]
    assert [0.8, 1.3] in [segment[:, 1].round(6).tolist() for segment in segments]
    assert len(segments) == 4
    assert axes.get_ylim()[1] < 10
    assert "95% interval" in legend(figure)


def test_every_trial_is_a_line_across_the_axes_and_the_chosen_one_is_in_front():
    figure = figures.parallel_coordinates(OPTIONS, SCORES, score_label="loss", edges={"rate": "low"}, **SEARCH)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(lines) == len(SCORES)
    (front,) = [line for line in lines if line.get_color() == CHOSEN]
    assert front.get_zorder() == max(line.get_zorder() for line in lines)
    assert sum(line.get_color() == MAYBE for line in lines) == 1
    heights = np.array(sorted(line.get_ydata()[0] for line in lines))
    np.testing.assert_allclose(np.diff(heights), np.diff(heights)[0])  # five decades apart, on a logarithmic axis
    assert sorted(np.isnan(line.get_ydata()).sum() for line in lines) == [0, 0, 0, 1, 1]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "rate:\nlower end",
        "activation",
        "momentum",
        "loss",
    ]
    assert {"relu", "tanh", "0.001"} <= {text.get_text() for text in axes.texts}


@pytest.mark.parametrize("draw", [
    lambda values, scores, **options: figures.hyperparameter_scatter(values, scores, ylabel="loss", **options),
    lambda values, scores, **options: figures.parallel_coordinates(values, scores, score_label="loss", **options),
])  # fmt: skip
def test_any_search_can_be_drawn_and_what_is_none_is_refused(draw):
    for values, scores in (
        ({"a": [1.0]}, [2.0]), ({"a": [1.0, 1.0]}, [np.nan, np.inf]), ({"a": [None, None]}, [1.0, 1.0]),
        ({"a": [True, False], "b": [1, 1]}, [0.0, 0.0]),
    ):  # fmt: skip
        assert figures.render(draw(values, scores), dpi=20)
    for values, scores in (({}, [1.0]), ({"a": []}, []), ({"a": [1.0]}, [1.0, 2.0]), ({"a": [1.0]}, [[1.0]])):
        with pytest.raises(ValueError, match=r"one per trial|at least one hyperparameter|one or more numbers"):
            draw(values, scores)
    with pytest.raises(ValueError, match="maybe_best"):
        draw({"a": [1.0]}, [1.0], maybe_best=[True, False])


STEPS = np.array([0, 10, 20, 30])


def test_the_top_trials_share_one_axes_and_the_best_shows_its_training_too():
    rng = np.random.default_rng(0)
    train, validation = rng.uniform(1, 2, size=(2, 7, 3, 4))
    validation[2, 1, 2:] = np.nan
    titles = [f"{i}: rate" for i in range(1, 8)]
    figure = figures.top_curves(STEPS, train, validation, titles=titles, ylabel="loss", title="top")
    (axes,) = figure.axes
    assert legend(figure) == [*titles[:5], titles[6], f"training, {titles[0]}"]
    assert "1 more" in figure.legends[0].get_title().get_text()
    named = {line.get_label(): line for line in axes.lines}
    for i, title in enumerate(titles):
        if title in named:
            seen = np.isfinite(validation[i]).all(axis=0)
            np.testing.assert_allclose(named[title].get_ydata()[seen], np.median(validation[i], axis=0)[seen])
    np.testing.assert_allclose(named[f"training, {titles[0]}"].get_ydata(), np.median(train[0], axis=0))
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (validation[0].min(), validation[0].max())
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xdata().tolist() for line in crosses] == [[10]]
    assert "range of 3 seeds" in axes.get_xlabel()
    assert axes.get_ylabel() == "loss"


def test_one_trial_one_seed_and_no_training_curve_can_be_drawn():
    figure = figures.top_curves([0], None, np.ones((1, 1, 1)), titles=["1"], ylabel="loss", log=True)
    assert figure.axes[0].get_xlabel() == "step"
    assert legend(figure) == ["1"]
    assert figures.render(figure, dpi=20)


@pytest.mark.parametrize(("train", "titles"), [(np.ones((2, 1, 3)), ["1", "2"]), (np.ones((2, 1, 4)), ["1"])])
def test_top_curves_of_the_wrong_shape_are_refused(train, titles):
    with pytest.raises(ValueError, match=r"shape \(trials, seeds, 4\)|a title per trial"):
        figures.top_curves(STEPS, train, np.ones((2, 1, 4)), titles=titles, ylabel="loss")


def test_budget_curves_have_bands_where_both_ends_are_bounded_and_a_line_where_one_is():
    k = np.array([1, 2, 5, 20])
    estimate, upper = np.array([4.0, 3.0, 2.0, 1.0]), np.array([5.0, 4.0, 3.0, 2.5])
    lower = np.array([3.0, 2.0, -np.inf, -np.inf])
    figure = figures.budget_curves(
        k, {"a": (estimate, lower, upper), "b": (estimate + 1, estimate, estimate + 2)}, ylabel="loss (nats)", level=0.9
    )
    (axes,) = figure.axes
    assert legend(figure) == ["a", "b", "90% interval", "its only known end"]
    named = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(named["a"].get_ydata(), estimate)
    bars = [sorted(line.get_ydata()) for line in axes.lines if line.get_color() == named["a"].get_color()]
    bars = [bar for bar in bars if len(bar) == 2]
    assert [3.0, 5.0] in bars  # at k = 1
    assert [1.0, 2.5] in bars  # at the last k, from the estimate to its only known end
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "random trials k"
    assert axes.get_ylim()[0] > 0


def test_budget_curves_may_be_infinite_and_may_not_have_another_length():
    infinite = ([np.inf, 1.0], [-np.inf, -np.inf], [np.inf, np.inf])
    figure = figures.budget_curves([1, 2], {"a": infinite}, ylabel="loss", log=True)
    assert figures.render(figure, dpi=20)
    assert figure.axes[0].get_xscale() == "linear"
    assert figures.render(figures.budget_curves([1], {"a": ([1.0], [0.5], [2.0])}, ylabel="loss"), dpi=20)
    with pytest.raises(ValueError, match="three arrays"):
        figures.budget_curves([1, 2], {"a": ([1.0], [1.0], [1.0])}, ylabel="loss")
    with pytest.raises(ValueError, match="at least one curve"):
        figures.budget_curves([1, 2], {}, ylabel="loss")


def test_of_few_trials_the_legend_tells_what_is_drawn_and_ticks_are_whole():
    open_ended = ([3.0, 2.0, 1.0], [-np.inf] * 3, [np.inf, 4.0, 3.0])
    nothing = ([3.0, 2.0, 1.0], [-np.inf] * 3, [np.inf] * 3)
    one = figures.budget_curves([1, 2, 3], {"sgd": open_ended}, ylabel="loss")
    assert legend(one) == ["sgd", "only known end of\nthe 95% interval"]
    none = figures.budget_curves([1, 2, 3], {"sgd": nothing}, ylabel="loss")
    assert legend(none) == ["sgd"]
    assert [tick for tick in none.axes[0].get_xticks() if 1 <= tick <= 3] == [1, 2, 3]


def test_numbers_to_choose_from_are_options_and_integers_have_whole_ticks():
    values = {"width": [32, 64, 64, 32], "depth": [1, 2, 3, 2], "batch": [16, 16, 64, 256]}
    shared = {
        "chosen": 2, "choices": {"width": (32, 64, 128)}, "ranges": {"depth": (1, 3), "batch": (16, 256)},
        "log": ["batch"],
    }  # fmt: skip
    scatter = figures.hyperparameter_scatter(values, [1.0, 2.0, 0.5, 3.0], ylabel="loss", **shared)
    width, depth, batch = scatter.axes
    assert [tick.get_text() for tick in width.get_xticklabels()] == ["32", "64", "128"]
    assert (width.get_xlim(), width.get_xscale()) == ((-0.5, 2.5), "linear")
    assert list(depth.get_xticks()) == [1, 2, 3]
    assert depth.get_xlim()[0] < 1 < 3 < depth.get_xlim()[1]
    assert all(tick == int(tick) for tick in batch.get_xticks())
    figure = figures.parallel_coordinates(values, [1.0, 2.0, 0.5, 3.0], score_label="loss", **shared)
    (axes,) = figure.axes
    labels = [text for text in axes.texts if text.xy[0] in {0, 1}]
    assert [text.get_text() for text in labels] == ["32", "64", "128", "1", "2", "3"]
    assert min(text.get_zorder() for text in labels) > max(line.get_zorder() for line in axes.lines)
