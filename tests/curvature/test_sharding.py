"""Eight devices give the numbers of one, on meshes of either kind, and nothing that is divided is gathered."""

import os
import subprocess
import sys
import textwrap

import pytest

BEGINNING = """
    import contextlib
    import sys
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jaxopt_study.curvature import (
        classify_point, condition_number, cross_check, diagonal, eigenpairs, find_critical_point, ggn, hessian,
        ill_conditioning, log_det, morse_index, sharpness, spectral_density, trace,
    )
    from jaxopt_study.linalg import vectors
    from jaxopt_study.linalg.gauss_quadrature import probe_vectors

    assert len(jax.devices()) == 8
    axes, how = sys.argv[1:]
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType[axes],) * 2)
    entered = (lambda: jax.set_mesh(mesh)) if how == "set" else contextlib.nullcontext
    # With explicit axes JAX wants to be told how a sum over a divided axis is spread.
    told = {"out_sharding": NamedSharding(mesh.abstract_mesh, P(None, None))} if axes == "Explicit" else {}
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(8, 16)).astype(np.float32), "u": rng.normal(size=(16, 3)).astype(np.float32)}
    x = rng.normal(size=(48, 8)).astype(np.float32)
    model = lambda p, b: jnp.tanh(b @ p["w"]) @ p["u"]
    model_of_split = lambda p, b: jnp.einsum("nh,ho->no", jnp.tanh(b @ p["w"]), p["u"], **told)
    output_loss = lambda f, b: jnp.mean(f**4)
    loss = lambda p, b: output_loss(model(p, b), b)
    loss_of_split = lambda p, b: output_loss(model_of_split(p, b), b)
    place = lambda spec, a: jax.device_put(a, NamedSharding(mesh, spec))
    split = {"w": place(P(None, "model"), params["w"]), "u": place(P("model", None), params["u"])}
    rows = place(P("data", None), x)
"""

PRODUCTS = """
    ways = [{}, {"batch_size": 16}, {"batch_size": 16, "remat": False}, {"batch_size": 20}]
    for make, its_ways in (
        (lambda loss, model, p, x, **kw: hessian(loss, p, x, **kw), ways),
        (lambda loss, model, p, x, **kw: ggn(model, output_loss, p, x, **kw), ways[2:3]),
    ):
        for way in its_ways:
            one = make(loss, model, params, x, **way)
            v = vectors.random_like(one.like, key=jax.random.key(0))
            a = one @ v
            with entered():
                eight = make(loss_of_split, model_of_split, split, rows, **way)
                assert eight.like["w"].sharding.spec == P(None, "model")
                v8 = vectors.random_like(eight.like, key=jax.random.key(0))
                b, c = eight @ v8, eight.product()(v8)
            for name in v:
                np.testing.assert_array_equal(v[name], v8[name])  # the numbers do not depend on where they are
                assert v8[name].sharding.is_equivalent_to(split[name].sharding, 2), name
                scale = np.abs(a[name]).max()
                np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-6 * scale)
                np.testing.assert_allclose(c[name], a[name], rtol=1e-5, atol=1e-6 * scale)
                assert b[name].sharding.is_equivalent_to(split[name].sharding, 2), (name, b[name].sharding)
"""

MOVEMENT = """
    # A basis lives where its vectors live, and projecting on it moves coefficients only.
    basis = vectors.zeros_basis(eight.like, 5)
    assert basis["w"].sharding.spec == P(None, None, "model")
    fill = jax.jit(lambda basis, v: vectors.with_row(basis, 2, v))
    basis = fill(basis, v8)
    assert basis["w"].sharding.is_equivalent_to(NamedSharding(mesh, P(None, None, "model")), 3)
    step = jax.jit(lambda basis, v: vectors.combine(basis, vectors.project(basis, v)))
    program = step.lower(basis, v8).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program, program
    assert "all-reduce" in program
    back = step(basis, v8)
    norm2 = float(vectors.inner(v8, v8))
    for name in v8:
        np.testing.assert_allclose(back[name], norm2 * np.asarray(v8[name]), rtol=1e-5)
        assert back[name].sharding.is_equivalent_to(split[name].sharding, 2)

    # The batches of divided data are divided too: examples do not travel.
    op = hessian(loss, {k: place(P(), a) for k, a in params.items()}, rows, batch_size=16)
    program = jax.jit(lambda op, v: op.matvec(v)).lower(op, op.params).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program and "collective-permute" not in program
"""

EIGENPAIRS = """
    one, key = hessian(loss, params, x), jax.random.key(0)
    dense = np.linalg.eigvalsh(np.asarray(one.to_dense(), np.float64))
    with entered():
        eight = hessian(loss_of_split, split, rows, batch_size=16)
        pairs = eigenpairs(eight, 4, which="BE", key=key)
        block = eigenpairs(eight, 2, block_size=2, num_basis=6, key=key, max_matvecs=60)
    assert pairs.converged.all()
    # Both started alike, so that they took the same way, to rounding.
    alone = eigenpairs(one, 4, which="BE", key=key)
    np.testing.assert_allclose(pairs.values, alone.values, rtol=1e-4)
    assert abs(int(pairs.num_matvecs) - int(alone.num_matvecs)) <= 1
    for found, true in ((pairs, dense[[0, 1, -2, -1]]), (block, dense[[-1, -2]])):
        assert np.all(np.abs(found.values - true) <= found.residuals + 1e-5 * dense[-1]), (found.values, true)
    for name, shard in (("w", (4, 8, 8)), ("u", (4, 8, 3))):
        assert pairs.vectors[name].addressable_shards[0].data.shape == shard, pairs.vectors[name].sharding
"""

ESTIMATES = """
    one, key = hessian(loss, params, x), jax.random.key(0)
    matrix = np.asarray(one.to_dense(), np.float64)
    values = np.linalg.eigvalsh(matrix)
    scale = np.abs(values).max()
    probes = {"num_probes": 4, "rank": 3, "key": key}
    with entered():
        eight = hessian(loss_of_split, split, rows)
        np.testing.assert_allclose(eight.to_dense(), matrix, atol=1e-5 * scale)
        bracket = sharpness(eight, key=key)
        assert bracket.converged and bracket.lower <= values[-1] <= bracket.upper
        assert bracket.vector["w"].sharding.is_equivalent_to(split["w"].sharding, 2)
        density = spectral_density(eight, num_probes=2, num_steps=8, key=key)
        assert cross_check(eight, density, num_steps=6).agrees
    alone = sharpness(one, key=key)
    np.testing.assert_allclose([bracket.lower, bracket.upper], [alone.lower, alone.upper], rtol=1e-4)
    alone = spectral_density(one, num_probes=2, num_steps=8, key=key).quadrature
    for name in ("nodes", "weights"):
        given = getattr(density.quadrature, name), getattr(alone, name)
        np.testing.assert_allclose(*given, rtol=1e-3, atol=1e-3 * np.abs(given[1]).max())
    with entered():
        some = trace(eight, **probes), trace(eight, probes_at_once=2, **probes), diagonal(eight, **probes)
    # Four steps or more give a probe's quadrature the first moments that the matrix has in that probe.
    for i, probe in enumerate(density.keys):
        with entered():
            q = np.concatenate([np.ravel(v) for v in jax.tree.leaves(probe_vectors(eight, probe))]).astype(np.float64)
        for power in (1, 2, 3):
            moment = np.sum(density.quadrature.weights[i] * density.quadrature.nodes[i] ** power)
            np.testing.assert_allclose(moment, q @ np.linalg.matrix_power(matrix, power) @ q, rtol=1e-3)
    for found, alone in zip(some, (trace(one, **probes), trace(one, **probes), diagonal(one, **probes))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale), found, alone)
"""

THE_REST = """
    key = jax.random.key(0)
    one = hessian(loss, params, x)
    values = np.linalg.eigvalsh(np.asarray(one.to_dense(), np.float64))
    scale, few = np.abs(values).max(), {"num_probes": 2, "num_steps": 6, "key": key}
    grads = jax.jit(jax.grad(loss))(params, x)
    start = {"method": "newton-mr", "max_steps": 4, "num_basis": 6, "key": key}
    alone = find_critical_point(loss, params, x, **start), classify_point(loss, params, x, key=key)
    alone += (ill_conditioning(one, grads, key=key),)
    with entered():
        eight = hessian(loss_of_split, split, rows)
        index = morse_index(eight, key=key, num_basis=24, max_dense=10, num_probes=2, num_steps=6)
        assert 0 < index.lower_bound <= np.sum(values < -index.tau)
        assert index.positive_lower_bound <= np.sum(values > index.tau)
        shifted = log_det(eight, shift=-2 * values[0], **few)
        assert shifted.positive and np.isfinite(shifted.value)
        condition = condition_number(eight, key=key)
        spread = {name: place(split[name].sharding.spec, g) for name, g in grads.items()}
        together = find_critical_point(loss_of_split, split, rows, **start),
        together += classify_point(loss_of_split, split, rows, key=key), ill_conditioning(eight, spread, key=key)
    assert condition.verdict == "indefinite"
    np.testing.assert_allclose(together[0].gradient_norms, alone[0].gradient_norms, rtol=1e-2)
    for name, leaf in together[0].params.items():
        assert leaf.sharding.is_equivalent_to(split[name].sharding, 2), (name, leaf.sharding)
    assert together[1].kind == alone[1].kind
    np.testing.assert_allclose(together[1].largest, values[-1], rtol=1e-5)
    np.testing.assert_array_equal(together[1].index.lower_bound, alone[1].index.lower_bound)
    np.testing.assert_allclose(together[2].curvature, alone[2].curvature, rtol=1e-4)
"""

SADDLE = """
    # Five ways down from the origin, among weights that are divided.
    bends = {"w": rng.uniform(0.5, 2, size=(8, 16)), "u": rng.uniform(0.5, 2, size=(16, 3))}
    bends["w"][3, 2:15:3] *= -1
    divided = {name: place(split[name].sharding.spec, a.astype(np.float32)) for name, a in bends.items()}
    origin = jax.tree.map(lambda a: place(a.sharding.spec, np.zeros(a.shape, np.float32)), divided)
    quadratic = lambda p, b: 0.5 * sum(jnp.sum(b[name] * p[name] ** 2) for name in p)
    extremes = [min(a.min() for a in bends.values()), max(a.max() for a in bends.values())]
    for options in ({}, {"max_dense": 100}):
        with entered():
            found = classify_point(quadratic, origin, divided, key=jax.random.key(0), **options)
            assert found.verdict == "saddle" and found.index.lower_bound == 5, found
            assert found.escape.seen
        np.testing.assert_allclose([found.smallest, found.largest], extremes, rtol=1e-3)
        direction = found.escape.direction
        for name, leaf in direction.items():
            assert leaf.sharding.is_equivalent_to(split[name].sharding, 2), (name, leaf.sharding)
        fall = -0.5 * sum(np.sum(bends[name] * np.asarray(direction[name]) ** 2) for name in bends)
        np.testing.assert_allclose(found.escape.fall, fall * float(found.escape.step) ** 2, rtol=1e-3)
"""

SOLVERS = """
    # Nor do solvers gather what they grow: the largest array that leaves its device is far smaller than a vector.
    import re
    from jaxopt_study.linalg import gauss_quadrature

    wide = {"w": np.zeros((64, 128), np.float32), "u": np.zeros((128, 64), np.float32)}
    wide = {"w": place(P(None, "model"), wide["w"]), "u": place(P("model", None), wide["u"])}
    x = place(P("data", None), rng.normal(size=(48, 64)).astype(np.float32))
    op = hessian(loss, wide, x)
    shapes = re.compile(r"= (.*?) (all-gather|all-to-all)(?:-start)?[(]")

    def largest_moved(program):
        moved = [shape for line in shapes.finditer(program) for shape in re.findall(r"\\[([0-9,]*)\\]", line[1])]
        return max([int(np.prod([int(d) for d in shape.split(",") if d])) for shape in moved], default=0)

    vector = jnp.zeros(8192, device=NamedSharding(mesh, P("model")))
    gather = jax.jit(lambda v: v + 1, out_shardings=NamedSharding(mesh, P(None)))
    assert largest_moved(gather.lower(vector).compile().as_text()) == 8192  # so it would be seen
    key = jax.random.key(0)
    run = {
        "eigenpairs": lambda op: eigenpairs(op, 2, num_basis=6, key=key, max_matvecs=8, noise_floor=1e-5),
        "SLQ": lambda op: gauss_quadrature.lanczos_quadrature(op, jax.random.split(key, 2), num_steps=4),
    }
    for name, solve in run.items():
        program = jax.jit(solve).lower(op).compile().as_text()
        assert "all-reduce" in program, name
        assert largest_moved(program) < 4096, (name, largest_moved(program))
"""

# The scheduler that would overlap reductions of several leaves lets eight devices on two cores wait for each other.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_cpu_enable_concurrency_optimized_scheduler=false"
PLAIN, EXPLICIT, SET = ("Auto", "plain"), ("Explicit", "plain"), ("Explicit", "set")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("program", "mesh"),
    [
        (PRODUCTS + MOVEMENT + SOLVERS, PLAIN),
        (EIGENPAIRS, EXPLICIT),
        slow(PRODUCTS, EXPLICIT),
        slow(PRODUCTS + EIGENPAIRS, SET),
        slow(EIGENPAIRS + ESTIMATES, PLAIN),
        slow(THE_REST + SADDLE, PLAIN),
        slow(SADDLE, EXPLICIT),
        slow(ESTIMATES + THE_REST, EXPLICIT),
        slow(ESTIMATES + THE_REST, SET),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_eight_devices_give_the_numbers_of_one_and_gather_nothing(program, mesh):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGINNING + program + "\n    print('same')"), *mesh],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "same"
