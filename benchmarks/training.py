"""Benchmarks of `train` against PyTorch and plain Optax.

    python benchmarks/training.py resnet-step mlp-step epoch first-epoch cnn

Each name measures one thing and writes one JSON file; see benchmarks/README.md.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from sidebyside import alternate, check, output_file, ratio, store, summary

from jaxopt_study import optimizers
from jaxopt_study.problems import Problem
from jaxopt_study.training import train

KEY = jax.random.key(0)
ADAM = optax.adam(1e-3)  # one object, because a plain transformation is compiled for anew
THREADS = 2


def triad_bandwidth() -> dict[str, float]:
    """Measure c ← a + s·b on vectors far larger than the caches: 12 bytes an element, as STREAM counts."""
    size = 2**26
    a, b, c = (torch.rand(size) for _ in range(3))
    times = alternate({"triad": lambda: torch.add(a, b, alpha=0.5, out=c)}, rounds=15)
    return {"bytes_per_second": 12 * size / min(times["triad"]), "elements": size}


def torch_adam(shapes: list[tuple[int, ...]]) -> Callable[[], Any]:
    """Torch's fused Adam on gradients that lie in memory: the update alone."""
    params = [torch.nn.Parameter(torch.randn(shape) * 0.01) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 0.01
    return torch.optim.Adam(params, lr=1e-3, fused=True).step


def optax_step(shapes: list[tuple[int, ...]]) -> Callable[[], Any]:
    """A jitted, donated `optax.adam` step on the tree, on gradients that lie in memory: the update alone."""
    tx = optax.adam(1e-3)
    params = cases.quadratic(shapes).init(KEY)
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    carry = [params, jax.jit(tx.init)(params)]

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def run() -> None:
        carry[:] = step(*carry, grads)
        jax.block_until_ready(carry)

    return run


def train_steps(shapes: list[tuple[int, ...]], num_steps: int, layout: Any, optimizer: Any) -> Callable[[], Any]:
    """`train` on ½c‖θ‖²: gradient, update, divergence check and record of the loss."""
    problem = cases.quadratic(shapes)
    params = jax.block_until_ready(jax.jit(problem.init)(KEY))

    def run() -> None:
        result = train(problem, optimizer, num_steps=num_steps, key=KEY, params=params, layout=layout, progress=False)
        jax.block_until_ready(result.params)

    return run


def by_hand(shapes: list[tuple[int, ...]], num_steps: int, update: bool) -> Callable[[], Any]:
    """Plain JAX on 1-D leaves in one loop: the step without any of `train`'s care, or only its loss and gradient."""
    problem, tx = cases.quadratic(shapes), optax.adam(1e-3)
    start = [leaf.reshape(-1) for leaf in jax.jit(problem.init)(KEY)]

    def loss_at(flat: Any, scale: Any) -> Any:
        return scale * problem.loss([leaf.reshape(s) for leaf, s in zip(flat, shapes, strict=True)], None)

    @partial(jax.jit, donate_argnums=(0, 1))
    def loop(params: Any, state: Any, num_steps: Any) -> Any:
        def body(t: Any, carry: Any) -> Any:
            params, state, losses = carry
            if not update:  # the state stands for the gradient, and the step in the scale keeps it inside the loop
                loss, state = jax.value_and_grad(loss_at)(params, 1.0 + 1e-6 * t)
                return params, state, losses.at[t].set(loss)
            loss, grads = jax.value_and_grad(loss_at)(params, 1.0)
            grads = jax.lax.optimization_barrier(grads)  # in memory, as a network's gradient is
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state, losses.at[t].set(loss)

        return jax.lax.fori_loop(0, num_steps, body, (params, state, jnp.zeros(8192)))

    begin = jax.jit(lambda p: (jax.tree.map(jnp.copy, p), tx.init(p) if update else jax.tree.map(jnp.zeros_like, p)))

    def run() -> None:
        jax.block_until_ready(loop(*begin(start), jnp.int32(num_steps)))

    return run


def same_numbers(shapes: list[tuple[int, ...]], num_steps: int) -> float:
    """Return the largest difference between `train`'s parameters and those of a jitted Optax loop on the tree."""
    problem, tx = cases.quadratic(shapes), optax.adam(1e-3)
    params = jax.jit(problem.init)(KEY)
    ours = train(problem, tx, num_steps=num_steps, key=KEY, params=params, progress=False).params

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(problem.loss)(params, None), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(num_steps):
        params, state = step(params, state)
    return max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(params), strict=True)
    )


def measure_step(name: str, shapes: list[tuple[int, ...]], num_steps: int, rounds: int, args: Any) -> None:
    """Measure one Adam step inside `train`: the slope between a long and a short run, so that starting up cancels."""
    count = sum(int(np.prod(shape)) for shape in shapes)
    short = num_steps // 5
    methods: dict[str, Callable[[], Any]] = {"torch_fused": torch_adam(shapes), "optax_on_the_tree": optax_step(shapes)}
    calls = max(1, 200 // len(shapes))
    repeated = {n: (lambda f=f: [f() for _ in range(calls)]) for n, f in methods.items()}
    makers: dict[str, Callable[[int], Callable[[], Any]]] = {
        "train_atoms": lambda n: train_steps(shapes, n, "auto", optimizers.adam(1e-3)),
        "train_optax": lambda n: train_steps(shapes, n, "auto", ADAM),
        "train_optax_tree_layout": lambda n: train_steps(shapes, n, "tree", ADAM),
        "by_hand": lambda n: by_hand(shapes, n, update=True),
        "gradient_alone": lambda n: by_hand(shapes, n, update=False),
    }
    for variant, make in makers.items():
        repeated[variant + "_long"] = make(num_steps)
        repeated[variant + "_short"] = make(short)
    raw = alternate(repeated, rounds=rounds)
    times = {n: [t / calls for t in raw[n]] for n in methods}
    for variant in makers:
        pairs = zip(raw[variant + "_long"], raw[variant + "_short"], strict=True)
        times[variant] = [(long - brief) / (num_steps - short) for long, brief in pairs]
    net = {}
    for variant in ("train_atoms", "train_optax", "by_hand"):
        net[variant] = f"{variant}_less_gradient"
        pairs = zip(times[variant], times["gradient_alone"], strict=True)
        times[net[variant]] = [whole - gradient for whole, gradient in pairs]
    bandwidth = triad_bandwidth()
    floor = 28 * count / bandwidth["bytes_per_second"]
    difference = same_numbers(shapes, 50)
    print(f"{name}: {count} parameters in {len(shapes)} leaves; one step")
    for method, t in times.items():
        print(f"    {method:32s} {1e3 * float(np.median(t)):9.4f} ms")
    checks = [
        check(
            "train (atoms) less its gradient / torch fused",
            ratio(times, net["train_atoms"], "torch_fused")["median"],
            1.05,
        ),
        check(
            "train (optax) less its gradient / torch fused",
            ratio(times, net["train_optax"], "torch_fused")["median"],
            1.05,
        ),
        check("train (atoms), gradient included / by hand", ratio(times, "train_atoms", "by_hand")["median"], 1.05),
        check("largest difference of parameters after 50 steps", difference, 1e-5),
    ]
    if len(shapes) > 100:
        speedup = ratio(times, "optax_on_the_tree", "train_atoms")["median"]
        checks.append(check("optax on the tree / train (atoms), gradient included", speedup, 3.0, at_least=True))
        speedup = ratio(times, "optax_on_the_tree", net["train_atoms"])["median"]
        checks.append(check("optax on the tree / train (atoms) less its gradient", speedup, 3.0, at_least=True))
    shares = {n: floor / float(np.median(times[n])) for n in (*methods, *net.values())}
    for method, share in shares.items():
        print(f"    share of the traffic floor, {method:32s} {share:.2f}")
    store(
        name,
        {
            "what": "one Adam step. `train` includes loss, gradient, divergence check and record of the loss; "
            "'less_gradient' subtracts a loop of loss and gradient alone; the others are updates alone",
            "parameters": count,
            "leaves": len(shapes),
            "seconds_per_step": summary(times),
            "ratios": {
                f"{n} / {m}": ratio(times, n, m)
                for n in (*makers, *net.values())
                for m in (*methods, "by_hand")
                if n != m
            },
            "triad": bandwidth,
            "floor_seconds": floor,
            "share_of_floor": shares,
            "checks": checks,
        },
        args.output,
    )


def torch_epoch(images: np.ndarray, labels: np.ndarray, batch_size: int) -> Callable[[], Any]:
    """One epoch of torch, eager, fused Adam, reshuffled, batches gathered from tensors in memory."""
    layers: list[torch.nn.Module] = []
    for a, b in pairwise(cases.MLP_SIZES):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    x, y = torch.from_numpy(images), torch.from_numpy(labels).long()

    def epoch() -> None:
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch_size):
            chosen = order[i : i + batch_size]
            optimizer.zero_grad(set_to_none=True)
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()

    return epoch


def train_epoch(problem: Problem, params: Any, batch_size: int, optimizer: Any) -> Callable[[], Any]:
    """One epoch of `train`."""
    steps = -(-problem.num_examples // batch_size)

    def epoch() -> None:
        result = train(
            problem, optimizer, num_steps=steps, key=KEY, batch_size=batch_size, params=params, progress=False
        )
        jax.block_until_ready(result.params)

    return epoch


def python_loop(problem: Problem, params: Any, batch_size: int) -> Callable[[], Any]:
    """One epoch of a Python loop over jitted, donated steps, batches gathered inside the step."""
    tx = optax.adam(1e-3)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, data: Any, chosen: Any) -> Any:
        batch = jax.tree.map(lambda x: x[chosen], data)
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    start = jax.jit(lambda p: (jax.tree.map(jnp.copy, p), tx.init(p)))
    count = problem.num_examples

    def epoch() -> None:
        current, state = start(params)
        order = np.random.default_rng(0).permutation(count)
        losses = []
        for i in range(0, count - batch_size + 1, batch_size):
            current, state, loss = step(current, state, problem.data, order[i : i + batch_size])
            losses.append(loss)
        jax.block_until_ready((current, losses))

    return epoch


def scan_by_hand(problem: Problem, params: Any, batch_size: int) -> Callable[[], Any]:
    """One epoch of plain JAX: a scan over a sorted permutation, without evaluation, records or divergence check."""
    count = problem.num_examples or 0
    steps = count // batch_size

    @jax.jit
    def epoch(params: Any, data: Any, key: Any) -> Any:
        order = jax.random.permutation(key, count)[: steps * batch_size].reshape(steps, batch_size)

        def body(carry: Any, chosen: Any) -> Any:
            params, state = carry
            loss, grads = jax.value_and_grad(problem.loss)(params, jax.tree.map(lambda x: x[chosen], data))
            updates, state = ADAM.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(body, (params, ADAM.init(params)), order)

    return lambda: jax.block_until_ready(epoch(params, problem.data, KEY))


def measure_epoch(args: Any) -> None:
    """One MNIST epoch of the 784-100×6-10 network."""
    images, labels, source = cases.mnist(args.data_dir)
    problem = cases.mlp_problem(images, labels)
    params = jax.jit(problem.init)(KEY)
    times = alternate(
        {
            "torch_fused": torch_epoch(images, labels, 128),
            "train_atoms": train_epoch(problem, params, 128, optimizers.adam(1e-3)),
            "train_optax": train_epoch(problem, params, 128, ADAM),
            "scan_by_hand": scan_by_hand(problem, params, 128),
            "python_loop": python_loop(problem, params, 128),
        },
        rounds=args.rounds or 9,
    )
    print(f"one epoch, {source}")
    for method, t in times.items():
        print(f"    {method:32s} {float(np.median(t)):9.4f} s")
    ratios = {n: ratio(times, n, "torch_fused") for n in times if n != "torch_fused"}
    checks = [check(f"{n} / torch fused", ratios[n]["median"], 0.58) for n in ("train_atoms", "train_optax")]
    checks.append(check("train (atoms) / scan by hand", ratio(times, "train_atoms", "scan_by_hand")["median"], 1.05))
    store(
        "epoch", {"what": "one epoch of 784-100×6-10, ReLU, Adam, batch 128", "data": source,
                  "seconds": summary(times), "ratios to torch_fused": ratios, "checks": checks}, args.output,
    )  # fmt: skip


def first_epoch_child(method: str, data_dir: Path | None) -> None:
    """Time the first epoch of a fresh process, data and libraries loaded: tracing and compiling included."""
    images, labels, _ = cases.mnist(data_dir)
    if method == "torch_fused":
        began = time.perf_counter()
        torch_epoch(images, labels, 128)()
    else:
        problem = cases.mlp_problem(images, labels)
        rng = np.random.default_rng(0)
        params = [rng.standard_normal(s).astype(np.float32) * 0.1 for s in cases.mlp_shapes()]
        jax.block_until_ready(jax.tree.map(jnp.asarray, (problem.data, params)))
        optimizer = optimizers.adam(1e-3) if method == "train_atoms" else optax.adam(1e-3)
        began = time.perf_counter()
        train_epoch(problem, params, 128, optimizer)()
    print(f"seconds {time.perf_counter() - began}")


def measure_first_epoch(args: Any) -> None:
    """The first epoch, in fresh processes, alternating."""
    times: dict[str, list[float]] = {"torch_fused": [], "train_atoms": [], "train_optax": []}
    where = ["--data-dir", str(args.data_dir)] if args.data_dir else []
    for _ in range(args.rounds or 5):
        for method in times:
            command = [sys.executable, __file__, "--child", method, *where]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            times[method].append(float(output.split("seconds ")[1]))
    print("first epoch, compilation included")
    for method, t in times.items():
        print(f"    {method:32s} {float(np.median(t)):9.4f} s")
    ratios = {n: ratio(times, n, "torch_fused") for n in times if n != "torch_fused"}
    checks = [check(f"{n} / torch fused", ratios[n]["median"], 1.6) for n in ratios]
    store(
        "first_epoch", {"what": "first epoch of a fresh process, compilation included; no compilation cache",
                        "seconds": summary(times), "ratios to torch_fused": ratios, "checks": checks}, args.output,
    )  # fmt: skip


def cnn_problems() -> dict[str, Problem]:
    """A small network (conv 8, conv 16, dense) twice: with the package's convolution, and with a user's `lax.conv`."""
    from jaxopt_study.problems.networks import convolve, max_pool

    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2560, 28, 28, 1)).astype(np.float32))
    labels = jnp.asarray(rng.integers(0, 10, 2560).astype(np.int32))

    def lax_convolution(x: Any, kernel: Any) -> Any:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def init(key: Any) -> dict[str, Any]:
        a, b, c = jax.random.split(key, 3)
        return {
            "first": jax.random.normal(a, (5, 5, 1, 8)) * 0.2,
            "second": jax.random.normal(b, (5, 5, 8, 16)) * 0.1,
            "dense": jax.random.normal(c, (7 * 7 * 16, 10)) * 0.05,
            "bias": jnp.zeros(10),
        }

    def problem(name: str, convolution: Callable[..., Any]) -> Problem:
        def loss(params: Any, batch: Any) -> Any:
            x, y = batch
            x = max_pool(jax.nn.relu(convolution(x, params["first"])), 2)
            x = max_pool(jax.nn.relu(convolution(x, params["second"])), 2)
            return cases.cross_entropy(x.reshape(len(x), -1) @ params["dense"] + params["bias"], y)

        return Problem(name, init=init, loss=loss, data=(images, labels))

    return {"own": problem("own", convolve), "lax_conv": problem("lax_conv", lax_convolution)}


def measure_cnn(args: Any) -> None:
    """One epoch of 20 steps, batch 128, of a small convolutional network."""
    methods: dict[str, Callable[[], Any]] = {}
    for name, problem in cnn_problems().items():
        params = jax.jit(problem.init)(KEY)
        methods[f"{name}: python_loop"] = python_loop(problem, params, 128)
        methods[f"{name}: train"] = train_epoch(problem, params, 128, ADAM)
        methods[f"{name}: train, compiled loop"] = partial(
            lambda problem, params: jax.block_until_ready(
                train(problem, ADAM, num_steps=20, key=KEY, batch_size=128, params=params, loop="compiled").params
            ),
            problem,
            params,
        )
    times = alternate(methods, rounds=args.rounds or 7)
    for method, t in times.items():
        print(f"    {method:32s} {float(np.median(t)):9.4f} s")
    checks = [
        check(f"{name}: train / python loop", ratio(times, f"{name}: train", f"{name}: python_loop")["median"], most)
        for name, most in (("own", 1.05), ("lax_conv", 1.0))
    ]
    store(
        "cnn", {"what": "20 steps of conv 8 – conv 16 – dense on 28×28 images, Adam, batch 128",
                "seconds": summary(times), "checks": checks}, args.output,
    )  # fmt: skip


def main() -> None:
    """Run the measurements named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["resnet-step", "mlp-step", "epoch", "first-epoch", "cnn"]
    parser.add_argument("which", nargs="*", help=f"any of {', '.join(names)}; default: all")
    parser.add_argument(
        "--data-dir", type=Path, help="folder with MNIST's IDX files; default: random data of its shape"
    )
    parser.add_argument("--rounds", type=int, help="rounds of alternation; default: enough for each measurement")
    parser.add_argument("--output", type=output_file, help="where to write the JSON; default: benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.child:
        first_epoch_child(args.child, args.data_dir)
        return
    for name in args.which or names:
        if name == "resnet-step":
            measure_step("resnet_step", cases.resnet18_shapes(), 60, args.rounds or 9, args)
        elif name == "mlp-step":
            measure_step("mlp_step", cases.mlp_shapes(), 4000, args.rounds or 9, args)
        elif name == "epoch":
            measure_epoch(args)
        elif name == "first-epoch":
            measure_first_epoch(args)
        elif name == "cnn":
            measure_cnn(args)
        else:
            parser.error(f"unknown measurement {name!r}; there are {', '.join(names)}")


if __name__ == "__main__":
    # Two threads for both, however many cores there are.
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    main()
