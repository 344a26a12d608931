"""Spaces: every dimension maps the unit interval to its values and back, and a space that cannot be is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_study.sweeps import Conditional, Space, choices, conditional, integers, log_uniform, uniform

DIMENSIONS = [
    uniform(-3.0, 5.0),
    uniform(-1.7e308, 1.7e308),
    log_uniform(1e-8, 1e2),
    log_uniform(1e-300, 1.7e308),
    integers(-4, 9),
    integers(7, 7),
    integers(-(2**31), 2**31 - 1),
    integers(1, 64, log=True),
    integers(1, 2**31 - 1, log=True),
    choices("relu", None, (64, 64), 3),
    choices(0.9, 0.99, 0.999),
    choices("only"),
    conditional(log_uniform(0.1, 10.0), on="other", equals=1),
]
ids = pytest.mark.parametrize("dimension", DIMENSIONS, ids=repr)
unit = st.floats(0.0, 1.0)


@ids
@given(u=unit)
@settings(max_examples=50, deadline=None)
def test_a_value_comes_back_from_its_coordinate(dimension, u):
    value = dimension.at(u)
    again = dimension.at(dimension.unit(value))
    kind, low, high = (dimension.describe().get(part) for part in ("kind", "low", "high"))
    if kind == "uniform":
        assert low <= value <= high
        np.testing.assert_allclose(again, value, rtol=0, atol=1e-15 * max(-low, high))
    elif kind == "log_uniform":
        assert low <= value <= high
        np.testing.assert_allclose(again, value, rtol=1e-15 * (1 + abs(np.log(low)) + abs(np.log(high))))
    else:
        assert again == pytest.approx(value, rel=1e-14) if kind == "conditional" else again == value


@ids
def test_an_array_gives_what_its_elements_give(dimension):
    u = np.random.default_rng(0).random((3, 2))
    values = dimension.at(u)
    assert values.shape == (3, 2)
    assert values.tolist() == [[dimension.at(float(x)) for x in row] for row in u]
    if values.dtype != object:
        np.testing.assert_array_equal(dimension.unit(values), [[dimension.unit(x.item()) for x in r] for r in values])


@ids
def test_both_ends_of_the_interval_are_the_ends_of_the_range_exactly(dimension):
    description = dimension.describe()
    description = description.get("dimension", description)
    first, last = (description["options"][i] if "options" in description else description[k]
                   for i, k in ((0, "low"), (-1, "high")))  # fmt: skip
    assert [dimension.at(0), dimension.at(1.0)] == [first, last]


@ids
def test_coordinates_outside_the_interval_are_refused(dimension):
    for wrong in (-1e-9, 1.0000001, math.nan, np.array([0.5, math.inf])):
        with pytest.raises(ValueError, match=r"in \[0, 1\]; received"):
            dimension.at(wrong)


@ids
def test_a_description_is_json_and_tells_dimensions_apart(dimension):
    text = json.dumps(dimension.describe(), sort_keys=True)
    assert sum(text == json.dumps(other.describe(), sort_keys=True) for other in DIMENSIONS) == 1


def test_integers_own_equal_cells_and_on_a_log_scale_cells_of_equal_ratio():
    u = (np.arange(600_000) + 0.5) / 600_000
    _, counts = np.unique(integers(-2, 3).at(u), return_counts=True)
    assert counts.tolist() == [100_000] * 6
    numbers, counts = np.unique(integers(1, 8, log=True).at(u), return_counts=True)
    expected = np.log((numbers + 0.5) / (numbers - 0.5)) / np.log(8.5 / 0.5)
    np.testing.assert_allclose(counts / len(u), expected, atol=5e-6)


def test_values_are_python_values():
    for dimension, kind in [(uniform(0, 1), float), (integers(0, 3), int), (integers(1, 3, log=True), int)]:
        assert type(dimension.at(0.3)) is kind
    (config,) = Space({"a": uniform(0, 1), "b": integers(0, 3), "c": choices(np.float32(0.5))}).at(np.full((1, 3), 0.3))
    assert [type(value) for value in config.values()] == [float, int, float]
    assert choices([1, 2], [3]).at(0.0) == (1, 2)


def test_floats_are_traced_and_what_shapes_the_program_is_static():
    expected = {
        uniform(0, 1): False, log_uniform(1, 2): False, integers(0, 1): True, integers(0, 1, static=False): False,
        choices(0.1, 0.2): False, choices(0.1, 0.2, static=True): True, choices(1, 2): True,
        choices(1, 2, static=False): False, choices(0.1, 2): True, choices("a"): True, choices(True, False): True,
        conditional(integers(0, 1), on="a", equals=1): True, conditional(uniform(0, 1), on="a", equals=1): False,
    }  # fmt: skip
    assert {dimension: dimension.static for dimension in expected} == expected


def test_an_edge_is_told_with_its_side():
    rate = log_uniform(1e-4, 1.0)
    assert [rate.edge(x) for x in (1e-4, 1.5e-4, 1e-2, 0.7, 1.0)] == ["low", "low", None, "high", "high"]
    assert [rate.edge(x, margin=0.0) for x in (1e-4, 1.5e-4, 1.0)] == ["low", None, "high"]
    assert rate.edge(float(np.float32(1e-4))) == "low"  # rounded to just below the range
    assert [integers(1, 4).edge(k) for k in (1, 2, 3, 4)] == ["low", None, None, "high"]
    assert [integers(0, 100).edge(k) for k in (0, 4, 5, 96)] == ["low", "low", None, "high"]
    assert integers(3, 3).edge(3) is None
    assert choices("a", "b").edge("a") is None
    assert conditional(rate, on="a", equals=1).edge(1.0) == "high"
    with pytest.raises(ValueError, match="margin"):
        rate.edge(0.1, margin=0.5)


@pytest.mark.parametrize(
    ("dimension", "value"),
    [
        (uniform(0, 1), 1.1), (uniform(0, 1), math.nan), (log_uniform(1, 2), 0.0), (log_uniform(1, 2), -1.0),
        (integers(0, 3), 4), (integers(0, 3), 1.5), (integers(1, 3, log=True), 0), (choices("a", "b"), "c"),
    ],
)  # fmt: skip
def test_a_value_that_never_occurs_has_no_coordinate(dimension, value):
    with pytest.raises(ValueError, match=r"Expected .* received"):
        dimension.unit(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(1, 1), "finite low < high, received 1.0 and 1.0"),
        (lambda: uniform(2, 1), "low < high"),
        (lambda: uniform(0, math.inf), "finite"),
        (lambda: uniform(math.nan, 1), "finite"),
        (lambda: log_uniform(0, 1), "low > 0, received 0.0; for ranges with 0 use `uniform`"),
        (lambda: log_uniform(-1, 1), "low > 0"),
        (lambda: log_uniform(1, 1), "low < high"),
        (lambda: integers(2, 1), "low ≤ high, received 2 and 1"),
        (lambda: integers(0, 2**31), "32-bit integers"),
        (lambda: integers(0, 4, log=True), "low ≥ 1, received 0"),
        (lambda: choices(), "at least one option"),
        (lambda: choices("a", "b", "a"), "received 'a' twice"),
        (lambda: choices(1, 1.0), "received 1.0 twice"),
        (lambda: choices(math.nan), "received nan"),
        (lambda: choices(math.sin), "Use names"),
        (lambda: choices((1, math.sin), 2), "Use names"),
        (
            lambda: choices([16, 64]),
            r"separate arguments, as in choices\(16, 64\); received the single list \[16, 64\]",
        ),
        (lambda: choices((16, 64)), "as separate arguments"),
        (lambda: choices(range(3)), r"choices\(\*range\(0, 3\)\)"),
        (lambda: choices("a", "b", static=False), "static=False"),
        (lambda: choices(1, 0.5, static=False), "floats or 32-bit integers"),
        (lambda: choices(True, False, static=False), "Leave out static=False"),
        (lambda: choices(1, 2**31, static=False), "32-bit integers"),
        (lambda: conditional(conditional(uniform(0, 1), on="a", equals=1), on="b", equals=1), "make 'a' conditional"),
    ],
)
def test_a_dimension_that_cannot_be_is_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_the_names_whose_conditions_hold_are_in_a_configuration():
    space = Space({
        "b2": conditional(uniform(0.9, 1.0), on="method", equals="adam"),
        "amsgrad": conditional(choices(True, False), on="method", equals="adam"),
        "start": conditional(log_uniform(1e-3, 1.0), on="amsgrad", equals=True),
        "method": choices("sgd", "adam"),
        "lr": log_uniform(1e-4, 1.0),
    })  # fmt: skip
    assert list(space) == ["method", "b2", "amsgrad", "start", "lr"]
    nan = math.nan
    points = np.array([[0.1, nan, nan, nan, 0.5], [0.9, 0.5, 0.1, 1.0, 0.5], [0.9, 0.5, 0.9, nan, 0.5]])
    configs = space.at(points)
    assert configs == [
        {"method": "sgd", "lr": pytest.approx(0.01)},
        {"method": "adam", "b2": 0.95, "amsgrad": True, "start": 1.0, "lr": pytest.approx(0.01)},
        {"method": "adam", "b2": 0.95, "amsgrad": False, "lr": pytest.approx(0.01)},
    ]
    again = space.unit(configs)
    np.testing.assert_array_equal(np.isnan(again), np.isnan(points))
    assert space.at(again) == configs
    assert json.loads(json.dumps(space.describe())) == space.describe()


def test_a_name_that_exists_needs_a_coordinate():
    space = Space({"method": choices("sgd", "adam"), "b2": conditional(uniform(0, 1), on="method", equals="adam")})
    with pytest.raises(ValueError, match="b2: Expected unit coordinates"):
        space.at(np.array([[0.9, np.nan]]))
    with pytest.raises(ValueError, match=r"shape \(n, 2\); received \(3,\)"):
        space.at(np.zeros(3))
    with pytest.raises(ValueError, match=r"Configuration 1: expected the names \['b2', 'method'\]"):
        space.unit([{"method": "sgd"}, {"method": "adam"}])
    with pytest.raises(ValueError, match="Configuration 0, b2: Expected a value"):
        space.unit([{"method": "adam", "b2": 2.0}])


a, b = choices(1, 2), uniform(0, 1)


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({}, "at least one dimension"),
        ({"learning rate": a}, "'learning rate'"),
        ({"2lr": a}, "'2lr'"),
        ({"lambda": a}, "'lambda'"),
        ({"x.": a}, "'x.'"),
        ({"": a}, "received ''"),
        ({"a": a, "c": conditional(b, on="d", equals=1)}, r"one of \['a', 'c'\]; received 'd'"),
        ({"c": conditional(b, on="c", equals=1)}, "on itself"),
        ({"a": a, "c": conditional(b, on="a", equals=3)}, "'a' is never 3"),
        ({"a": integers(0, 4), "c": conditional(b, on="a", equals="x")}, "'a' is never 'x'"),
        ({"a": b, "c": conditional(b, on="a", equals=0.5)}, "continuous"),
        ({"c": conditional(a, on="d", equals=1), "d": conditional(a, on="e", equals=1),
          "e": conditional(a, on="c", equals=1), "f": conditional(a, on="c", equals=1)}, "cyclic; .* c → d → e → c"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused(dimensions, message):
    with pytest.raises(ValueError, match=message):
        Space(dimensions)


def test_a_fixed_value_is_not_a_dimension():
    with pytest.raises(TypeError, match=r"lr: expected a dimension .* received 0.1"):
        Space({"lr": 0.1})


def test_paths_and_patterns_of_an_expression_are_names():
    names = ["heavy_ball.decay", "chain[1].decay", "*.decay", "decay", "*"]
    assert list(Space(dict.fromkeys(names, a))) == names


def test_the_description_tells_another_order_of_names_which_gives_other_points():
    one, other = Space({"a": a, "b": b}), Space({"b": b, "a": a})
    assert one.describe() != other.describe()
    assert one.at(np.array([[0.1, 0.9]])) != other.at(np.array([[0.1, 0.9]]))


def test_a_space_is_a_mapping_of_its_dimensions():
    space = Space({"a": a, "b": b})
    assert dict(space) == {"a": a, "b": b}
    assert space == Space({"a": a, "b": b})
    assert not isinstance(space["a"], Conditional)
    assert "Uniform(low=0.0, high=1.0, static=False)" in repr(space)
