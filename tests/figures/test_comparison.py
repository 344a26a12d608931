"""Figures of a comparison show both rankings, every difference, and what is not known."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxopt_study import figures
from jaxopt_study.figures._comparison import TINTS
from tests.test_results import sweep

DEFAULT = (
    {"sgd": [3.0, 3.2], "adam": [1.0, 1.2], "rmsprop": [np.nan, np.nan]},
    {"sgd": (3.1, 2.5, 3.5), "adam": (1.1, 0.9, 1.3), "rmsprop": (np.inf, np.inf, np.inf)},
)
TUNED = (
    {"sgd": [0.8, 0.9], "adam": [1.0, np.inf], "rmsprop": [1.5, 1.6]},
    {"sgd": (0.85, 0.7, 1.0), "adam": (1.0, -np.inf, np.inf), "rmsprop": (1.55, 1.4, 1.7)},
)


def names_from_the_top(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_both_rankings_have_the_best_on_top_on_one_scale():
    figure = figures.comparison(DEFAULT, TUNED, xlabel="loss (nats)", log=True, title="a title")
    left, right = figure.axes
    assert names_from_the_top(left) == ["1  adam", "1  sgd", "1  rmsprop"]  # two seeds tell nothing apart
    assert names_from_the_top(right) == ["1  sgd", "1  adam", "1  rmsprop"]
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert left.get_xscale() == "log"
    assert left.get_xlabel().startswith("loss (nats)   (95% intervals)\nrank: 1 + the number shown to be better")
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("as recommended", "tuned")
    assert not figure.artists  # no line from rank to rank
    colours = {line.get_color() for axes in figure.axes for line in axes.lines}
    assert len(colours) == 3


def test_what_cannot_be_told_apart_shares_a_rank_and_only_a_proved_reversal_has_lines():
    noise = 0.01 * np.random.default_rng(0).normal(size=(4, 12))
    before = dict(zip("abcd", noise + np.array([[1.0], [2.0], [2.001], [3.0]]), strict=True))
    after = dict(zip("abcd", noise[::-1] + np.array([[2.0], [1.0], [1.001], [3.0]]), strict=True))
    middles = lambda of: {name: (np.median(values), *np.quantile(values, [0, 1])) for name, values in of.items()}
    sides = [({name: list(values) for name, values in of.items()}, middles(of)) for of in (before, after)]
    figure = figures.comparison(*sides, xlabel="loss")
    left, right = figure.axes
    ranks = [{text[3:]: text[0] for text in names_from_the_top(axes)} for axes in (left, right)]
    assert ranks == [{"a": "1", "b": "2", "c": "2", "d": "4"}, {"b": "1", "c": "1", "a": "3", "d": "4"}]
    heights = sorted((line.xy1[1], line.xy2[1]) for line in figure.artists)
    assert heights == [(0.0, 2.0), (1.5, 0.5), (1.5, 0.5)]  # a falls behind b and c, which begin and end together


def test_a_comparison_and_its_differences_are_drawn_as_they_are():
    found = sweep(False)["ablation"].comparison
    figure = figures.comparison(found, xlabel="loss")
    assert len(names_from_the_top(figure.axes[0])) == len(found.candidates)
    paired = found.differences(None, "default")
    one = figures.difference_matrix(paired, unit="loss")
    two = figures.difference_matrix(
        paired.names, paired.estimate, paired.lower, paired.upper, paired.better, unit="loss"
    )
    assert figures.render(one, dpi=30) == figures.render(two, dpi=30)


def test_larger_scores_can_be_better():
    figure = figures.comparison(TUNED, TUNED, xlabel="accuracy", larger_is_better=True)
    assert names_from_the_top(figure.axes[0]) == ["1  rmsprop", "1  adam", "1  sgd"]


def test_intervals_and_seeds_are_where_they_were_measured_and_open_ends_are_arrows():
    left, right = figures.comparison(DEFAULT, TUNED, xlabel="loss").axes
    bars = {tuple(line.get_ydata()): line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2}
    np.testing.assert_allclose(bars[0, 0], (0.9, 1.3))
    seeds = [line.get_xdata().tolist() for line in left.lines if line.get_marker() == "."]
    assert [1.0, 1.2] in seeds
    arrows = [(line.get_marker(), line.get_xdata()[0]) for line in right.lines if line.get_marker() in "<>"]
    assert arrows == [("<", right.get_xlim()[0]), (">", right.get_xlim()[1])]
    assert {text.get_text() for text in left.texts} == {"2 of 2 diverged"}
    assert {text.get_text() for text in right.texts} == {"1 of 2 diverged"}
    assert [line.get_marker() for line in left.lines if line.get_marker() in "<>"] == [">", ">"]


def test_a_comparison_of_different_names_is_refused():
    with pytest.raises(ValueError, match="the same names"):
        figures.comparison(DEFAULT, ({"sgd": [1.0]}, {"sgd": (1.0, 1.0, 1.0)}), xlabel="loss")
    with pytest.raises(ValueError, match="at least one"):
        figures.comparison(({}, {}), ({}, {}), xlabel="loss")
    wrong = ({"a": [1.0]}, {"a": (1.0, 2.0, 3.0)})
    with pytest.raises(ValueError, match="lower ≤ estimate ≤ upper"):
        figures.comparison(wrong, wrong, xlabel="loss")


def test_every_difference_has_its_cell_coloured_by_who_is_better():
    estimate = np.array([[0.0, -1.5, 0.25], [1.5, 0.0, np.inf], [-0.25, -np.inf, 0.0]])
    better = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])
    figure = figures.difference_matrix(["a", "b", "c"], estimate, estimate - 1, estimate + 1, better, unit="loss")
    (axes,) = figure.axes
    tints = {
        (round(p.get_x() + 0.47), round(p.get_y() + 0.45)): to_hex(p.get_facecolor()).upper() for p in axes.patches
    }
    assert tints == {(j, i): TINTS[int(better[i, j])] for i in range(3) for j in range(3) if i != j}
    texts = {(round(t.get_position()[0]), t.get_position()[1]): t.get_text() for t in axes.texts}
    assert texts[1, -0.14] == "−1.5"
    assert texts[1, 0.2] == "−2.5 … −0.5"
    assert texts[2, 0.86] == "+∞"
    assert axes.get_xlabel() == "row − column: loss\ncoloured where the interval leaves out 0 (95% for all together)"
    assert len(figure.legends[0].get_texts()) == 3
    assert figures.render(figure, dpi=20)


def test_a_narrow_interval_has_digits_that_tell_its_ends_apart():
    one = np.array([[0.0, 0.0030215], [-0.0030215, 0.0]])
    figure = figures.difference_matrix(["a", "b"], one, one - 5e-7, one + 5e-7, np.sign(one), unit="loss")
    assert [text.get_text() for text in figure.axes[0].texts[:2]] == ["+0.003021", "+0.003021 … +0.003022"]


def test_matrices_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="2 × 2 matrices"):
        figures.difference_matrix(["a", "b"], *(np.zeros((3, 3)),) * 4, unit="loss")
    with pytest.raises(ValueError, match="at least two names"):
        figures.difference_matrix(["a"], *(np.zeros((1, 1)),) * 4, unit="loss")


def test_profiles_are_right_continuous_steps_from_one_on():
    figure = figures.performance_profiles(
        [1.0, 2.0, 8.0], {"a": [0.2, 0.5, 1.0], "b": [0.8, 0.8, 0.8]}, num_problems=5, xlabel="steps / fewest steps"
    )
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]
    (line,) = [line for line in axes.lines if line.get_label() == "a"]
    assert line.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.5, 1.0, 1.0])
    assert (axes.get_xlim()[0], axes.get_xscale()) == (1.0, "log")
    assert axes.get_xlim()[1] > 8.0
    assert axes.get_xlabel() == "τ: steps / fewest steps, at most"
    assert figures.render(figures.performance_profiles([1.0], {"a": [1.0]}), dpi=20)
    with pytest.raises(ValueError, match="a share per factor"):
        figures.performance_profiles([1.0], {"a": [1.0, 1.0]})
    with pytest.raises(ValueError, match="a share per factor"):
        figures.performance_profiles([1.0], {})


def test_contributions_are_filled_where_they_leave_out_zero():
    rows = [(0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.1, -0.1, 0.3), (np.inf, 0.2, np.inf)]
    figure = figures.ablation(["a", "b", "c", "d"], rows, xlabel="change of the loss", better=("better", "worse"))
    (axes,) = figure.axes
    assert names_from_the_top(axes) == ["a", "b", "c", "d"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    dots = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}
    assert {int(y): line.get_xdata()[0] for y, line in dots.items()} == {0: 0.2, 1: -0.2, 2: 0.1}
    faces = [dots[y].get_markerfacecolor() for y in (0, 1, 2)]
    assert faces[2] == "white"
    assert len(set(faces)) == 3
    zero = [line for line in axes.lines if list(line.get_xdata()) == [0.0, 0.0]]
    assert len(zero) == 1
    assert {text.get_text() for text in axes.texts} == {"← better", "worse →", "∞"}
    assert axes.get_xlabel() == "change of the loss   (95% intervals)"
    assert figures.render(figure, dpi=20)


def test_long_names_of_parts_leave_room_for_the_axes():
    name = "without chain(ema(0.9999, of=jnp.square), bias_correction(0.9999)) (second moment)"
    figure = figures.ablation([name, "b"], [(0.1, 0.0, 0.2)] * 2, xlabel="loss", better=("better", "worse"))
    figures.render(figure, dpi=20)
    assert figure.axes[0].get_position().width > 0.5
    assert names_from_the_top(figure.axes[0])[0].replace("\n", " ") == name


def test_ablations_without_rows_or_names_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        figures.ablation([], [], xlabel="loss")
    with pytest.raises(ValueError, match="for each of 2 names"):
        figures.ablation(["a", "b"], [(0.0, 0.0, 0.0)], xlabel="loss")
    nothing = figures.ablation(["a"], [(np.nan, np.nan, np.nan)], xlabel="loss")
    assert not [line for line in nothing.axes[0].lines if line.get_marker() == "o"]


def test_what_was_not_run_has_no_rank_no_link_and_leaves_the_ranks_of_the_others():
    nan = (np.nan, np.nan, np.nan)
    default = (DEFAULT[0] | {"mine": []}, DEFAULT[1] | {"mine": nan})
    tuned = (TUNED[0] | {"mine": [0.1, 0.2]}, TUNED[1] | {"mine": (0.15, 0.1, 0.2)})
    figure = figures.comparison(default, tuned, xlabel="loss")
    left, right = figure.axes
    assert names_from_the_top(left) == ["1  adam", "1  sgd", "1  rmsprop", "–  mine"]
    assert names_from_the_top(right) == ["1  mine", "1  sgd", "1  adam", "1  rmsprop"]
    assert [text.get_position()[1] for text in left.texts if text.get_text() == "not run"] == [3]
    assert not [line for line in left.lines if 3 in line.get_ydata()]
    assert left.get_ylim() == right.get_ylim()


def test_residues_of_single_precision_are_no_differences():
    one = np.array([[0.0, 6e-9], [-6e-9, 0.0]])
    wide = np.array([[0.0, 0.011], [0.002, 0.0]])
    (axes,) = figures.difference_matrix(["a", "b"], one, -wide.T, wide, 0 * one, unit="accuracy").axes
    assert [text.get_text() for text in axes.texts] == ["0", "−0.002 … +0.011", "0", "−0.011 … +0.002"]
    assert "leaves out 0 (95% for all together)" in axes.get_xlabel()


def test_an_axis_that_is_linear_near_zero_only_says_so():
    figure = figures.ablation(["a", "b"], [(0.1, 0.0, 0.2), (50.0, 40.0, 60.0)], xlabel="loss", linear_within=0.1)
    assert figure.axes[0].get_xlabel() == "loss\n(95% intervals; axis linear within ±0.1, then logarithmic)"
