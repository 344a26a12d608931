"""Errors of the methods of `curvature.trace` for the same number of products, on the matrices of a trained network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sidebyside import check, store

from jaxopt_study.curvature import SoftmaxCrossEntropy, ggn, hessian, trace

SIZES, EXAMPLES, STEPS = (64, 32, 32, 10), 256, 300
KEYS = 20
PRODUCTS = {"100 products": (60, 20)}


def model(params: Any, batch: Any) -> Any:
    """Outputs of a network with tanh."""
    x = batch[0]
    for i, (w, b) in enumerate(params):
        x = (jnp.tanh(x) if i else x) @ w + b
    return x


def loss(params: Any, batch: Any) -> Any:
    """Cross-entropy of the outputs."""
    return SoftmaxCrossEntropy()(model(params, batch), batch)


def trained() -> tuple[Any, Any]:
    """Parameters after some steps of Adam on random images of ten kinds, and the data."""
    keys = jax.random.split(jax.random.key(0), len(SIZES) + 2)
    params = [
        (jax.random.normal(key, (a, b)) / np.sqrt(a), jnp.zeros(b))
        for key, a, b in zip(keys, SIZES[:-1], SIZES[1:], strict=False)
    ]
    labels = jnp.arange(EXAMPLES) % SIZES[-1]
    kinds = jax.random.normal(keys[-1], (SIZES[-1], SIZES[0]))
    batch = (kinds[labels] + 1.5 * jax.random.normal(keys[-2], (EXAMPLES, SIZES[0])), labels)
    tx = optax.adam(1e-3)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=STEPS))(params)[0][0], batch


def measure_trace_methods(args: Any) -> None:
    """Root mean square error and mean standard error of each method over random keys."""
    params, batch = trained()
    operators = {"hessian": hessian(loss, params, batch), "ggn": ggn(model, SoftmaxCrossEntropy(), params, batch)}
    keys = jax.random.split(jax.random.key(1), args.rounds or KEYS)
    rows: dict[str, Any] = {}
    checks = []
    for name, op in operators.items():
        exact = float(trace(op, num_probes=op.size, rank=0, key=keys[0]).value)
        rows[name] = {"trace": exact, "parameters": op.size}
        for budget, (probes, rank) in PRODUCTS.items():
            found = {}
            for method in ("hutchinson", "deflated", "xtrace", *(("xnystrace",) if name == "ggn" else ())):
                plain = method == "hutchinson"
                options = {"num_probes": probes + 2 * rank if plain else probes, "rank": 0 if plain else rank}
                options["method"] = "deflated" if plain else method

                def one(key: Any, op: Any = op, options: Any = options) -> Any:
                    return trace(op, **options, key=key)[:2]

                value, error = map(np.asarray, jax.jit(lambda keys, one=one: jax.lax.map(one, keys))(keys))
                found[method] = {
                    "error": float(np.sqrt(np.mean((value - exact) ** 2)) / exact),
                    "standard_error": float(np.sqrt(np.mean(error**2)) / exact),
                    "covered_by_two": float(np.mean(np.abs(value - exact) <= 2 * error)),
                }
                print(f"    {name}, {budget}, {method}: {found[method]}", flush=True)
            rows[name][budget] = found
            best = "xnystrace" if name == "ggn" else "xtrace"
            ratio = found[best]["error"] / found["deflated"]["error"]
            checks.append(check(f"{name}, {budget}: error of {best}, in errors of the deflated probes", ratio, 1.0))
    store(
        "curvature_trace_methods",
        {"what": f"relative errors of the trace over {len(keys)} random keys; network {'-'.join(map(str, SIZES))}, "
         f"tanh, cross-entropy, {EXAMPLES} examples, {STEPS} steps of Adam; the exact trace takes a product for each "
         "parameter",
         "matrices": rows, "checks": checks}, args.output,
    )  # fmt: skip
