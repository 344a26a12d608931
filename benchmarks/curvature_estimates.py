"""Benchmarks slq, slq-peers and trace of `curvature.py`: Lanczos quadrature and trace against the peers."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import curvature_cases
import jax
import jax.numpy as jnp
import numpy as np
from curvature_cases import PEERS, peers_record, show
from sidebyside import alternate, check, ratio, store, summary

from jaxopt_study.curvature import hessian, spectral_density, trace


def quadrature_of(op: Any, probes: int, steps: int, found: list[Any], **options: Any) -> Callable[[], Any]:
    """Return our quadrature, with another key in every call."""
    keys = itertools.count()

    def run() -> None:
        result = spectral_density(op, num_probes=probes, num_steps=steps, key=jax.random.key(next(keys)), **options)
        found.extend(np.asarray(jax.block_until_ready(result).quadrature.nodes))

    return run


def bare_products(case: Any, count: int) -> Callable[[], Any]:
    """Return as many products in one compiled loop, plain JAX by hand."""
    v = jax.tree.map(lambda p: jnp.ones_like(p) / 100, case.params)
    products = case.by_hand()[1]
    return lambda: jax.block_until_ready(products(case.params, case.data, v, count))


def bases_read_once(case: Any, probes: int, steps: int) -> Callable[[], Any]:
    """Return reads of the vectors that full reorthogonalisation needs, each once a step: j of them in step j.

    Less is not possible. Each read is half of a pass of Gram–Schmidt, the products with a vector, by hand.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(case.params))
    rows = 4  # at a time
    basis, v = jnp.ones((steps, size)), jnp.ones(size)

    @jax.jit
    def read(basis: jax.Array, v: jax.Array) -> jax.Array:
        def step(j: Any, total: Any) -> Any:
            def chunk(i: Any, total: Any) -> Any:
                return total + jax.lax.dynamic_slice_in_dim(basis, rows * i, rows) @ v

            return jax.lax.fori_loop(0, (j + rows) // rows, chunk, total)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros(rows))

    return lambda: [jax.block_until_ready(read(basis, v)) for _ in range(probes)]


def ghost_counts(nodes: dict[str, list[Any]], isolated: Any) -> dict[str, dict[str, float]]:
    """Count the ghosts of each method, over all its probes."""
    counts = {n: curvature_cases.ghosts(rows, isolated) for n, rows in nodes.items()}
    for n, c in counts.items():
        print(f"    ghosts of {n:36s} {np.mean(c):6.1f} a probe, at most {max(c)}, {len(c)} probes")
    return {n: {"mean": float(np.mean(c)), "largest": max(c), "probes": len(c)} for n, c in counts.items()}


def measure_slq(args: Any) -> None:
    """Stochastic Lanczos quadrature, 10 probes × 100 steps, against its 1,000 bare products."""
    case = curvature_cases.trained_mlp(args.data_dir)
    op, nodes = hessian(case.loss, case.params, case.data), {"ours": [], "ours_without_reorthogonalising": []}
    plain = "ours_without_reorthogonalising"
    times = alternate(
        {
            "ours": quadrature_of(op, 10, 100, nodes["ours"]),
            plain: quadrature_of(op, 10, 100, nodes[plain], reorthogonalize=False),
            "bare_products": bare_products(case, 1000),
            "bases_read_once": bases_read_once(case, 10, 100),
        },
        rounds=args.rounds or 5,
    )
    times["limit"] = [sum(both) for both in zip(times["bare_products"], times["bases_read_once"], strict=True)]
    print("10 probes × 100 steps, s")
    show(times, 1)
    isolated = curvature_cases.isolated_eigenvalues(case)
    counts = ghost_counts(nodes, isolated)
    checks = [
        check("ours / 1,000 bare products", ratio(times, "ours", "bare_products")["median"], 1.2),
        check(
            "ours / the limit, bare products and one read of the bases", ratio(times, "ours", "limit")["median"], 1.1
        ),
        check("ghosts of ours, largest of all probes", counts["ours"]["largest"], 0),
    ]
    store(
        "curvature_slq",
        {"what": "stochastic Lanczos quadrature, 10 probes × 100 steps, 1,000 products in a loop by hand, and the "
         "reads of the vectors that full reorthogonalisation cannot do without",
         "data": case.source, "isolated_eigenvalues": isolated[0].tolist(), "ghosts": counts, "seconds": summary(times),
         "ratios": {f"{n} / bare_products": ratio(times, n, "bare_products") for n in nodes}, "checks": checks},
        args.output,
    )  # fmt: skip


def measure_slq_peers(args: Any) -> None:
    """The same against the peers, two probes a round, so that a slow spell hits all of them."""
    import curvature_peers
    import curvature_torch

    case = curvature_cases.trained_mlp(args.data_dir)
    torch_case, nodes = curvature_torch.TorchCase(case), {"ours": []}
    op = hessian(case.loss, case.params, case.data)
    peers = curvature_peers.quadrature(case, torch_case, 2, 100, nodes)
    times = alternate({"ours": quadrature_of(op, 2, 100, nodes["ours"]), **peers}, rounds=args.rounds or 5)
    print("2 probes × 100 steps, s")
    show(times, 1)
    counts = ghost_counts(nodes, curvature_cases.isolated_eigenvalues(case))
    checks = [check(f"ours / {n}", ratio(times, "ours", n)["median"], 0.40) for n in PEERS]
    checks.append(check("ghosts of ours, largest of all probes", counts["ours"]["largest"], 0))
    store(
        "curvature_slq_peers",
        {"what": "stochastic Lanczos quadrature, 2 probes × 100 steps in every round; all costs are proportional to "
         "the probes, but ours has one linearisation in each call", "data": case.source, "peers": peers_record(),
         "ghosts": counts, "seconds": summary(times), "ratios": {f"ours / {n}": ratio(times, "ours", n) for n in PEERS},
         "checks": checks},
        args.output,
    )  # fmt: skip


def measure_trace(args: Any) -> None:
    """The trace from 100 products."""
    import curvature_peers
    import curvature_torch

    case = curvature_cases.trained_mlp(args.data_dir)
    torch_case, found = curvature_torch.TorchCase(case), {"ours": [], "ours_deflated": []}
    op = hessian(case.loss, case.params, case.data)

    def ours(name: str, probes: int, rank: int, keys: Any) -> None:
        found[name].append(float(trace(op, num_probes=probes, rank=rank, key=jax.random.key(next(keys))).value))

    methods = {
        "ours": partial(ours, "ours", 100, 0, itertools.count()),
        "ours_deflated": partial(ours, "ours_deflated", 60, 20, itertools.count(1000)),
        **curvature_peers.traces(case, torch_case, 100, found),
    }
    times = alternate(methods, rounds=args.rounds or 40)
    print("trace from 100 products, ms")
    show(times)
    spread = {n: {"mean": float(np.mean(v)), "standard_deviation": float(np.std(v, ddof=1))} for n, v in found.items()}
    for n, s in spread.items():
        print(f"    {n:40s} {s['mean']:.2f} ± {s['standard_deviation']:.2f}")
    checks = [
        check(
            f"{n}, as many products as the same error takes / pyhessian",
            ratio(times, n, "pyhessian")["median"]
            * (spread[n]["standard_deviation"] / spread["pyhessian"]["standard_deviation"]) ** 2,
            0.40,
        )
        for n in ("ours", "ours_deflated")
    ]
    store(
        "curvature_trace",
        {"what": "the trace from 100 products: Hutchinson with 100 probes; deflated: 40 products for a space of 20 "
         "dimensions, 60 probes outside of it, the default of `trace`",
         "data": case.source, "peers": peers_record(), "estimates": spread, "seconds": summary(times),
         "ratios": {f"{a} / {b}": ratio(times, a, b) for a in ("ours", "ours_deflated") for b in PEERS},
         "checks": checks},
        args.output,
    )  # fmt: skip
