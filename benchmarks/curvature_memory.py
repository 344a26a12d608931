"""Memory of products on language models, from XLA's analysis of the compiled programs, and their time in gradients."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sidebyside import check, ratio, store, summary

from jaxopt_study.curvature import SoftmaxCrossEntropy, ggn, hessian
from jaxopt_study.problems import networks

MODELS = {
    "793 thousand": ({"depth": 4, "width": 128}, 16, True),
    "10.6 million": ({"depth": 6, "width": 384}, 8, False),
}
ROUNDS = 7
CLASSES, TOKENS, WIDTH = 32_768, 512, 64  # of the model whose logits are by far its largest array


def held(compiled: Any) -> int:
    """Bytes of a program at its peak: arguments, results and temporary values."""
    found = compiled.memory_analysis()
    return found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes


def language_model(options: dict[str, Any], examples: int) -> tuple[Any, Any, Any]:
    """Loss, parameters and a batch of the package's transformer, its blocks checkpointed and in one loop."""
    problem = networks.gpt(**options, remat=True, scan=True)
    batch = jax.tree.map(lambda x: jnp.asarray(x[:examples]), problem.data)
    return problem.loss, problem.init(jax.random.key(0)), batch


def of_language_model(name: str, rounds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure gradient and product of one size."""
    options, examples, timed = MODELS[name]
    loss, params, batch = language_model(options, examples)
    op = hessian(loss, params, batch)

    def gradient(params: Any, batch: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return jax.grad(loss)(params, batch)

    compiled = {
        "gradient": jax.jit(gradient).lower(params, batch).compile(),
        "product": jax.jit(lambda op, v: op.matvec(v)).lower(op, params).compile(),
    }
    row: dict[str, Any] = {
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "tokens": int(math.prod(batch["x"].shape)),
        "bytes": {name: held(one) for name, one in compiled.items()},
        "flops": {name: float(one.cost_analysis()["flops"]) for name, one in compiled.items()},
    }
    row["memory_in_gradients"] = row["bytes"]["product"] / row["bytes"]["gradient"]
    checks = [check(f"{name}: peak memory of a product, in gradients", row["memory_in_gradients"], 3.0)]
    if timed:
        calls = {
            "gradient": lambda: jax.block_until_ready(compiled["gradient"](params, batch)),
            "product": lambda: jax.block_until_ready(compiled["product"](op, params)),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for one, call in calls.items():
                began = time.process_time()  # of all threads: other programs on the machine do not count
                call()
                if turn:
                    times[one].append(time.process_time() - began)
        row["processor_seconds"] = summary(times)
        row["product_in_gradients"] = ratio(times, "product", "gradient")
        checks.append(check(f"{name}: product in gradients", row["product_in_gradients"]["median"], 2.2))
    return row, checks


def logits_alive() -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Temporary memory, in arrays of logits, of a gradient and of products with the Gauss–Newton matrix."""
    params = {
        "hidden": jax.ShapeDtypeStruct((WIDTH, WIDTH), np.float32),
        "output": jax.ShapeDtypeStruct((WIDTH, CLASSES), np.float32),
    }
    batch = (jax.ShapeDtypeStruct((TOKENS, WIDTH), np.float32), jax.ShapeDtypeStruct((TOKENS,), np.int32))

    def model(params: Any, batch: Any) -> Any:
        return jnp.tanh(batch[0] @ params["hidden"]) @ params["output"]

    def by_differentiation(logits: Any, batch: Any) -> Any:
        return SoftmaxCrossEntropy()(logits, batch)

    def product(output_loss: Any, batch_size: int | None = None) -> Any:
        return lambda p, v, b: ggn(model, output_loss, p, b, batch_size=batch_size).matvec(v)

    programs = {
        "gradient": lambda p, v, b: jax.grad(lambda p: SoftmaxCrossEntropy()(model(p, b), b))(p),
        "by_differentiation": product(by_differentiation),
        "closed_form": product(SoftmaxCrossEntropy()),
        "closed_form_in_four_batches": product(SoftmaxCrossEntropy(), TOKENS // 4),
    }
    size = 4 * CLASSES * TOKENS
    copies = {
        name: jax.jit(program).lower(params, params, batch).compile().memory_analysis().temp_size_in_bytes / size
        for name, program in programs.items()
    }
    return copies, [check("Gauss–Newton product in closed form: arrays of logits alive", copies["closed_form"], 2.05)]


def measure_memory(args: Any) -> None:
    """Peak memory and time of a product with a language model's Hessian; logits alive in a Gauss–Newton product."""
    copies, checks = logits_alive()
    rows = {}
    for name in MODELS:
        rows[name], more = of_language_model(name, args.rounds or ROUNDS)
        checks += more
    store(
        "curvature_memory",
        {"what": "arguments, results and temporary values of compiled programs, by XLA's analysis; the language models "
         "are `networks.gpt(remat=True, scan=True)` on text, 64 positions; times are processor seconds of all threads. "
         f"Arrays of logits alive: temporary memory of a product on {TOKENS} tokens of {CLASSES} classes, width "
         f"{WIDTH}, divided by that of the logits",
         "language_models": rows, "logits_alive": copies, "checks": checks}, args.output,
    )  # fmt: skip
