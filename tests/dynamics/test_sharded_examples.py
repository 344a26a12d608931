"""Batches of examples that are spread over eight devices: what is measured on them is what one device measures."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxopt_study.curvature import blocks, hessian
from jaxopt_study.dynamics import batch_sharpness, gradient_noise, stochastic_stability

rng = np.random.default_rng(0)
X = rng.normal(size=(16, 8)).astype(np.float32)
Y = rng.normal(size=16).astype(np.float32)
loss = lambda p, b: jnp.mean(jnp.tanh(b["x"] @ p["w"] - b["y"]) ** 2)
key, tx = jax.random.key(0), optax.sgd(0.05)

def measured(params, data):
    state = tx.init(params)
    few = {"key": key, "batch_size": 4}
    yield hessian(loss, params, data, batch_size=5) @ params
    yield gradient_noise(loss, params, data, num_batches=4, **few)
    yield batch_sharpness(loss, params, data, num_batches=4, **few)
    yield stochastic_stability(tx, state, loss, params, data, **few).radius
    few |= {"exact": False, "num_particles": 3, "num_steps": 4}
    yield stochastic_stability(tx, state, loss, params, data, **few).radius
    yield blocks(hessian(loss, params, data), key=key, num_probes=2, num_steps=4).eigenvalues

theta = jnp.linspace(-1, 1, 8)
one = list(measured({"w": theta}, {"x": X, "y": Y}))
for kind in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    for params_spec, data_spec in ((P(), P("d")), (P("d"), P())):
        place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
        spread = {"w": place(theta, params_spec)}, {"x": place(X, data_spec), "y": place(Y, data_spec)}
        for number, (a, b) in enumerate(zip(one, measured(*spread), strict=True)):
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                x, y = np.asarray(x, float), np.asarray(y, float)
                np.testing.assert_allclose(y, x, rtol=1e-3, atol=1e-5, err_msg=f"{kind} {data_spec} {number}")
        if kind == AxisType.Explicit and data_spec == P("d"):
            with jax.set_mesh(mesh):
                np.testing.assert_allclose(next(measured(*spread))["w"], one[0]["w"], rtol=1e-4, atol=1e-6)
print("the same")
"""


def test_eight_devices_measure_what_one_measures():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True, text=True, timeout=900, check=False, env=dict(os.environ) | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "the same"
