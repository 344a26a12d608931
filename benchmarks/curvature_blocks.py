"""Blocks of a twelve-layer network in one program, against a solve for each block."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sidebyside import check, ratio, store, summary

from jaxopt_study.curvature import SoftmaxCrossEntropy, blocks, hessian, spectral_density

LAYERS, INPUTS, CLASSES = 12, 64, 10
SIZES = {"width 64, 128 examples": (64, 128)}
PROBES, STEPS = 4, 32
COLD, WARM = 2, 7


def loss(params: Any, batch: Any) -> Any:
    """Cross-entropy of a network with tanh."""
    x = batch[0]
    for i in range(LAYERS):
        layer = params[f"layer_{i:02d}"]
        x = (jnp.tanh(x) if i else x) @ layer["kernel"] + layer["bias"]
    return SoftmaxCrossEntropy()(x, batch)


def network(width: int, examples: int) -> tuple[Any, Any]:
    """Random parameters and data."""
    sizes = [INPUTS] + [width] * (LAYERS - 1) + [CLASSES]
    keys = jax.random.split(jax.random.key(0), LAYERS + 1)
    params = {
        f"layer_{i:02d}": {
            "kernel": 1.2 * jax.random.normal(keys[i], (sizes[i], sizes[i + 1])) / np.sqrt(sizes[i]),
            "bias": jnp.zeros(sizes[i + 1]),
        }
        for i in range(LAYERS)
    }
    return params, (jax.random.normal(keys[-1], (examples, INPUTS)), jnp.arange(examples) % CLASSES)


def processor_seconds(methods: dict[str, Callable[[], Any]], rounds: int, *, cold: bool) -> dict[str, list[float]]:
    """Time methods alternately, by processor seconds of all threads: other programs on the machine do not count."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for method in () if cold else methods.values():
        jax.block_until_ready(method())
    for _ in range(rounds):
        for name, method in methods.items():
            if cold:
                jax.clear_caches()
            began = time.process_time()
            jax.block_until_ready(method())
            times[name].append(time.process_time() - began)
    return times


def methods_for(width: int, examples: int) -> dict[str, Callable[[], Any]]:
    """All blocks together, and two loops of solves of restricted operators with as many probes and steps."""
    params, data = network(width, examples)
    op, key = hessian(loss, params, data), jax.random.key(1)
    parts = [op.restrict(lambda path, name=name: path.startswith(f"{name}/")) for name in params]
    options: dict[str, Any] = {"key": key, "num_probes": PROBES, "num_steps": STEPS}
    return {
        "blocks": lambda: blocks(op, **options).eigenvalues,
        "loop_of_blocks": lambda: [blocks(part, by=lambda _: "all", **options).eigenvalues for part in parts],
        "loop_of_spectral_density": lambda: [spectral_density(part, **options).density for part in parts],
    }


def measure_blocks(args: Any) -> None:
    """Eigenvalues, traces and densities of all layers, compiling included and not."""
    rows, checks = {}, []
    for name, size in SIZES.items():
        methods = methods_for(*size)
        rows[name] = {}
        for kind, rounds in (("cold", COLD), ("warm", args.rounds or WARM)):
            times = processor_seconds(methods, rounds, cold=kind == "cold")
            ratios = {f"blocks / {other}": ratio(times, "blocks", other) for other in list(methods)[1:]}
            rows[name][kind] = {"processor_seconds": summary(times), "ratios": ratios}
            for pair, found in ratios.items():
                label = "first call, compiling included" if kind == "cold" else "later calls"
                checks.append(check(f"{name}, {label}: {pair}", found["median"], 0.35))
    store(
        "curvature_blocks",
        {"what": f"spectra of the {LAYERS} layers of a network with tanh, cross-entropy, {PROBES} probes × {STEPS} "
         "steps for each; the loops solve for one layer after another, with the operator restricted to it, which takes "
         "no derivatives of other layers; processor seconds of all threads",
         "sizes": rows, "checks": checks}, args.output,
    )  # fmt: skip
