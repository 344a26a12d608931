"""Every public function is covariant under H → cH: what it says of an operator is as true of one in other units.

A row of the table runs a function for an operator, or a loss, of scale c, and says which power of c each field of the
result has. The rows' oracles are dense eigenvalues in double precision of the matrix at scale 1, to which the fields
are brought back. The scale is data, so that nothing is compiled twice.
"""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxopt_study import curvature
from jaxopt_study.curvature import (
    audit,
    blocks,
    classify_point,
    condition_number,
    cross_check,
    diagonal,
    eigenpairs,
    empirical_fisher,
    find_critical_point,
    from_matrix,
    from_matvec,
    ggn,
    hessian,
    ill_conditioning,
    log_det,
    morse_index,
    noise_floor,
    plane,
    principal_axes,
    random_direction,
    sharpness,
    spectral_density,
    split,
    trace,
)
from jaxopt_study.linalg import vectors

KEY = jax.random.key(0)
DECIMAL = [1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30]
BINARY = [2.0**-80, 2.0**-60, 2.0**60, 2.0**80]
TINY = float(jnp.finfo(jnp.float32).tiny)
N = 40


def symmetric(spectrum, seed=0):
    """A matrix in single precision, with the eigenvalues that it has in double precision."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum))))
    a = ((q * np.asarray(spectrum)) @ q.T).astype(np.float32)
    a = (a + a.T) / 2
    return a, np.linalg.eigvalsh(a.astype(np.float64))


A, VALUES = symmetric(np.r_[3.0, 2.0, 1.0, -2.5, np.linspace(-0.5, 0.5, N - 4)])
POSITIVE, POSITIVE_VALUES = symmetric(np.linspace(0.5, 4.0, N), seed=1)
LOW_RANK, LOW_RANK_VALUES = symmetric(np.r_[3.0, 2.0, -1.0, np.zeros(N - 3)], seed=2)
GRADIENT = np.random.default_rng(3).normal(size=N).astype(np.float32)
V = np.random.default_rng(4).normal(size=N).astype(np.float32)
X = np.random.default_rng(5).normal(size=(7, 3)).astype(np.float32)


def scaled(matrix, c):
    return from_matrix(jnp.asarray(matrix * np.float32(c)))


def multiply(matrix, v):
    return matrix @ v


class Row(NamedTuple):
    run: object  # c -> a pytree of numbers; strings have to be the same at every scale
    powers: dict  # path of a field, or of a part of the result -> the power of c that it has; 0 where it is not named
    holds: object  # the result at scale 1, in double precision -> None, with assertions
    rounded: tuple = ()  # fields that a scale is added to, or that are sums of terms which may be too small to be kept


def close(x, y, rtol=1e-5, atol=0.0):
    np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


# The operators themselves.


def products(op):
    return {"one": op @ V[: op.size], "dense": op.to_dense()}


def quadratic(params, batch):
    return 0.5 * batch["c"] * params @ (batch["a"] @ params)


def data(c, a=A):
    return {"c": jnp.float32(c), "a": jnp.asarray(a)}


def is_a(found):
    close(found["one"], A.astype(float) @ V, atol=1e-5)
    close(found["dense"], A, atol=1e-6)


def outputs(params, batch):
    return batch["x"] @ params


def of_outputs(f, batch):
    return batch["c"] * jnp.mean(f**2)


def is_gram(found):
    close(found["dense"], 2 * X.T.astype(float) @ X / len(X), atol=1e-5)


def is_moment(found):
    close(found["dense"], X.T.astype(float) @ X / len(X), atol=1e-5)


def slopes(params, batch):
    return batch["root"] * (batch["x"] @ params)


def examples(c):
    return {"x": jnp.asarray(X), "c": jnp.float32(c)}


# The solvers.


def pairs_of(which, k, **options):
    def run(c):
        pairs = eigenpairs(scaled(A, c), k, which=which, tol=1e-4, key=KEY, **options)
        return {"pairs": pairs, "relative": pairs.relative_residuals}

    def holds(found):
        pairs = found["pairs"]
        expected = {"LM": VALUES[np.argsort(-np.abs(VALUES))[:k]], "BE": VALUES[np.r_[: k // 2, -(k - k // 2) : 0]]}
        close(pairs.values, expected[which], rtol=1e-5)
        true = np.linalg.norm(A.astype(float) @ pairs.vectors.T - pairs.values * pairs.vectors.T, axis=0)
        close(pairs.residuals, true, atol=2e-6)
        close(found["relative"], pairs.residuals / pairs.scale)
        close(np.linalg.norm(pairs.vectors, axis=1), 1)
        assert pairs.converged.all()

    return Row(run, {"pairs.values": 1, "pairs.residuals": 1, "pairs.scale": 1}, holds)


def bracket(c):
    found = sharpness(scaled(A, c), key=KEY)
    return {"bracket": found, "rate": found.learning_rate}


def encloses(found):
    bracket = found["bracket"]
    assert bracket.lower <= VALUES[-1] <= bracket.upper <= 1.02 * bracket.lower
    assert bracket.converged
    true = A.astype(float) @ bracket.vector
    close(bracket.residual, np.linalg.norm(true - (bracket.vector @ true) * bracket.vector), atol=1e-5)
    assert found["rate"][0] <= 2 / VALUES[-1] <= found["rate"][1]


def ratio(c):
    found = condition_number(scaled(POSITIVE, c), key=KEY)
    return {"number": found, "verdict": found.verdict}


def is_ratio(found):
    number, kappa = found["number"], POSITIVE_VALUES[-1] / POSITIVE_VALUES[0]
    assert found["verdict"] == "determined"
    assert number.lower <= kappa <= number.upper
    close(number.value, kappa, 1e-4)
    close([number.largest, number.smallest], POSITIVE_VALUES[[-1, 0]], 1e-4)


def step_along(k):
    def run(c):
        found = ill_conditioning(scaled(A, c), jnp.asarray(GRADIENT), k=k, key=KEY)
        # With the gradient of the same loss; its square, and what else is of second order, may leave single precision.
        whole = ill_conditioning(scaled(A, c), jnp.asarray(np.float32(c) * GRADIENT), k=k, key=KEY)
        kept = ("curvature", "cauchy_step", "largest_step", "cosine", "negative", "top_share", "top_share_error")
        return {"one": found, "both": {name: getattr(whole, name) for name in ("gradient_norm", *kept)}}

    def holds(found):
        one, both = found["one"], found["both"]
        g = GRADIENT.astype(float)
        hg = A.astype(float) @ g
        close(one.gradient_norm, np.linalg.norm(g))
        close(both["gradient_norm"], np.linalg.norm(g))
        close([one.gg, one.ghg, one.hg_norm], [g @ g, g @ hg, np.linalg.norm(hg)], 1e-4)
        assert not one.negative
        for name, expected in [
            ("curvature", g @ hg / (g @ g)),
            ("cauchy_step", g @ g / (g @ hg)),
            ("largest_step", 2 * g @ g / (g @ hg)),
            ("cosine", g @ hg / np.linalg.norm(g) / np.linalg.norm(hg)),
        ]:
            close([getattr(one, name), both[name]], expected, 1e-4)
        if k:
            v = np.linalg.eigh(A.astype(float))[1][:, -k:]
            assert abs(one.top_share - np.sum((v.T @ g) ** 2) / (g @ g)) <= one.top_share_error + 1e-5
            close(one.top_values, VALUES[::-1][:k], 1e-5)

    powers = dict.fromkeys(("ghg", "ghg_error", "hg_norm", "curvature", "top_values"), 1)
    powers = {f"one.{name}": power for name, power in (powers | {"cauchy_step": -1, "largest_step": -1}).items()}
    powers |= {"both.gradient_norm": 1, "both.curvature": 1, "both.cauchy_step": -1, "both.largest_step": -1}
    return Row(run, powers, holds)


def index_by(matrix, values, resolution, **options):
    def run(c):
        return morse_index(scaled(matrix, c), key=KEY, **options)

    def holds(found):
        below, zero = np.sum(values < -1e-3), np.sum(np.abs(values) < 1e-3)
        assert found.interval[0] <= below <= found.interval[1]
        assert found.flat_interval[0] <= zero <= found.flat_interval[1]
        assert found.lower_bound <= below
        assert found.positive_lower_bound <= np.sum(values > 1e-3)
        assert found.resolution == resolution
        if found.resolution:
            close([found.estimate, found.flat], [below, zero])

    return Row(run, {"tau": 1, "error": 1, "scale": 1}, holds)


def audited(c):
    wrong = from_matvec(Partial(multiply, jnp.asarray(np.roll(A, 1, axis=0) * np.float32(c))), jnp.zeros(N))
    sound = audit(scaled(A, c), key=KEY, double_precision=c in {1e-30, 1e30})  # which compiles anew every time
    unsound = audit(wrong, key=KEY, double_precision=False)
    shown = ["norm", "symmetry", "linearity", "repeatability", "rounding", "noise_floor", "verdict"]
    return {
        "sound": {name: getattr(sound, name) for name in shown},
        "unsound": {"verdict": unsound.verdict, "symmetry": unsound.symmetry},
    }


def is_audit(found):
    sound, unsound = found["sound"], found["unsound"]
    assert sound["verdict"] == "sound"
    assert 0 < sound["noise_floor"] < 1e-5
    assert 0.5 * VALUES[-1] < sound["norm"] <= 1.001 * VALUES[-1]
    assert unsound["verdict"] == "unsound"
    assert unsound["symmetry"] > 0.1


# Points of a loss.


def landscape(params, batch):
    """½ Σ sᵢ pᵢ² + a p₀³/3 + b p₀, times c; one function for all kinds of points, so that one program serves all."""
    terms = 0.5 * jnp.sum(batch["s"] * params**2) + batch["a"] * params[0] ** 3 / 3 + batch["b"] * params[0]
    return batch["c"] * terms


def shape(c, s, a=0.0, b=0.0):
    return {"c": jnp.float32(c), "s": jnp.asarray(s, jnp.float32), "a": jnp.float32(a), "b": jnp.float32(b)}


SADDLE = {"s": (2, -2, 2), "a": 1}  # at 0; the gradient is 0 there, and at (-2, 0, 0)
FLAT = {"s": (0, 1, 1), "a": 1, "b": 1}  # the gradient (p₀² + 1, p₁, p₂) is shortest at 0, in the null space of H
START = jnp.array([0.3, -0.2, 0.1], jnp.float32)
POINTS = {
    "saddle": (SADDLE, jnp.zeros(3), [-2, 2, 2]),
    "minimum": ({"s": (3, 2, 4)}, jnp.zeros(3), [2, 3, 4]),
    "maximum": ({"s": (-3, -2, -4)}, jnp.zeros(3), [-4, -3, -2]),
    "degenerate": ({"s": (0, 2, 3), "a": 1}, jnp.zeros(3), [0, 2, 3]),
    "not critical": (SADDLE, START, [-2, 2, 2.6]),
    "gradient-flat": (FLAT, jnp.zeros(3), [0, 1, 1]),
}


def point(verdict):
    options, params, values = POINTS[verdict]
    values = np.array(values, float)

    def run(c):
        found = classify_point(landscape, params, shape(c, **options), key=KEY)
        return {"at": found, "verdict": found.verdict}

    def holds(found):
        at = found["at"]
        assert found["verdict"] == verdict
        close([at.smallest, at.largest], values[[0, -1]], atol=1e-5)
        assert at.bounds[0] <= values[0] + 1e-5
        assert values[-1] - 1e-5 <= at.bounds[1]
        assert at.index.estimate == np.sum(values < 0)
        assert at.index.flat == np.sum(values == 0)
        gradient = np.asarray(jax.grad(landscape)(params, shape(1, **options)), float)
        close(at.gradient_norm, np.linalg.norm(gradient))
        assert (at.gradient_norm <= at.gradient_tol) == (verdict not in {"not critical", "gradient-flat"})
        assert at.escape.seen == (verdict in {"saddle", "degenerate"})
        if at.escape.seen:
            there = params + at.escape.step * at.escape.direction
            close(at.escape.fall, -landscape(there, shape(1, **options)), 1e-4)

    return Row(run, OF_POINT, holds)


OF_POINT = dict.fromkeys(("value", "gradient_norm", "gradient_tol", "smallest", "largest", "residuals", "bounds"), 1)
OF_POINT |= {"index.tau": 1, "index.error": 1, "index.scale": 1, "escape.fall": 1, "escape.rounding": 1}
OF_POINT = {f"at.{name}": power for name, power in OF_POINT.items()}


def large_minimum():
    """Beyond `max_dense`, by brackets and random probes."""

    def run(c):
        found = classify_point(quadratic, jnp.zeros(N), data(c, POSITIVE), key=KEY, max_dense=8)
        return {"at": found, "verdict": found.verdict}

    def holds(found):
        at = found["at"]
        assert found["verdict"] == "minimum"
        close([at.smallest, at.largest], POSITIVE_VALUES[[0, -1]], 1e-3)
        assert at.bounds[0] <= POSITIVE_VALUES[0]
        assert POSITIVE_VALUES[-1] <= at.bounds[1]

    return Row(run, OF_POINT, holds)


def search(method):
    def run(c):
        return {
            "found": find_critical_point(landscape, START, shape(c, **SADDLE), method=method, key=KEY),
            "flat": find_critical_point(landscape, 2 * START, shape(c, **FLAT), method=method, key=KEY),
        }

    def holds(found):
        search, flat = found["found"], found["flat"]
        assert search.status == curvature.SearchStatus.CONVERGED
        close(search.params, np.zeros(3), atol=2e-3)
        assert flat.status == curvature.SearchStatus.GRADIENT_FLAT
        close(flat.gradient_norm, 1, 1e-3)

    names = ("value", "gradient_norm", "gradient_tol", "gradient_norms")
    return Row(run, {f"{case}.{name}": 1 for case in ("found", "flat") for name in names}, holds)


def saddle_free():
    def run(c):
        bowl = shape(c, (3, 2, 4), a=0.5)
        return {"found": find_critical_point(landscape, START, bowl, method="saddle-free-newton", key=KEY)}

    def holds(found):
        assert found["found"].status == curvature.SearchStatus.CONVERGED
        close(found["found"].params, np.zeros(3), atol=2e-3)

    return Row(run, {f"found.{x}": 1 for x in ("value", "gradient_norm", "gradient_tol", "gradient_norms")}, holds)


# Estimates.


def traced_by(function, expected):
    def run(c):
        return {
            "deflated": function(scaled(A, c), num_probes=8, rank=4, key=KEY),
            "plain": function(scaled(A, c), num_probes=30, rank=0, key=KEY),
        }

    def holds(found):
        for estimate in found.values():
            assert np.all(np.abs(estimate.value - expected) <= 6 * estimate.standard_error + 1e-5)
            assert np.all(estimate.standard_error > 0)

    powers = {f"{kind}.{name}": 1 for kind in ("deflated", "plain") for name in ("value", "standard_error")}
    return Row(run, powers, holds)


FEW = {"num_probes": 3, "num_steps": 12, "key": KEY}


def density_of(c):
    found = spectral_density(scaled(A, c), grid=jnp.asarray([-1.0, 0.1, 2.5], jnp.float32) * jnp.float32(c), **FEW)
    other = spectral_density(scaled(A, c), **FEW)
    return {
        "given": found._replace(keys=None),
        "own": {"grid": other.grid, "density": other.density, "kernel_width": other.kernel_width},
        "mean": found.expectation(jnp.abs),
    }


def is_density(found):
    given, own = found["given"], found["own"]
    shares = np.mean(VALUES[:, None] <= np.array([-1.0, 0.1, 2.5]), axis=0)
    assert np.all((given.cdf_lower <= shares + 1e-6) & (shares - 1e-6 <= given.cdf_upper))
    close(np.trapezoid(own["density"], own["grid"]) + np.nansum(given.outliers.weights), 1, 2e-2)
    assert given.finite
    mean = found["mean"]
    assert abs(mean.value - np.mean(np.abs(VALUES))) <= 6 * mean.standard_error


def log_det_of(c):
    found = log_det(scaled(POSITIVE, c), **FEW)
    return {"found": found._replace(value=None), "value": found.value - N * np.log(c)}


def is_log_det(found):
    error = 6 * found["found"].standard_error + 1e-3
    assert abs(found["value"] - np.sum(np.log(POSITIVE_VALUES))) <= error
    assert found["found"].positive
    assert found["found"].resolved


def checked(c):
    density = spectral_density(scaled(A, c), **FEW)
    right, wrong = (cross_check(scaled(A, factor * c), density, num_steps=8) for factor in (1, 1.1))
    return {"moments": right.moments, "agrees": right.agrees, "wrong": wrong.agrees}


def agrees(found):
    assert found["agrees"]
    assert not found["wrong"]


def curved_outputs(params, batch):
    return batch["x"] @ params + 0.5 * jnp.sum(params**2)


E0, E1 = np.eye(N, dtype=np.float32)[:2]


def path_of(c):
    found = curvature.path(quadratic, jnp.asarray(V), jnp.asarray(E0), data(c), steps=[-2.0, 1.0])
    return {"path": found._replace(steps=None)}


def is_path(found):
    found, dense, v = found["path"], A.astype(float), V.astype(float)
    points = [v - 2 * E0, v + E0]
    close(found.losses, [0.5 * p @ dense @ p for p in points], 1e-4)
    close(found.model, found.losses, 1e-4)
    close(found.slope, dense[0] @ v, 1e-4)
    close(found.curvature, dense[0, 0], 1e-4)


def plane_of(c):
    found = plane(quadratic, jnp.asarray(V), (jnp.asarray(E0), jnp.asarray(E1)), data(c), x=[-2.0, 1.0], y=[1.0])
    return {"plane": found._replace(x=None, y=None)}


def is_plane(found):
    found, dense, v = found["plane"], A.astype(float), V.astype(float)
    close(found.losses, [[0.5 * p @ dense @ p for p in (v - 2 * E0 + E1, v + E0 + E1)]], 1e-4)
    close(found.model, found.losses, 1e-4)
    close(found.curvatures, dense[:2, :2], 1e-4, 1e-6)


def directions_of(c):
    scale = np.float32(c)
    drawn = random_direction(jnp.asarray(X * scale), key=KEY)
    return {"drawn": drawn, "axes": principal_axes(jnp.asarray(X * scale), k=2)}


def are_directions(found):
    close(np.linalg.norm(found["drawn"], axis=0), np.linalg.norm(X.astype(float), axis=0))
    values = np.linalg.svd(X.astype(float) - X[-1].astype(float), compute_uv=False)
    close(found["axes"].explained, values[:2] ** 2 / np.sum(values**2))
    close(np.linalg.norm(found["axes"].coordinates, axis=0), values[:2])


WIDE = np.random.default_rng(6).normal(size=(7, N)).astype(np.float32)


def split_of(c):
    batch = {"x": jnp.asarray(WIDE), "c": jnp.float32(c)}
    arguments = curved_outputs, of_outputs, jnp.full(N, 0.1), batch
    return {
        "exact": split(*arguments, key=KEY),
        "probed": split(*arguments, key=KEY, num_probes=3, num_steps=10),
    }


def is_split(found):
    f = WIDE.astype(float) @ np.full(N, 0.1) + 0.005 * N
    jacobian = WIDE.astype(float) + 0.1
    gauss, rest = 2 * jacobian.T @ jacobian / 7, 2 * f.mean() * np.eye(N)
    for part, matrix in (("hessian", gauss + rest), ("ggn", gauss), ("rest", rest)):
        values = np.linalg.eigvalsh(matrix)
        exact, probed = (getattr(found[kind], part) for kind in ("exact", "probed"))
        close(exact.trace.value, values.sum())
        close(exact.negative.value, -values[values < 0].sum(), atol=1e-4)
        for name, sign in (("positive", 1), ("negative", -1)):
            estimate, truth = getattr(probed, name), np.maximum(sign * values, 0).sum()
            assert abs(estimate.value - truth) <= 6 * estimate.standard_error + 1e-4 * np.abs(values).sum()
    close(found["exact"].rest_share.value, np.trace(rest) / np.trace(gauss + rest), 1e-4)


HALVES = {"a": jnp.zeros(N // 2), "b": jnp.zeros(N // 2)}


def multiply_halves(matrix, v):
    image = jnp.matmul(matrix, jnp.concatenate([v["a"], v["b"]]), precision="highest")
    return {"a": image[: N // 2], "b": image[N // 2 :]}


def blocks_of(c):
    op = from_matvec(Partial(multiply_halves, jnp.asarray(A * np.float32(c))), HALVES)
    found = {"few": blocks(op, key=KEY, num_steps=8), "complete": blocks(op, key=KEY, num_steps=N)}
    return {
        kind: {name: getattr(found[kind], name) for name in BLOCK_POWERS | {"distances": 0, "off_block_share": 0}}
        for kind in found
    }


BLOCK_POWERS = {"eigenvalues": 1, "residuals": 1, "trace": 1, "grid": 1, "density": -1, "kernel_width": 1}


def are_blocks(found):
    dense = A.astype(float)
    halves = dense[: N // 2, : N // 2], dense[N // 2 :, N // 2 :]
    for i, half in enumerate(halves):
        values = np.linalg.eigvalsh(half)
        close(found["complete"]["eigenvalues"][i], values[-1])
        close(found["complete"]["trace"].value[i], values.sum(), atol=1e-5)
        close(found["few"]["eigenvalues"][i], values[-1], 2e-2)
        few = found["few"]["trace"]
        assert abs(few.value[i] - values.sum()) <= 6 * few.standard_error[i]
        for kind in found:
            close(np.trapezoid(found[kind]["density"][i], found[kind]["grid"][i]), 1, 1e-2)
    share = found["complete"]["off_block_share"]
    off = 1 - sum(np.sum(half**2) for half in halves) / np.sum(dense**2)
    assert abs(share.value - off) <= 6 * share.standard_error


NODES = dict.fromkeys(("nodes", "residuals", "diagonal", "offdiagonal"), 1)
DENSITY = {
    "given.grid": 1, "given.density": -1, "given.density_error": -1, "given.kernel_width": 1,
    "given.outliers.values": 1, "given.outliers.residuals": 1, "own.grid": 1, "own.density": -1, "own.kernel_width": 1,
    "mean.value": 1, "mean.standard_error": 1,
} | {f"given.quadrature.{name}": power for name, power in NODES.items()}  # fmt: skip
LINEAR = {"one": 1, "dense": 1}
PROBES = {"max_dense": 8, "num_basis": 24, "num_probes": 3, "num_steps": 12}

ROWS = {
    "from_matrix": [Row(lambda c: products(scaled(A, c)), LINEAR, is_a)],
    "from_matvec": [
        Row(
            lambda c: products(from_matvec(Partial(multiply, jnp.asarray(A * np.float32(c))), jnp.zeros(N))),
            LINEAR,
            is_a,
        )
    ],
    "hessian": [Row(lambda c: products(hessian(quadratic, jnp.zeros(N), data(c))), LINEAR, is_a)],
    "ggn": [Row(lambda c: products(ggn(outputs, of_outputs, jnp.zeros(3), examples(c))), LINEAR, is_gram)],
    "empirical_fisher": [
        Row(
            lambda c: products(
                empirical_fisher(slopes, jnp.zeros(3), {"x": jnp.asarray(X), "root": jnp.float32(np.sqrt(c))})
            ),
            LINEAR,
            is_moment,
        )
    ],
    "noise_floor": [Row(lambda c: {"floor": noise_floor(scaled(A, c))}, {}, lambda it: close(it["floor"], 2.0**-19))],
    "audit": [Row(audited, {"sound.norm": 1}, is_audit)],
    "eigenpairs": [pairs_of("LM", 3), pairs_of("BE", 4, block_size=2, num_basis=20)],
    "sharpness": [Row(bracket, {f"bracket.{x}": 1 for x in ("lower", "upper", "residual")} | {"rate": -1}, encloses)],
    "condition_number": [
        Row(ratio, {f"number.{x}": 1 for x in ("largest", "smallest", "residuals")}, is_ratio),
    ],
    "ill_conditioning": [step_along(0), step_along(2)],
    "morse_index": [
        index_by(A, VALUES, curvature.Resolution.COMPLETE),
        index_by(LOW_RANK, LOW_RANK_VALUES, curvature.Resolution.EXHAUSTED, **PROBES),
        index_by(A, VALUES, curvature.Resolution.ESTIMATED, **PROBES),
    ],
    "classify_point": [*map(point, POINTS), large_minimum()],
    "find_critical_point": [search("newton-mr"), search("gradient-norm"), saddle_free()],
    "trace": [traced_by(trace, np.trace(A.astype(float)))],
    "diagonal": [traced_by(diagonal, np.diag(A))],
    "spectral_density": [Row(density_of, DENSITY, is_density, ("own.density",))],
    "log_det": [
        Row(log_det_of, {"found.smallest": 1}, is_log_det, ("value", "found.standard_error", "found.truncation")),
    ],
    "path": [
        Row(
            path_of,
            {
                f"path.{x}": 1
                for x in ("losses", "errors", "model", "slope", "slope_error", "curvature", "curvature_error")
            },
            is_path,
        )
    ],
    "plane": [
        Row(
            plane_of,
            {
                f"plane.{x}": 1
                for x in ("losses", "errors", "model", "slopes", "curvatures", "curvature_error")
            },
            is_plane,
        )
    ],
    "random_direction": [Row(directions_of, {"drawn": 1, "axes.origin": 1, "axes.coordinates": 1}, are_directions)],
    "principal_axes": [Row(directions_of, {"drawn": 1, "axes.origin": 1, "axes.coordinates": 1}, are_directions)],
    "blocks": [
        Row(
            blocks_of,
            {
                f"{kind}.{name}" + end: power
                for kind in ("few", "complete")
                for name, power in BLOCK_POWERS.items()
                for end in ((".value", ".standard_error") if name == "trace" else ("",))
            },
            are_blocks,
            ("few.density", "complete.density"),
        )
    ],
    "split": [
        Row(
            split_of,
            {
                f"{kind}.{part}.{name}.{x}": 1
                for kind in ("exact", "probed")
                for part in ("hessian", "ggn", "rest")
                for name in ("trace", "positive", "negative")
                for x in ("value", "standard_error")
            },
            is_split,
        )
    ],
    "cross_check": [Row(checked, {}, agrees)],
}  # fmt: skip


def leaves(result):
    """The fields of a result with their paths, as names joined by dots; fields that are None are left out."""
    found = jax.tree_util.tree_leaves_with_path(result)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}


def power(row, path):
    """The power of c that a field has: of the row's names the one that is the path, or leads to it."""
    prefixes = [path, *(path[:i] for i, letter in enumerate(path) if letter == ".")]
    return next((row.powers[prefix] for prefix in prefixes if prefix in row.powers), 0)


def brought_back(row, c):
    """The result at scale c with every field divided by its power of c, in double precision."""
    result = row.run(c)
    fields = leaves(result)
    known = {path[:i] for path in fields for i in range(len(path) + 1)}
    assert set(row.powers) <= known, f"no such fields: {set(row.powers) - known}"
    return jax.tree.structure(result).unflatten(
        leaf if isinstance(leaf, str) else np.asarray(leaf, float) / float(c) ** power(row, path)
        for path, leaf in fields.items()
    )


def test_no_public_function_is_missing():
    public = {name for name in curvature.__all__ if inspect.isfunction(getattr(curvature, name))}
    assert public == set(ROWS)


LONG = {"classify_point-6", "find_critical_point-2"}
CASES = [
    pytest.param(row, id=f"{name}-{i}", marks=[pytest.mark.slow] if f"{name}-{i}" in LONG else [])
    for name, rows in ROWS.items()
    for i, row in enumerate(rows)
]


@pytest.mark.parametrize("row", CASES)
def test_results_are_right_at_every_scale(row):
    for c in DECIMAL:
        row.holds(brought_back(row, c))


@pytest.mark.parametrize("row", CASES)
def test_powers_of_two_change_no_bit(row):
    expected = leaves(brought_back(row, 1.0))
    for c in BINARY:
        for path, leaf in leaves(brought_back(row, c)).items():
            if path in row.rounded:
                continue
            wanted = expected[path]
            if not isinstance(wanted, str):  # what would be below the smallest normal number is flushed to zero
                wanted = np.where(np.abs(wanted) * c ** power(row, path) < TINY, 0, wanted)
            if path == "own.density":  # the kernel's tails are exponentials, whose argument the compiler may rearrange
                np.testing.assert_allclose(leaf, wanted, rtol=2e-6, atol=0, err_msg=f"{path} at {c}")
                continue
            np.testing.assert_array_equal(leaf, wanted, err_msg=f"{path} at {c}")


LENGTHS = {
    "float32": [1e-36, 1e-30, 1e-20, 1.0, 1e20, 1e30, 1e37],
    "float64": [1e-300, 1e-200, 1.0, 1e200, 1e300],
    "bfloat16": [1e-30, 1.0, 1e30],
    "float16": [1e-3, 1.0, 3e4],
}


@pytest.mark.parametrize("dtype", LENGTHS)
def test_norms_are_right_from_one_end_of_a_dtype_to_the_other(dtype):
    draws = np.random.default_rng(0).uniform(0.1, 1, size=(6, 7))
    with jax.enable_x64(True):
        for length in LENGTHS[dtype]:
            v = {
                "a": jnp.asarray(length * draws, dtype),
                "b": jnp.asarray(length, dtype),
                "none": jnp.zeros((0, 2), dtype),
            }
            largest = float(v["b"])
            exact = np.linalg.norm(np.r_[np.asarray(v["a"], float).ravel(), largest] / largest) * largest
            for known in (False, True):  # as an argument, and as a constant of the program
                unit, found = (jax.jit(lambda v=v: vectors.normalize(v)) if known else vectors.normalize)(
                    *([] if known else [v])
                )
                close(found, exact, 1e-6)
                close(vectors.norm(v), exact, 1e-6)
                close(np.linalg.norm(np.asarray(unit["a"], float)), np.sqrt(1 - float(unit["b"]) ** 2), 2e-2)
    zero, nothing = vectors.normalize(jnp.zeros(3))
    assert not zero.any()
    assert nothing == vectors.norm(jnp.zeros(0)) == 0
    assert np.isnan(vectors.norm(jnp.array([1.0, np.nan])))


@pytest.mark.parametrize("c", [1e-30, 1e30])
def test_a_factor_that_the_compiler_knows_is_taken_like_another(c):
    # It takes known factors out of sums of squares and squares them.
    def loss(p, batch):
        return c * landscape(p, batch)

    batch = shape(1, **SADDLE)
    result = classify_point(loss, START, batch, key=KEY)
    assert result.verdict == "not critical"
    close([result.smallest / c, result.largest / c], [-2, 2.6])
    pairs = eigenpairs(hessian(loss, START, batch), 2, which="BE", key=KEY)
    close(pairs.values / np.float32(c), [-2, 2.6])
    assert find_critical_point(loss, START, batch, key=KEY).success
    close(jax.jit(lambda v: vectors.norm(c * v))(jnp.array([3.0, 4.0])) / np.float32(c), 5)


def test_parameters_of_any_length_are_measured():
    place = jnp.full(3, 1e20)
    result = classify_point(lambda p, _: 1e10 * jnp.sum((p / 1e20 - 1) ** 2), place, key=KEY)
    assert result.verdict == "minimum"
    assert np.isfinite(result.gradient_tol)
    close(result.largest, 2e-30)
