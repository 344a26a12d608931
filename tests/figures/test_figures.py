"""Figures hold what they are given: axes, labels, legends, data; and refuse what cannot be drawn."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from jaxopt_study import figures, problems

STEPS = np.array([0, 10, 20, 30])


def runs(ends, seeds=3):
    return {
        name: np.linspace(2.0, end, len(STEPS)) * (1 + 0.1 * np.arange(seeds)[:, None]) for name, end in ends.items()
    }


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_curve_is_the_median_in_a_band_and_the_legend_lists_the_best_first():
    curves = runs({"slow": 1.0, "fast": 0.1})
    figure = figures.learning_curves(STEPS, curves, ylabel="loss (nats)", title="a title", log=True)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "loss (nats)"
    assert "range of 3 seeds" in axes.get_xlabel()
    assert axes.get_title(loc="left") == "a title"
    assert legend_texts(figure) == ["fast", "slow"]
    line = axes.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), STEPS)
    np.testing.assert_allclose(line.get_ydata(), np.median(curves["slow"], axis=0))
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(curves["slow"].min())
    assert band[:, 1].max() == pytest.approx(curves["slow"].max())


def test_many_seeds_get_quartiles():
    values = np.arange(9.0)[:, None] + np.zeros(len(STEPS))
    figure = figures.learning_curves(STEPS, {"a": values}, ylabel="loss")
    assert "quartiles of 9 seeds" in figure.axes[0].get_xlabel()
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (2.0, 6.0)


def test_accuracies_list_the_largest_first():
    curves = {"bad": np.full((2, 4), 0.2), "good": np.full((2, 4), 0.9)}
    figure = figures.learning_curves(STEPS, curves, ylabel="accuracy", larger_is_better=True, largest=1.0)
    assert legend_texts(figure) == ["good", "bad"]
    assert figure.axes[0].get_ylim()[1] == 1.0


def test_a_diverged_seed_ends_the_curve_with_a_cross_and_is_counted_and_listed_last():
    curves = runs({"lost": 0.1, "kept": 1.0})
    curves["lost"][1, 2:] = np.nan
    figure = figures.learning_curves(STEPS, curves, ylabel="loss")
    assert legend_texts(figure) == ["kept", "lost  (1 of 3 diverged)"]
    line, cross = figure.axes[0].lines[:2]
    assert line.get_xdata().tolist() == [0, 10]
    assert cross.get_marker() == "x"
    assert cross.get_xdata() == [10]


def test_a_run_without_a_finite_value_is_still_listed():
    figure = figures.learning_curves(STEPS, {"a": np.full((2, 4), np.nan)}, ylabel="loss", log=True)
    assert legend_texts(figure) == ["a  (2 of 2 diverged)"]
    assert figures.render(figure, dpi=30)


def test_an_exploding_curve_does_not_flatten_the_others():
    curves = runs({"a": 1.0}) | {"b": np.array([[2.0, 1e20, 1e30, 1e30]] * 3)}
    assert figures.learning_curves(STEPS, curves, ylabel="loss").axes[0].get_ylim()[1] < 10


@pytest.mark.parametrize("curves", [{}, {"a": np.zeros(4)}, {"a": np.zeros((2, 3))}])
def test_curves_of_the_wrong_shape_are_refused(curves):
    with pytest.raises(ValueError, match=r"at least one|needs the shape \(seeds, 4\)"):
        figures.learning_curves(STEPS, curves, ylabel="loss")


@pytest.fixture(scope="module")
def paths():
    t = np.linspace(0, 1, 5)[:, None]
    return {name: (1 - t) * np.array([-7.0, 2.0]) + t * end for name, end in (("a", 0.0), ("b", 1.0))}


def test_every_path_has_its_plane_with_contours_start_and_minimum(paths):
    figure = figures.trajectories(problems.planar.bowl(), paths, title="about")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a   f = 0", "b   f = 1.05"]
    for axes, path in zip(figure.axes, paths.values(), strict=True):
        np.testing.assert_allclose(axes.lines[0].get_xydata(), path)
        assert len(axes.collections[0].get_paths()) >= 10  # contours
        marked = [tuple(line.get_xydata()[0]) for line in axes.lines[1:]]
        assert marked == [(0.0, 0.0), (-7.0, 2.0)]
        assert axes.get_xlim() == (-10, 10)
    assert figure.axes[0].get_xlabel() == "x"
    assert figure.axes[0].get_ylabel() == "y"
    assert legend_texts(figure) == ["start", "minimum"]


def test_paths_together_share_one_plane_and_a_legend(paths):
    figure = figures.trajectories(problems.planar.bowl(), paths, together=True)
    (axes,) = figure.axes
    assert legend_texts(figure) == ["start", "minimum", "a", "b"]
    looks = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert {line.get_linestyle() for line in figure.legends[0].get_lines()[2:]} == {looks["a"], looks["b"]} == {"-"}
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert -9 < left < -7 < 1 < right < 3  # the paths end at x = 1, the domain at 10
    assert -1 < bottom < 0 < 2 < top < 3


def test_seven_paths_leave_the_last_of_eight_places_to_the_legend_and_rows_stay_close(paths):
    seven = {str(i): paths["a"] for i in range(7)}
    figure = figures.trajectories(problems.planar.bowl(), seven, rates={"0": 0.95, "6": 1e-3})
    shown = figure.axes[:7]
    assert [axes.get_subplotspec().colspan.start for axes in shown] == [0, 1, 2, 3, 0, 1, 2]
    assert [shown[i].get_title(loc="left")[:7] for i in (0, 1, 6)] == ["0 0.95 ", "1   f =", "6 0.001"]
    assert figure.axes[7].get_legend() is not None
    figures.render(figure, dpi=30)
    above, below = shown[3].get_position(), shown[4].get_position()
    assert above.y0 - below.y1 < 0.4 * above.height  # ticks of the fourth take no room between the rows


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_any_number_of_paths_fits(paths, count):
    many = {str(i): paths["a"] for i in range(count)}
    figure = figures.trajectories(problems.planar.bowl(), many)
    shown = [axes for axes in figure.axes if axes.lines]
    assert len(shown) == count
    assert all(axes.get_xlabel() == "x" for axes in shown[-3:])
    assert shown[0].get_ylabel() == "y"


@pytest.mark.parametrize("name", list(problems.planar.all_problems()))
def test_every_planar_problem_can_be_drawn(name):
    problem = problems.planar.all_problems()[name]()
    start = np.asarray(problem.metadata["start"])
    figure = figures.trajectories(problem, {"a": np.stack([start, start])}, together=True)
    assert figures.render(figure, dpi=40).startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused(paths):
    bowl = problems.planar.bowl()
    with pytest.raises(ValueError, match="at least one path"):
        figures.trajectories(bowl, {})
    with pytest.raises(ValueError, match=r"the shape \(points, 2\)"):
        figures.trajectories(bowl, {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="no domain"):
        figures.race_animation(bowl.replace(domain=None), paths)


def test_the_animation_moves_and_stays_at_its_end(paths):
    gif = Image.open(io.BytesIO(figures.race_animation(problems.planar.bowl(), paths, dpi=50, seconds=1.0)))
    assert gif.n_frames == 5
    pictures, durations = [], []
    for frame in range(gif.n_frames):
        gif.seek(frame)
        pictures.append(np.asarray(gif.convert("RGB"), dtype=int))
        durations.append(gif.info["duration"])
    assert all((a != b).any() for a, b in itertools.pairwise(pictures))
    assert durations[:-1] == [200] * 4
    assert durations[-1] == 2200
    assert (pictures[0] == 255).all(axis=-1).mean() > 0.5  # white paper stays white


def test_looks_are_the_same_in_every_figure_and_differ_beyond_colour():
    looks = figures.appearances(["a", "b", "c"])
    assert looks == figures.appearances(["a", "b", "c"])
    assert len({look.marker for look in looks.values()}) == len({str(look.linestyle) for look in looks.values()}) == 3


def test_the_notes_optimizers_look_the_same_in_whichever_company():
    alone, spelt, all_of_them = (
        figures.appearances(names)
        for names in (
            ["mine", "adam"],
            ["SGD", "Heavy ball, optimal", "Adam 0.012"],
            ["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "mine", "yours"],
        )
    )
    assert alone["adam"] == spelt["Adam 0.012"] == all_of_them["adam"]
    rates = figures.appearances(["Adam 0.1", "Adam 0.2", "SGD"])  # what differs is not the optimizer
    assert list(rates.values()) == list(figures.appearances(["a", "b", "c"]).values())
    assert spelt["SGD"] == all_of_them["sgd"]
    assert alone["mine"] == spelt["Heavy ball, optimal"] == all_of_them["mine"]
    assert len({(look.color, look.linestyle) for look in all_of_them.values()}) == 9
    assert len({look.color for look in list(all_of_them.values())[:8]}) == 8
    assert len({look.marker for look in all_of_them.values()}) == 9
    many = figures.appearances(["sgd", *map(str, range(32))])
    assert len({(look.color, look.linestyle) for look in many.values()}) == 33


def test_a_response_over_seeds_is_the_median_in_a_band_and_of_one_run_only_a_line():
    lanes = np.array([[1.0, 2.0, 8.0, 1.0], [3.0, 4.0, np.inf, 1.0], [2.0, 9.0, 9.0, 4.0]])
    figure = figures.response(STEPS, {"a": lanes, "b": lanes[0]}, xlabel="rate", ylabel="loss")
    (axes,) = figure.axes
    several, single = axes.lines
    np.testing.assert_allclose(several.get_ydata(), [2.0, 4.0, np.nan, 1.0])
    np.testing.assert_allclose(single.get_ydata(), lanes[0])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 9.0)
    assert axes.get_xlabel() == "rate   (line: median, band: range of 3 seeds)"
    many = figures.response([1, 2], {"a": np.arange(9.0)[:, None] + np.zeros(2)}, xlabel="rate", ylabel="loss").axes[0]
    heights = many.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (2.0, 6.0)
    assert "quartiles of 9 seeds" in many.get_xlabel()
    assert figures.response([1, 2], {"a": [1, 2]}, xlabel="rate", ylabel="loss").axes[0].get_xlabel() == "rate"
    for wrong in ([[1.0, 2.0]], np.ones((1, 1, 4)), np.ones((0, 4))):
        with pytest.raises(ValueError, match="one value per x"):
            figures.response(STEPS, {"a": wrong}, xlabel="rate", ylabel="loss")
