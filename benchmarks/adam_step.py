"""Adam built from atoms compared with `optax.adam` in the same layout: XLA's counts, run time, compile time.

    python benchmarks/adam_step.py

Both run one jitted, donated update. The counts of operations and bytes are XLA's, and exact.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import cases
import jax
import numpy as np
import optax
from sidebyside import alternate, check, output_file, ratio, store, summary

from jaxopt_study import optimizers

KEY = jax.random.key(0)
OPTIMIZERS = {"atoms": lambda: optimizers.adam(1e-3), "optax": lambda: optax.adam(1e-3)}


def arguments(shapes: list[tuple[int, ...]], layout: str, tx: Any) -> tuple[Any, Any, Any]:
    """Return parameters, state and gradients of a tree."""
    params = cases.quadratic(shapes).init(KEY)
    if layout == "flat":
        params = [leaf.reshape(-1) for leaf in params]
    return params, tx.init(params), [0.1 * leaf for leaf in params]


def lowered(tx: Any, params: Any, state: Any, grads: Any) -> Any:
    """Trace one donated update."""

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step.lower(params, state, grads)


def runner(compiled: Any, params: Any, state: Any, grads: Any) -> Callable[[], Any]:
    """Return a call of the update that waits for its result."""
    carry = [params, state]

    def run() -> None:
        carry[:] = compiled(*carry, grads)
        jax.block_until_ready(carry)

    return run


def measure(name: str, shapes: list[tuple[int, ...]], layout: str, rounds: int, compilations: int) -> dict[str, Any]:
    """Compare both on one tree and layout."""
    counts, runners, compile_times = {}, {}, {n: [] for n in OPTIMIZERS}
    for _ in range(compilations):
        for n, make in OPTIMIZERS.items():
            jax.clear_caches()
            tx = make()
            given = arguments(shapes, layout, tx)
            jax.block_until_ready(given)
            began = time.perf_counter()
            compiled = lowered(tx, *given).compile()
            compile_times[n].append(time.perf_counter() - began)
            analysis = compiled.cost_analysis()
            counts[n] = {"flops": analysis["flops"], "bytes_accessed": analysis["bytes accessed"]}
            runners[n] = runner(compiled, *given)
    calls = max(1, 2000 // len(shapes))
    times = alternate(runners, rounds=rounds, calls=calls)
    ratios = {k: counts["atoms"][k] / counts["optax"][k] for k in counts["optax"]}
    print(f"{name}, {layout} leaves")
    for n in OPTIMIZERS:
        step, compilation = 1e3 * np.median(times[n]), np.median(compile_times[n])
        print(f"    {n:8s} step {step:.4f} ms, tracing and compiling {compilation:.3f} s")
    checks = [
        check("flops, atoms / optax", ratios["flops"], 1.02),
        check("bytes accessed, atoms / optax", ratios["bytes_accessed"], 1.02),
        check("run time, atoms / optax", ratio(times, "atoms", "optax")["median"], 1.05),
        check("compile time, atoms / optax", ratio(compile_times, "atoms", "optax")["median"], 1.20),
    ]
    return {
        "tree": name,
        "layout": layout,
        "counts": counts,
        "seconds_per_step": summary(times),
        "seconds_to_compile": summary(compile_times),
        "run time ratio": ratio(times, "atoms", "optax"),
        "compile time ratio": ratio(compile_times, "atoms", "optax"),
        "checks": checks,
    }


def main() -> None:
    """Compare on both trees in both layouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of alternation of the run time")
    parser.add_argument("--compilations", type=int, default=5, help="rounds of alternation of the compile time")
    parser.add_argument("--output", type=output_file, help="where to write the JSON; default: benchmarks/results")
    args = parser.parse_args()
    trees = {"784-100×6-10, 14 leaves": cases.mlp_shapes(), "ResNet-18's kernels, 160 leaves": cases.resnet18_shapes()}
    records = [
        measure(name, shapes, layout, args.rounds, args.compilations)
        for name, shapes in trees.items()
        for layout in ("flat", "tree")
    ]
    store("adam_step", {"what": "one jitted, donated Adam update", "comparisons": records}, args.output)


if __name__ == "__main__":
    main()
