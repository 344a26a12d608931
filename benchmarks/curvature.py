"""Benchmarks of `jaxopt_study.curvature` against PyHessian, curvlinops, hessian-eigenthings and matfree.

    python benchmarks/curvature.py hvp top5 first-call slq slq-peers trace scaling memory trace-methods blocks

Each name measures one thing and writes one JSON file; see benchmarks/README.md.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import curvature_blocks
import curvature_cases
import curvature_estimates
import curvature_memory
import curvature_scaling
import curvature_traces
import jax
import jax.numpy as jnp
import numpy as np
from curvature_cases import PEERS, peers_record, show
from sidebyside import alternate, check, output_file, ratio, store, summary

from jaxopt_study.curvature import eigenpairs, hessian

THREADS = 2
_chained = jax.jit(
    lambda op, v, m: curvature_cases.chain(op.linearize(), v, m),
    static_argnums=2,
    compiler_options={"xla_cpu_use_fusion_emitters": False},  # as a solver is compiled
)


def measure_hvp(args: Any) -> None:
    """A Hessian-vector product inside a solve, in gradients of the same library."""
    import curvature_peers
    import curvature_torch

    checks, seconds, ratios = [], {}, {}
    mlp = curvature_cases.trained_mlp(args.data_dir)
    torch_mlp = curvature_torch.TorchCase(mlp)
    setups = [
        ("mlp", mlp, torch_mlp.model(), torch_mlp.data, 100, 1.1, 0.70),
        *(
            (name, case, *curvature_torch.torch_cnn(case), 10, 1.3, 0.75 if name == "own" else None)
            for name, case in ((n, curvature_cases.cnn(args.data_dir, n)) for n in ("own", "lax_conv"))
        ),
    ]
    for name, case, model, data, calls, most_gradients, most_peer in setups:
        title = name if name == "mlp" else f"cnn, {name}"
        op = hessian(case.loss, case.params, case.data)
        gradient, by_hand = case.by_hand()
        v = jax.tree.map(lambda p: jnp.ones_like(p) / 100, case.params)
        if op.loop == "compiled":
            in_a_solve = partial(lambda op, v, m: jax.block_until_ready(_chained(op, v, m)), op, v, calls)
        else:
            product = op.product()
            in_a_solve = partial(
                lambda product, v, m: [jax.block_until_ready(product(v)) for _ in range(m)], product, v, calls
            )
        methods = {
            "ours": in_a_solve,
            "gradient": partial(
                lambda f, p, d, m: [jax.block_until_ready(f(p, d)) for _ in range(m)],
                gradient, case.params, case.data, calls,
            ),
            "by_hand_in_a_compiled_loop": partial(
                lambda f, p, d, v, m: jax.block_until_ready(f(p, d, v, m)), by_hand, case.params, case.data, v, calls
            ),
            **curvature_peers.products(model, data, calls),
        }  # fmt: skip
        if name == "lax_conv":
            del methods["by_hand_in_a_compiled_loop"]  # several times slower: see the README
        times = {n: [t / calls for t in ts] for n, ts in alternate(methods, rounds=args.rounds or 9).items()}
        print(f"{title}: {op.size} parameters, one product, ms")
        show(times)
        seconds[title] = summary(times)
        ratios[title] = {
            f"{a} / {b}": ratio(times, a, b)
            for a in times
            for b in ("gradient", "pyhessian", "torch_gradient")
            if a != b
        }
        checks.append(
            check(f"{title}: product / own gradient", ratio(times, "ours", "gradient")["median"], most_gradients)
        )
        if most_peer is not None:
            checks.append(
                check(f"{title}: product / PyHessian's form", ratio(times, "ours", "pyhessian")["median"], most_peer)
            )
        if name == "own":
            checks.append(
                check(f"{title}: gradient / torch's", ratio(times, "gradient", "torch_gradient")["median"], 1.3)
            )
    difference = curvature_peers.difference_of_products(mlp, torch_mlp)
    checks.append(check("mlp: relative difference of H v from torch's", difference, 1e-4))
    store(
        "curvature_hvp",
        {
            "what": "one Hessian-vector product in a solve, linearisation included: 100 (mlp) or 10 (cnn) products in "
            "one compiled loop after one linearisation; a user's lax.conv is called product by product",
            "data": mlp.source,
            "peers": peers_record(),
            "seconds_per_product": seconds,
            "ratios": ratios,
            "checks": checks,
        },
        args.output,
    )


def rows_of(basis: Any) -> list[Any]:
    """Return the vectors of a basis, a pytree with one more leading axis."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], basis) for i in range(len(jax.tree.leaves(basis)[0]))]


def measure_top5(args: Any) -> None:
    """Five eigenpairs of largest magnitude, at a residual that is checked by one function for all."""
    import curvature_peers
    import curvature_torch

    case = curvature_cases.trained_mlp(args.data_dir)
    torch_case, found = curvature_torch.TorchCase(case), {"ours": []}
    op, seeds, others = hessian(case.loss, case.params, case.data), itertools.count(), itertools.count()

    def ours(op: Any = None) -> None:
        result = eigenpairs(op or hessian(case.loss, case.params, case.data), 5, which="LM", key=keys[next(seeds)])
        found["ours"].append(jax.block_until_ready(result))

    def ours_to(tol: float) -> None:
        jax.block_until_ready(eigenpairs(op, 5, which="LM", tol=tol, key=keys[next(others)]))

    rounds = args.rounds or 20
    keys = [jax.random.key(i) for i in range(2 * rounds + 2)]
    found |= {name: [] for name in PEERS}
    peers = {name: make(case, torch_case, found[name]) for name, make in curvature_peers.TOP5.items()}
    mine = {"ours": partial(ours, op), "ours_operator_made_anew": ours, "ours_to_2e-2": partial(ours_to, 2e-2)}
    times = alternate(mine | peers, rounds=rounds)
    residuals = curvature_cases.relative_residuals(case)
    results = {n: found[n] for n in PEERS}
    results["ours"] = [(r.values, r.vectors) for r in found["ours"]]
    reached = {
        n: [
            residuals(values, rows_of(v) if n in ("matfree", "ours") else [torch_case.to_jax(x) for x in v])
            for values, v in pairs
        ]
        for n, pairs in results.items()
    }
    worst = {
        n: {kind: {"median": float(np.median([r[kind] for r in rows])), "largest": max(r[kind] for r in rows)}
            for kind in ("to_the_largest", "to_its_own")}
        for n, rows in reached.items()
    }  # fmt: skip
    matvecs = [int(r.num_matvecs) for r in found["ours"]]
    print(f"top 5, ms; products of ours {min(matvecs)}–{max(matvecs)}, median {np.median(matvecs)}")
    show(times)
    for n, w in worst.items():
        middle, largest = (w["to_the_largest"][k] for k in ("median", "largest"))
        print(f"    residual of {n:20s} median {middle:.1e}, largest {largest:.1e}")
    checks = [check(f"ours / {n}", ratio(times, "ours", n)["median"], 0.9) for n in PEERS]
    lax_ratio = ratio(times, "ours_to_2e-2", "pyhessian")["median"]
    checks.append(check("ours to 2e-2, the residual PyHessian reaches / pyhessian", lax_ratio, 0.9))
    checks.append(check("largest relative residual of ours", worst["ours"]["to_the_largest"]["largest"], 1e-3))
    checks.append(check("start vectors", len(found["ours"]), 20, at_least=True))
    store(
        "curvature_top5",
        {
            "what": "five eigenpairs of largest magnitude, Hessian of 784-100×6-10 after 200 steps, 1,000 images; "
            "ours: eigenpairs(op, 5, which='LM'), tol 1e-3, its own check included; the peers do not check",
            "data": case.source,
            "eigenvalues": np.asarray(found["ours"][0].values).tolist(),
            "peers": peers_record(),
            "seconds": summary(times),
            "ratios": {f"ours / {n}": ratio(times, "ours", n) for n in PEERS},
            "products": {"ours": {"smallest": min(matvecs), "median": float(np.median(matvecs)),
                                  "largest": max(matvecs)}, **curvature_peers.top5_products(case, torch_case)},
            "relative_residuals_computed_alike": worst,
            "checks": checks,
        },
        args.output,
    )  # fmt: skip


def first_call_child(method: str, data_dir: Path | None, weights: Path) -> None:
    """Time the first search for five pairs in a fresh process, data and libraries loaded."""
    case = curvature_cases.trained_mlp(data_dir, weights)
    key = jax.block_until_ready(jax.random.key(0))
    if method.startswith("ours"):
        began = time.perf_counter()
        jax.block_until_ready(eigenpairs(hessian(case.loss, case.params, case.data), 5, which="LM", key=key))
    else:
        import curvature_peers
        import curvature_torch

        torch_case = curvature_torch.TorchCase(case)
        began = time.perf_counter()
        curvature_peers.TOP5[method](case, torch_case, [])()
    print(f"seconds {time.perf_counter() - began}")


def measure_first_call(args: Any) -> None:
    """The first top 5 of a fresh process, after imports; cold, and with JAX's compilation cache filled."""
    case = curvature_cases.trained_mlp(args.data_dir)
    methods = ("ours_cold", "ours_warm_cache", *PEERS)
    times: dict[str, list[float]] = {name: [] for name in methods}
    where = ["--data-dir", str(args.data_dir)] if args.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.npz"
        np.savez(weights, *map(np.asarray, case.params))
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        for turn in range((args.rounds or 5) + 1):
            for name in methods if turn else ("ours_warm_cache",):
                command = [sys.executable, __file__, "--child", name, "--weights", str(weights), *where]
                environment = os.environ | (cache if name == "ours_warm_cache" else {})
                result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                if turn:
                    times[name].append(float(result.stdout.split("seconds ")[1]))
    print("first call, s")
    show(times, 1)
    checks = [
        check("cold / eigenthings", ratio(times, "ours_cold", "eigenthings")["median"], 0.9),
        check("compilation cache filled / eigenthings", ratio(times, "ours_warm_cache", "eigenthings")["median"], 0.5),
    ]
    store(
        "curvature_first_call",
        {"what": "the first top 5 of a fresh process, after imports, operator included; peers in the same way",
         "data": case.source, "peers": peers_record(), "seconds": summary(times), "checks": checks},
        args.output,
    )  # fmt: skip


def main() -> None:
    """Run the measurements named on the command line."""
    measurements = {
        "hvp": measure_hvp,
        "top5": measure_top5,
        "first-call": measure_first_call,
        "slq": curvature_estimates.measure_slq,
        "slq-peers": curvature_estimates.measure_slq_peers,
        "trace": curvature_estimates.measure_trace,
        "scaling": curvature_scaling.measure_scaling,
        "memory": curvature_memory.measure_memory,
        "trace-methods": curvature_traces.measure_trace_methods,
        "blocks": curvature_blocks.measure_blocks,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", help=f"any of {', '.join(measurements)}; default: all")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with MNIST's IDX files; default: random data of its shape"
    )
    parser.add_argument("--rounds", type=int, help="rounds of alternation; default: enough for each measurement")
    parser.add_argument("--output", type=output_file, help="where to write the JSON; default: benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if ":" in args.child:
            what, size = args.child.split(":")
            curvature_scaling.child(what, int(size))
            return
        first_call_child(args.child, args.data_dir, args.weights)
        return
    for name in args.which or measurements:
        if name not in measurements:
            parser.error(f"unknown measurement {name!r}; there are {', '.join(measurements)}")
        measurements[name](args)


if __name__ == "__main__":
    # Two threads for all, however many cores there are.
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    main()
