"""Cost and memory of products and eigenpairs by number of parameters, each size in its own process."""

import json
import math
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
from sidebyside import check, store

from jaxopt_study.curvature import eigenpairs, hessian

SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 30_000_000, 100_000_000)
EXAMPLES, NUM_BASIS, TOL = 256, 8, 0.03


def network(size: int) -> list[tuple[int, ...]]:
    """Shapes of 784-100×6-10 made wider or narrower in all its layers, of about `size` parameters.

    The proportions matter: a hidden layer's product has six matrix products to its gradient's three, the first
    layer's two to two.
    """
    width = round(math.sqrt(size / 12.84))
    sizes = (round(7.84 * width), *(width,) * 6, 10)
    return [shape for a, b in pairwise(sizes) for shape in ((a, b), (b,))]


def loss(params: Any, batch: Any) -> Any:
    """Cross-entropy of the network, ReLU between its layers."""
    return cases.cross_entropy(cases.mlp_forward(params, batch[0]), batch[1])


def child(what: str, size: int) -> None:
    """Measure one size in this process; print a line of JSON."""
    shapes = network(size)
    rng = np.random.default_rng(0)
    params = [
        rng.standard_normal(s, np.float32) * np.float32(math.sqrt(2 / s[0]) if len(s) == 2 else 0) for s in shapes
    ]
    batch = (rng.random((EXAMPLES, shapes[0][0]), np.float32), rng.integers(0, 10, EXAMPLES).astype(np.int32))
    params, batch = jax.block_until_ready(jax.tree.map(jnp.asarray, (params, batch)))
    n = sum(math.prod(s) for s in shapes)
    calls = max(3, min(200, 20_000_000 // n))
    record: dict[str, Any] = {"parameters": n}
    op = hessian(loss, params, batch)
    if what == "products":
        gradient = jax.jit(jax.grad(loss))
        product, v = op.product(), jax.tree.map(lambda p: jnp.ones_like(p) / 100, params)
        for name, call in (("gradient", lambda: gradient(params, batch)), ("product", lambda: product(v))):
            record[f"seconds_{name}"] = fastest(call, calls)
    else:

        def solve(seed: int) -> Any:
            key = jax.random.key(seed)
            return eigenpairs(op, 1, which="LM", tol=TOL, num_basis=NUM_BASIS, max_matvecs=40, key=key)

        result, times = None, []
        if n < 50_000_000:  # beyond, compiling is a small part, and is included
            result = jax.block_until_ready(solve(0))
        for i in range(3 if n < 20_000_000 else 1):
            del result
            began = time.perf_counter()
            result = jax.block_until_ready(solve(i + 1))
            times.append((time.perf_counter() - began) / int(result.num_matvecs))
        record |= {"seconds_per_product_in_the_solve": float(np.median(times)),
                   "products": int(result.num_matvecs), "converged": bool(result.converged.all()),
                   "relative_residual": float(result.relative_residuals[0])}  # fmt: skip
    record["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("record " + json.dumps(record))


def fastest(call: Any, calls: int) -> float:
    """Median seconds of a call."""
    jax.block_until_ready(call())
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def measure_scaling(args: Any) -> None:
    """Gradient, product and the largest eigenpair, from 1e4 to 1e8 parameters."""
    rows = []
    for size in SIZES:
        n = sum(math.prod(s) for s in network(size))
        basis = 4 * n * (NUM_BASIS + 1)
        need = 2 * basis + 10 * 4 * n
        row: dict[str, Any] = {"parameters": n, "basis_bytes": basis}
        if need > available_bytes():
            rows.append(row | {"left_out": f"needs up to {need:.1e} bytes; {available_bytes():.1e} are available"})
            print(f"    {n:>11,}  {rows[-1]['left_out']}")
            continue
        for what in ("products", "eigenpairs"):
            command = [sys.executable, str(Path(__file__).with_name("curvature.py")), "--child", f"{what}:{size}"]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            measured = json.loads(result.stdout.split("record ")[1])
            row[f"peak_bytes_{what}"] = measured.pop("peak_bytes")
            row |= measured
        row["product_in_gradients"] = row["seconds_product"] / row["seconds_gradient"]
        row["solve_in_gradients_a_product"] = row["seconds_per_product_in_the_solve"] / row["seconds_gradient"]
        row["extra_bytes_in_bases"] = (row["peak_bytes_eigenpairs"] - row["peak_bytes_products"]) / basis
        rows.append(row)
        print(
            f"    {n:>11,}  gradient {1e3 * row['seconds_gradient']:9.3f} ms, product "
            f"{row['product_in_gradients']:.2f} gradients, in the solve {row['solve_in_gradients_a_product']:.2f} "
            f"({row['products']} products), memory "
            f"{row['peak_bytes_eigenpairs'] / 1e9:.2f} GB, beyond products' {row['extra_bytes_in_bases']:.2f} bases",
            flush=True,
        )
    done = [row for row in rows if "left_out" not in row]
    large = [row for row in done if row["parameters"] >= 0.9e7]
    costs = [row["product_in_gradients"] for row in done]
    checks = [
        check("largest size measured", max(row["parameters"] for row in done), 0.99e8, at_least=True),
        check("product in gradients, largest of all sizes", max(costs), 1.4),
        check("product in gradients, largest / smallest", max(costs) / min(costs), 1.5),
        check("memory beyond that of a product, in bases", max(row["extra_bytes_in_bases"] for row in large), 2.1),
    ]
    store(
        "curvature_scaling",
        {"what": f"784-100×6-10 scaled in all layers, {EXAMPLES} examples, random weights; the largest eigenpair by "
         f"magnitude to {TOL}, relative, with a basis of {NUM_BASIS} + 1 vectors; peak resident memory of one process "
         "each for products and for the solve",
         "sizes": rows, "checks": checks}, args.output,
    )  # fmt: skip
