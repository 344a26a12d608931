"""Networks of the curvature benchmarks, and accuracy measures common to all methods."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import optimizers
from jaxopt_study.problems.networks import convolve, max_pool
from jaxopt_study.training import train

KEY = jax.random.key(0)
PEERS = ("pyhessian", "curvlinops", "eigenthings", "matfree")


@dataclass(frozen=True)
class Case:
    """A loss at trained parameters, and its data."""

    loss: Callable[[Any, Any], Any]
    params: Any
    data: Any
    source: str
    options: dict[str, str | bool] | None = None  # with which `train` compiles such a loss

    def by_hand(self) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any, Any, int], Any]]:
        """Return the jitted gradient, and m products v ← c H v in one compiled loop after one linearisation."""
        gradient = jax.jit(jax.grad(self.loss), compiler_options=self.options)

        @partial(jax.jit, static_argnums=3)
        def products(params: Any, data: Any, v: Any, m: int) -> Any:
            product = jax.linearize(lambda p: jax.grad(self.loss)(p, data), params)[1]
            return chain(product, v, m)

        return gradient, products


def chain(product: Callable[[Any], Any], v: Any, m: int) -> Any:
    """Apply a product m times in a compiled loop; the factor keeps the numbers finite."""
    return jax.lax.fori_loop(0, m, lambda _, x: jax.tree.map(lambda leaf: 0.05 * leaf, product(x)), v)


def trained_mlp(data_dir: Path | None, weights: Path | None = None) -> Case:
    """784-100×6-10, ReLU, on the first 1,000 images of MNIST, after 200 steps of Adam; or with stored weights."""
    images, labels, source = cases.mnist(data_dir)
    problem = cases.mlp_problem(images[:1000], labels[:1000])
    if weights is not None:
        with np.load(weights) as stored:
            params = [jnp.asarray(stored[f"arr_{i}"]) for i in range(len(stored.files))]
    else:
        params = train(problem, optimizers.adam(1e-3), num_steps=200, key=KEY, batch_size=100, progress=False).params
    return Case(problem.loss, jax.block_until_ready(params), problem.data, source)


def cnn(data_dir: Path | None, convolution: str) -> Case:
    """Conv 8, conv 16, dense 32, dense 10 on 500 images, with this package's convolution or with a user's."""

    def of_the_user(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    images, labels, source = cases.mnist(data_dir)
    apply = {"own": convolve, "lax_conv": of_the_user}[convolution]

    def loss(params: Any, batch: Any) -> Any:
        x, y = batch
        x = max_pool(jax.nn.relu(apply(x, params["conv_1"])), 2)
        x = max_pool(jax.nn.relu(apply(x, params["conv_2"])), 2)
        x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense_1"] + params["bias_1"])
        return cases.cross_entropy(x @ params["dense_2"] + params["bias_2"], y)

    keys = jax.random.split(KEY, 4)
    params = {
        "conv_1": jax.random.normal(keys[0], (5, 5, 1, 8)) * 0.2,
        "conv_2": jax.random.normal(keys[1], (5, 5, 8, 16)) * 0.1,
        "dense_1": jax.random.normal(keys[2], (7 * 7 * 16, 32)) * 0.05,
        "bias_1": jnp.zeros(32),
        "dense_2": jax.random.normal(keys[3], (32, 10)) * 0.25,
        "bias_2": jnp.zeros(10),
    }
    batch = (jnp.asarray(images[:500]).reshape(-1, 28, 28, 1), jnp.asarray(labels[:500]))
    return Case(loss, params, batch, source, {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"})


def relative_residuals(case: Case) -> Callable[[Any, Any], dict[str, float]]:
    """Return a function that computes max ‖H v − λ v‖ of unit vectors, relative to the largest |λ| and to each λ."""
    product = jax.jit(lambda p, d, v: jax.jvp(lambda q: jax.grad(case.loss)(q, d), (p,), (v,))[1])

    def of(values: Any, vectors: list[Any]) -> dict[str, float]:
        values = np.asarray(values, np.float64)
        lengths = []
        for value, vector in zip(values, vectors, strict=True):
            image = product(case.params, case.data, jax.tree.map(jnp.asarray, vector))
            v, hv = (
                np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(t)]) for t in (vector, image)
            )
            lengths.append(np.linalg.norm(hv - value * v) / np.linalg.norm(v))
        return {
            "to_the_largest": float(np.max(lengths) / np.abs(values).max()),
            "to_its_own": float(np.max(np.array(lengths) / np.abs(values))),
        }

    return of


def isolated_eigenvalues(case: Case, num_steps: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues that are apart from all others, and the windows around them, from Lanczos in double precision.

    NumPy, two passes of full Gram–Schmidt. Taken are Ritz values of residual ≤ 1e-6 with no other within 1e-3, both
    relative to the largest; a window is a quarter of the distance to the next.
    """
    with jax.enable_x64(True):
        params, data = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            jax.device_get((case.params, case.data)),
        )
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        gradient = jax.grad(lambda x, d: case.loss(unravel(x), d))
        product = jax.jit(lambda x, d, v: jax.jvp(lambda y: gradient(y, d), (x,), (v,))[1])
        q = np.random.default_rng(7).standard_normal(flat.size)
        q /= np.linalg.norm(q)
        basis, alpha, beta = np.zeros((num_steps, flat.size)), np.zeros(num_steps), np.zeros(num_steps)
        for j in range(num_steps):
            basis[j] = q
            u = np.array(product(flat, data, q))
            alpha[j] = q @ u
            for _ in range(2):
                u -= basis[: j + 1].T @ (basis[: j + 1] @ u)
            beta[j] = np.linalg.norm(u)
            q = u / beta[j]
    values, rotations = np.linalg.eigh(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1))
    scale = np.abs(values).max()
    converged = np.abs(rotations[-1]) * beta[-1] <= 1e-6 * scale
    gaps = np.diff(values, prepend=-np.inf, append=np.inf)
    gaps = np.minimum(gaps[:-1], gaps[1:])
    apart = converged & (gaps >= 1e-3 * scale)
    return values[apart], gaps[apart] / 4


def ghosts(nodes: Any, isolated: tuple[np.ndarray, np.ndarray]) -> list[int]:
    """Count, for each row of nodes, those that are the second or a later copy of an isolated eigenvalue."""
    values, windows = isolated
    return [
        int(sum(max(0, np.sum(np.abs(np.asarray(row) - v) <= w) - 1) for v, w in zip(values, windows, strict=True)))
        for row in nodes
    ]


def show(times: dict[str, list[float]], unit: float = 1e3) -> None:
    """Print the medians in milliseconds, or in another unit per second."""
    for method, t in times.items():
        print(f"    {method:40s} {unit * float(np.median(t)):10.4f}")


def peers_record() -> dict[str, Any]:
    """Return versions and notes of the peers."""
    import curvature_peers

    return {"versions": curvature_peers.VERSIONS, "notes": curvature_peers.NOTES}
