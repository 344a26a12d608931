"""Eight devices give the numbers of one, and nothing that is divided is gathered."""

import os
import subprocess
import sys
import textwrap

PROGRAM = """
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from jaxopt_study.curvature import ggn, hessian, vectors
    from jaxopt_study.curvature.operator import _matvec

    assert len(jax.devices()) == 8
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(8, 16)).astype(np.float32), "u": rng.normal(size=(16, 3)).astype(np.float32)}
    x = rng.normal(size=(48, 8)).astype(np.float32)
    model = lambda p, b: jnp.tanh(b @ p["w"]) @ p["u"]
    output_loss = lambda f, b: jnp.mean(f**4)
    loss = lambda p, b: output_loss(model(p, b), b)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    place = lambda spec, a: jax.device_put(a, NamedSharding(mesh, spec))
    split = {"w": place(P(None, "model"), params["w"]), "u": place(P("model", None), params["u"])}
    rows = place(P("data", None), x)

    ways = [{}, {"batch_size": 16}, {"batch_size": 16, "remat": False}, {"batch_size": 20}]
    for make, its_ways in (
        (lambda p, x, **kw: hessian(loss, p, x, **kw), ways),
        (lambda p, x, **kw: ggn(model, output_loss, p, x, **kw), ways[2:3]),
    ):
        for way in its_ways:
            one, eight = make(params, x, **way), make(split, rows, **way)
            assert eight.like["w"].sharding.spec == P(None, "model")
            v = vectors.random_like(one.like, key=jax.random.key(0))
            v8 = vectors.random_like(eight.like, key=jax.random.key(0))
            for name in v:
                np.testing.assert_array_equal(v[name], v8[name])  # the numbers do not depend on where they are
                assert v8[name].sharding.is_equivalent_to(split[name].sharding, 2), name
            a, b, c = one @ v, eight @ v8, eight.product()(v8)
            for name in v:
                scale = np.abs(a[name]).max()
                np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-6 * scale)
                np.testing.assert_allclose(c[name], a[name], rtol=1e-5, atol=1e-6 * scale)
                assert b[name].sharding.is_equivalent_to(split[name].sharding, 2), (name, b[name].sharding)

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
    program = _matvec.lower(op, op.params).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program and "collective-permute" not in program
    print("same")
"""


def test_eight_devices_give_the_numbers_of_one_and_gather_nothing():
    flags = "--xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "same"
