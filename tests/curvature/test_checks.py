"""Checks of arguments of solvers: before anything is compiled, with what was expected, received, and to do."""

from inspect import unwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import curvature
from jaxopt_study.curvature import from_matrix

KEY = jax.random.key(0)
OP = from_matrix(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
# Without the types that these tests check at run time: users get to the functions' own checks.
audit, eigenpairs, sharpness, spectral_density, trace, diagonal, log_det, condition_number, ill_conditioning = map(
    unwrap,
    [
        curvature.audit, curvature.eigenpairs, curvature.sharpness, curvature.spectral_density, curvature.trace,
        curvature.diagonal, curvature.log_det, curvature.condition_number, curvature.ill_conditioning,
    ],
)  # fmt: skip
morse_index, classify_point, find_critical_point, cross_check, noise_floor = map(
    unwrap,
    [
        curvature.morse_index, curvature.classify_point, curvature.find_critical_point, curvature.cross_check,
        curvature.noise_floor,
    ],
)  # fmt: skip


def squares(params, batch):
    return jnp.sum(params**2)


SOLVERS = {
    "audit": audit,
    "eigenpairs": lambda op, key, k=1, **options: eigenpairs(op, k, key=key, **options),
    "sharpness": sharpness,
    "spectral_density": spectral_density,
    "trace": trace,
    "diagonal": diagonal,
    "log_det": log_det,
    "morse_index": lambda op, key, **options: morse_index(op, key=key, **options),
    "condition_number": condition_number,
    "ill_conditioning": lambda op, key, k=1, **options: ill_conditioning(op, jnp.ones(3), k=k, key=key, **options),
    "find_critical_point": lambda op, key, **options: find_critical_point(
        squares, jnp.full(3, 0.01), key=key, **options
    ),
    "classify_point": lambda op, key, **options: classify_point(squares, jnp.full(3, 0.01), key=key, **options),
}
OF_LOSSES = ["find_critical_point", "classify_point"]
OF_OPERATORS = [name for name in SOLVERS if name not in OF_LOSSES]
OF_TOLERANCES = ["eigenpairs", "sharpness", "spectral_density", "condition_number", "ill_conditioning", *OF_LOSSES]


@pytest.mark.parametrize("name", OF_OPERATORS)
@pytest.mark.parametrize(
    ("wrong", "received"),
    [
        (jnp.eye(3), r"an array float32\[3, 3\]"),
        (lambda v: v, "the function <lambda>"),
        ({"w": 1.0}, "a dict"),
        (None, "None"),
    ],
)
def test_what_is_no_operator_is_refused_with_how_to_make_one(name, wrong, received):
    with pytest.raises(TypeError, match=f"{name} needs an operator; received {received}. Make one with from_matrix"):
        SOLVERS[name](wrong, key=KEY)


def test_the_functions_without_a_key_refuse_what_is_no_operator():
    density = spectral_density(OP, num_probes=2, num_steps=2, key=KEY)
    with pytest.raises(TypeError, match="cross_check needs an operator; received an array"):
        cross_check(jnp.eye(3), density)
    with pytest.raises(TypeError, match="noise_floor needs an operator; received an array"):
        noise_floor(jnp.eye(3))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (0, TypeError, r"a random key of JAX; received 0. Give jax.random.key\(0\)"),
        (np.zeros(2), TypeError, r"received an array float64\[2\]"),
        (jax.random.split(KEY, 3), ValueError, r"one key; received an array of keys of shape \(3,\)"),
        (np.zeros((3, 2), np.uint32), ValueError, r"one key; .* of shape \(3, 2\)"),
    ],
)
def test_what_is_no_key_is_refused(name, wrong, error, message):
    with pytest.raises(error, match=f"^{name} needs .*{message}"):
        SOLVERS[name](OP, key=wrong)


def test_a_solver_that_needs_a_key_says_so_where_none_is_given():
    with pytest.raises(TypeError, match=r"sharpness needs key to be a random key of JAX; received None"):
        sharpness(OP, key=None)


def test_the_older_keys_and_the_integers_of_numpy_will_do():
    pairs = eigenpairs(OP, np.int64(1), key=jax.random.PRNGKey(0))
    np.testing.assert_allclose(pairs.values, [3], rtol=1e-5)
    assert eigenpairs(OP, 1, tol=np.float32(1e-3), key=KEY).converged.all()


@pytest.mark.parametrize("name", ["eigenpairs", "ill_conditioning"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (2.0, "received 2.0. Give 2."),
        (2.5, "received 2.5"),
        (True, "received True"),
        ("2", "received '2'"),
        (None, "received None"),
        (jnp.float32(2), r"received 2.0, an array float32\[\]"),
    ],
)
def test_a_count_that_is_no_integer_is_refused(name, wrong, message):
    with pytest.raises(TypeError, match=f"{name} needs k to be an integer from . to 3; {message}"):
        SOLVERS[name](OP, key=KEY, k=wrong)


@pytest.mark.parametrize("argument", ["num_basis", "max_matvecs", "block_size"])
def test_other_counts_of_eigenpairs_are_checked_as_well(argument):
    with pytest.raises(TypeError, match=f"eigenpairs needs {argument} to be an integer .*; received 10.0. Give 10"):
        eigenpairs(OP, 1, key=KEY, **{argument: 10.0})


@pytest.mark.parametrize("name", OF_TOLERANCES)
def test_a_tolerance_below_the_noise_floor_is_refused_wherever_one_is_taken(name):
    with pytest.raises(ValueError, match=r"tol must be at least .*noise floor, .*; received 1e-09. Ask for"):
        SOLVERS[name](OP, key=KEY, tol=1e-9)
    with pytest.raises(ValueError, match=r"tol must be at least .*noise floor, .*; received 0.01. Ask for"):
        SOLVERS[name](OP, key=KEY, tol=0.01, noise_floor=0.05)
    # An error of 0.3 leaves no tolerance that could be met and says anything: no advice to ask for more than the norm.
    with pytest.raises(
        ValueError, match=r"convert the parameters to float32.*noise_floor=audit\(op\).noise_floor|0.25\)"
    ):
        SOLVERS[name](OP, key=KEY, tol=0.01, noise_floor=0.3)
    for wrong in (float("nan"), float("inf"), -1.0, 0.0, 1.0, 2):
        with pytest.raises(ValueError, match=rf"{name} needs tol to be a real number in \(0, 1\); received {wrong}"):
            SOLVERS[name](OP, key=KEY, tol=wrong)


@pytest.mark.parametrize("name", OF_TOLERANCES)
def test_a_tolerance_that_is_no_number_is_refused(name):
    with pytest.raises(TypeError, match=rf"{name} needs tol to be a real number in \(0, 1\); received 'tight'"):
        SOLVERS[name](OP, key=KEY, tol="tight")


@pytest.mark.parametrize("name", OF_LOSSES)
@pytest.mark.parametrize("argument", ["gradient_tol", "flatness"])
def test_the_other_tolerances_of_a_point_are_positive_numbers(name, argument):
    with pytest.raises(TypeError, match=f"{name} needs {argument} to be a finite real number > 0; received 'tight'"):
        SOLVERS[name](OP, key=KEY, **{argument: "tight"})
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(
            ValueError, match=f"{name} needs {argument} to be a finite real number > 0; received {wrong}"
        ):
            SOLVERS[name](OP, key=KEY, **{argument: wrong})


def test_a_default_tolerance_gives_way_to_the_noise_floor():
    density = spectral_density(OP, num_probes=2, num_steps=2, key=KEY, noise_floor=0.01)
    assert density.finite
    searches = [SOLVERS["find_critical_point"](OP, key=KEY, noise_floor=floor) for floor in (None, 0.05)]
    assert [int(found.num_steps) for found in searches] == [1, 0]
    assert all(found.success for found in searches)


def test_a_tolerance_on_the_gradient_itself_is_the_users_own():
    found = SOLVERS["find_critical_point"](OP, key=KEY, gradient_tol=1e-12, noise_floor=0.05)
    assert found.success


def test_what_is_traced_is_not_checked():
    def solve(op, key, tol):
        return eigenpairs(op, 1, key=key).values, SOLVERS["find_critical_point"](op, key=key, tol=tol).gradient_norm

    values, norm = jax.jit(solve)(OP, KEY, 1e-3)
    np.testing.assert_allclose(values, [3], rtol=1e-5)
    assert norm < 1e-2


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in {"audit", "trace", "diagonal"}])
@pytest.mark.parametrize("wrong", [-1, -1e-9, 1.0, 2.0, float("inf"), float("nan"), "low", None])
def test_a_noise_floor_is_a_share_of_the_norm(name, wrong):
    if wrong is None:
        wrong, error = jnp.zeros(2), TypeError
    else:
        error = TypeError if isinstance(wrong, str) else ValueError
    with pytest.raises(error, match=rf"{name} needs noise_floor to be a real number in \[0, .*\); received"):
        SOLVERS[name](OP, key=KEY, noise_floor=wrong)


ABSURD = {
    "eigenpairs": [{"k": 0}, {"k": 4}, {"block_size": 0}, {"block_size": 4}, {"num_basis": 1}, {"max_matvecs": 1}],
    "sharpness": [{"confidence": x} for x in (0, 1, 2, -1, float("nan"))] + [{"max_matvecs": 1}],
    "morse_index": [{"confidence": x} for x in (0.0, 1, 2, float("nan"))]
    + [{"num_basis": 0}, {"block_size": 0}, {"num_probes": 1}, {"num_steps": 0}, {"max_dense": -1}, {"tau": -1}],
    "condition_number": [{"max_matvecs": 3}, {"num_basis": 2}],
    "ill_conditioning": [{"k": 4}, {"k": -1}],
    "classify_point": [
        {"num_directions": 0},
        {"max_matvecs": 1},
        {"max_dense": -1},
        {"tau": float("inf")},
        {"tau": -1},
    ],
    "find_critical_point": [{"max_steps": 0}, {"num_basis": 0}, {"method": "newton"}, {"method": None}],
}


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name, several in ABSURD.items() for options in several]
)
def test_a_choice_out_of_range_is_refused_by_its_name(name, options):
    (argument,) = options
    with pytest.raises(ValueError, match=f"^{name} needs {argument} to be "):
        SOLVERS[name](OP, key=KEY, **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_no_advice_is_a_tolerance_that_says_nothing(dtype):
    half = from_matrix(jnp.eye(3, dtype=dtype))
    with pytest.raises(ValueError, match="noise floor") as refused:
        sharpness(half, key=KEY)
    advice = str(refused.value).split(". ", 1)[1]
    if dtype == "bfloat16":
        assert "convert the parameters to float32" in advice
        assert "noise_floor=audit(op).noise_floor" in advice
        assert sharpness(half, key=KEY, noise_floor=audit(half).noise_floor, tol=0.1).converged
    else:
        asked = float(advice.split("Ask for ")[1].split(",")[0])
        assert asked < 0.5
        assert sharpness(half, key=KEY, tol=asked).converged


def test_an_operator_without_coordinates_is_refused():
    empty = curvature.from_matvec(lambda v: v, jnp.zeros((0, 3)))
    for name in OF_OPERATORS:
        with pytest.raises(ValueError, match=f"{name} needs an operator of size n ≥ 1"):
            SOLVERS[name](empty, key=KEY)


def test_leaves_without_coordinates_change_nothing():
    d = {"a": jnp.array([3.0, 2.0, 1.0]), "b": jnp.zeros((0, 2))}
    op = curvature.from_matvec(lambda v: jax.tree.map(jnp.multiply, d, v), d)
    pairs = eigenpairs(op, 2, key=KEY)
    np.testing.assert_allclose(pairs.values, [3, 2], rtol=1e-5)
    assert pairs.vectors["b"].shape == (2, 0, 2)
    assert morse_index(op, key=KEY).estimate == 0
    assert audit(op).verdict == "sound"


def test_multiples_and_functions_are_checked_where_operators_are_made():
    for factor in (float("nan"), float("inf"), 1e39):
        with pytest.raises(ValueError, match=r"the factor to be a real number in .-3\.40282e.38, 3\.40282e.38."):
            factor * OP
    with pytest.raises(ValueError, match="nonzero"):
        OP / 0
    for factor in ("2", 1j, None, True):
        with pytest.raises(TypeError):
            OP * factor
    make = unwrap(curvature.from_matvec)
    with pytest.raises(TypeError, match="from_matvec needs matvec to be a function; received None"):
        make(None, jnp.zeros(2))
    with pytest.raises(TypeError, match=r"matvec must return a vector .* received 'text'"):
        make(lambda v: "text", jnp.zeros(2))
    for wrong in ("text", [[1.0, 2.0], [3.0]], None, OP):
        with pytest.raises(TypeError, match="from_matrix needs a square matrix of real numbers"):
            unwrap(from_matrix)(wrong)
    with pytest.raises(ValueError, match="hessian needs precision to be one of"):
        unwrap(curvature.hessian)(squares, jnp.ones(3), precision="low")
    with pytest.raises(TypeError, match="hessian needs remat to be True or False"):
        unwrap(curvature.hessian)(squares, jnp.ones(3), remat="yes")
    with pytest.raises(TypeError, match="audit needs double_precision to be True or False"):
        audit(OP, double_precision="yes")
    with pytest.raises(TypeError, match="of the preconditioner must be a real array; received 'text'"):
        OP.precondition("text")


def test_products_that_become_nan_are_flagged_everywhere():
    op = from_matrix(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    for broken in (
        curvature.from_matvec(lambda v: v * jnp.nan, jnp.zeros(3)),
        curvature.from_matvec(lambda v: jnp.where(v > 0, jnp.inf, v), jnp.zeros(3)),
    ):
        pairs = eigenpairs(broken, 2, key=KEY)
        assert np.isnan(pairs.values).all()
        assert not pairs.converged.any()
        bracket = sharpness(broken, key=KEY)
        assert np.isnan(bracket.upper)
        assert not bracket.converged
        assert np.isnan(morse_index(broken, key=KEY).estimate)
        assert condition_number(broken, key=KEY).verdict == "not finite"
        assert audit(broken).verdict == "unsound"
        assert not np.isfinite(ill_conditioning(broken, jnp.ones(3)).curvature)
    assert eigenpairs(op, 2, key=KEY).converged.all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("log_det", {"shift": 3_000_000_000}),
        ("spectral_density", {"kernel_width": 2**40}),
        ("classify_point", {"gradient_tol": 2**40}),
        ("find_critical_point", {"flatness": 2**40}),
    ],
)
@pytest.mark.parametrize("kind", [int, np.int64])
def test_real_numbers_may_be_integers_beyond_32_bits(name, options, kind):
    given, as_float = (
        SOLVERS[name](OP, key=KEY, **{option: convert(value) for option, value in options.items()})
        for convert in (kind, float)
    )
    assert repr(given) == repr(as_float)
