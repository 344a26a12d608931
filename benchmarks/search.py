"""Benchmarks of searches: that of Saito (2016) against PyTorch and NumPy, small problems, and layouts.

    python benchmarks/search.py book small trials devices journal --data-dir DIR

Each name measures one thing and writes one JSON file; see benchmarks/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import itertools

import numpy as np
from search_peers import BATCH, EPOCHS, WIDTHS, Workers, numpy_trials, torch_trials
from sidebyside import alternate, check, output_file, ratio, store, summary

CORES = 2
NUM_TRIALS = 100
HERE = Path(__file__)


def in_fresh_process(name: str, *arguments: str) -> dict[str, Any]:
    """Run a part of this program where JAX has not started, and return the JSON it prints last."""
    command = [sys.executable, str(HERE), "--part", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def book_problem(data_dir: str) -> Any:
    """Return the book's network on 400 + 100 images, weight decay a hyperparameter."""
    from jaxopt_study.problems import datasets, networks

    images = datasets.mnist(data_dir, num_train=400, num_validation=100, split="first")
    return lambda weight_decay: networks.mlp_classifier(images, widths=WIDTHS[1:-1], weight_decay=weight_decay)


def book_search(data_dir: str, devices: int, **options: Any) -> Any:
    """Return the book's search, as a function of the number of trials."""
    import jax

    from jaxopt_study import optimizers, sweeps

    sweeps.use_cpu_cores(devices)
    problem = book_problem(data_dir)
    space = {"learning_rate": sweeps.log_uniform(1e-6, 1e-2), "weight_decay": sweeps.log_uniform(1e-8, 1e-4)}

    def run(num_trials: int = NUM_TRIALS, **more: Any) -> Any:
        return sweeps.search(
            lambda learning_rate: optimizers.sgd(learning_rate), space, problem, num_trials=num_trials,
            num_steps=EPOCHS * 400 // BATCH, key=jax.random.key(0), batch_size=BATCH, order="with_replacement",
            evaluate_every=400 // BATCH, evaluate_on=("train", "validation"), metric="validation_accuracy",
            progress=False, **options, **more,
        )  # fmt: skip

    return run


def book_once(data_dir: str) -> dict[str, Any]:
    """Time the search in this process: the first, with tracing and compiling, and the second."""
    search = book_search(data_dir, CORES)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        found = search()
        times.append(time.perf_counter() - began)
    return {"first": times[0], "second": times[1], "run": found.run_seconds, "layout": found.layout,
            "scores": found.scores.tolist()}  # fmt: skip


def matmul_peak() -> float:
    """Return the rate of large float32 matrix products on all cores, in operations a second."""
    import jax
    import jax.numpy as jnp

    size = 2048
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    times = alternate({"product": lambda: product(a).block_until_ready()}, rounds=20)
    return 2 * size**3 / min(times["product"])


def book(data_dir: str, rounds: int, output: Path | None) -> None:
    """Time the book's search against PyTorch and NumPy in two processes."""
    from jaxopt_study.problems import datasets

    images = datasets.mnist(data_dir, num_train=400, num_validation=100, split="first")
    data = {"x": images.train["x"], "y": images.train["y"].astype(np.int64), "vx": images.validation["x"],
            "vy": images.validation["y"].astype(np.int64)}  # fmt: skip
    data = {name: np.array(values) for name, values in data.items()}
    rng = np.random.default_rng(0)
    trials = list(zip(10 ** rng.uniform(-6, -2, NUM_TRIALS), 10 ** rng.uniform(-8, -4, NUM_TRIALS), strict=True))
    ours: list[dict[str, Any]] = []
    peers = {
        "torch, 2 processes": Workers(2, torch_trials, data, 1),
        "the book's NumPy, 2 processes": Workers(2, numpy_trials, data, 1),
    }
    methods = {"ours": lambda: ours.append(in_fresh_process("book", data_dir))}
    methods |= {name: (lambda workers=workers: workers(trials)) for name, workers in peers.items()}
    times = alternate(methods, rounds=rounds)
    ours = ours[1:]  # without the warm-up
    times |= {"ours": [one["second"] for one in ours], "ours, first call": [one["first"] for one in ours]}
    for workers in peers.values():
        workers.close()
    size = sum(a * b for a, b in itertools.pairwise(WIDTHS))
    flops = NUM_TRIALS * EPOCHS * (4 * 2 * BATCH * (3 * size - WIDTHS[0] * WIDTHS[1]) + 2 * 500 * size)
    peak = matmul_peak()
    torch_ratio = ratio(times, "ours", "torch, 2 processes")
    book_ratio = ratio(times, "ours", "the book's NumPy, 2 processes")
    first = ratio(times, "ours, first call", "torch, 2 processes")
    record = {
        "work": f"{NUM_TRIALS} trials × {4 * EPOCHS} steps × batch {BATCH}, {EPOCHS} evaluations of 400 + 100 images",
        "times": summary(times),
        "layout": ours[0]["layout"],
        "floating_point_operations": flops,
        "matmul_peak_per_second": peak,
        "share_of_peak": flops / np.median(times["ours"]) / peak,
        "ratios": {"torch": torch_ratio, "numpy": book_ratio, "first call": first},
        "checks": [
            check("100 trials / torch", torch_ratio["median"], 0.52),
            check("100 trials / the book's NumPy", book_ratio["median"], 0.11),
            check("100 trials, compiled anew / torch", first["median"], 0.45),
        ],
    }
    print(f"  share of the matmul peak: {record['share_of_peak']:.2f}")
    store("search_book", record, output)


def small_once() -> dict[str, Any]:
    """Time small searches against a Python loop of jitted steps over the same trials."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxopt_study import problems, sweeps

    sweeps.use_cpu_cores(CORES)
    net = problems.networks.mlp_classifier(problems.datasets.digits(), widths=(20,))
    cases = {"digits net": (net, 32, 200, 200), "planar": (problems.planar.rosenbrock(), None, 1000, 1000)}
    found = {}
    for name, (problem, batch_size, num_trials, num_steps) in cases.items():
        space, calls = {"learning_rate": sweeps.log_uniform(1e-5, 1e-1)}, []
        for _ in range(2):
            began = time.perf_counter()
            result = sweeps.search(
                optax.adam, space, problem, num_trials=num_trials, num_steps=num_steps, key=jax.random.key(0),
                batch_size=batch_size, progress=False,
            )  # fmt: skip
            calls.append(time.perf_counter() - began)
        first, second = calls

        @jax.jit
        def step(params: Any, state: Any, rate: Any, key: Any, problem: Any = problem, size: Any = batch_size) -> Any:
            key, drawn = jax.random.split(key)
            batch = problem.data
            if size is not None:
                rows = jax.random.randint(drawn, (size,), 0, len(jax.tree.leaves(problem.data)[0]))
                batch = jax.tree.map(lambda x: jnp.asarray(x)[rows], problem.data)
            loss, grads = jax.value_and_grad(problem.loss)(params, batch)
            updates, state = optax.adam(rate).update(grads, state, params)
            return optax.apply_updates(params, updates), state, key, loss

        few = 5  # trials of the loop that are timed; all take the same time
        start, key = problem.init(jax.random.key(0)), jax.random.key(1)
        jax.block_until_ready(step(start, optax.adam(0.1).init(start), 0.1, key))
        began = time.perf_counter()
        for i in range(few):
            params, state, losses = start, optax.adam(0.1).init(start), []
            for _ in range(num_steps):
                params, state, key, loss = step(params, state, 1e-3 * (i + 1), key)
                losses.append(loss)
            np.asarray(losses)
        loop = (time.perf_counter() - began) / few * num_trials
        found[name] = {"search": second, "first": first, "run": result.run_seconds, "loop": loop,
                       "layout": result.layout, "trials": num_trials, "steps": num_steps}  # fmt: skip
    return found


def small(data_dir: str, rounds: int, output: Path | None) -> None:
    """Compare small searches with a Python loop of jitted steps."""
    runs = [in_fresh_process("small") for _ in range(rounds)]
    checks, times = [], {}
    for name in runs[0]:
        times |= {f"{name}: {kind}": [run[name][kind] for run in runs] for kind in ("search", "first", "loop", "run")}
        gain = float(np.median([run[name]["loop"] / run[name]["search"] for run in runs]))
        checks.append(check(f"{name}: times faster than a Python loop", gain, 15.0, at_least=True))
    work = {name: {key: runs[0][name][key] for key in ("trials", "steps", "layout")} for name in runs[0]}
    store("search_small", {"work": work, "times": summary(times), "checks": checks}, output)


def book_timed(data_dir: str, num_trials: str, devices: str) -> dict[str, Any]:
    """Time the book's search with some trials on some devices, compiled anew and again."""
    search = book_search(data_dir, int(devices))
    first, second = search(int(num_trials)), search(int(num_trials))
    return {"compile": first.compile_seconds, "run": second.run_seconds, "width": second.layout["width"]}


def trials(data_dir: str, rounds: int, output: Path | None) -> None:
    """Measure cost against the number of trials: running should be linear, compiling flat."""
    counts = (10, 25, 50, 100, 200)
    runs = {n: [in_fresh_process("timed", data_dir, str(n), str(CORES)) for _ in range(rounds)] for n in counts}
    run = {n: float(np.median([one["run"] for one in found])) for n, found in runs.items()}
    compiling = {n: float(np.median([one["compile"] for one in found])) for n, found in runs.items()}
    per_trial = {n: seconds / n for n, seconds in run.items()}
    checks = [
        check("seconds a trial, 200 trials / 25", per_trial[200] / per_trial[25], 1.1),
        check("compiling, 200 trials / 10", compiling[200] / compiling[10], 1.25),
    ]
    store("search_trials", {"run_seconds": run, "compile_seconds": compiling, "checks": checks}, output)


def devices(data_dir: str, rounds: int, output: Path | None) -> None:
    """Measure 100 trials of the book's search on 1, 2, 4 and 8 virtual devices of the same cores."""
    counts = (1, 2, 4, 8)
    runs = {n: [in_fresh_process("timed", data_dir, "100", str(n)) for _ in range(rounds)] for n in counts}
    run = {n: float(np.median([one["run"] for one in found])) for n, found in runs.items()}
    best = min(run.values())
    checks = [check("a device for each core / the best number of devices", run[CORES] / best, 1.1)]
    store("search_devices", {"run_seconds": run, "cores": os.cpu_count(), "checks": checks}, output)


def widths_once() -> dict[str, Any]:
    """Time searches on the digits with several widths, and with the one chosen automatically."""
    import jax
    import optax

    from jaxopt_study import problems, sweeps

    sweeps.use_cpu_cores(CORES)
    found: dict[str, Any] = {}
    cases = {
        "planar": (problems.planar.rosenbrock(), None, 8192, 1000),
        "digits 20": (problems.networks.mlp_classifier(problems.datasets.digits(), widths=(20,)), 32, 512, 100),
        "digits 100-100": (
            problems.networks.mlp_classifier(problems.datasets.digits(), widths=(100, 100)),
            64,
            64,
            100,
        ),
    }
    for name, (problem, batch_size, num_trials, num_steps) in cases.items():
        options: dict[str, Any] = {
            "num_trials": num_trials, "num_steps": num_steps, "key": jax.random.key(0), "batch_size": batch_size,
            "progress": False,
        }  # fmt: skip
        widths = [w for w in (1, 4, 16, 64, 256, 1024, 4096) if w <= num_trials // CORES and num_trials / w < 2000]
        times: dict[str, float] = {}
        for width in ["auto", *widths]:
            space = {"learning_rate": sweeps.log_uniform(1e-5, 1e-1)}
            runs = [sweeps.search(optax.adam, space, problem, width=width, **options) for _ in range(6)]
            times[str(width)] = float(np.median([one.run_seconds for one in runs[1:]]))
            if width == "auto":
                chosen = runs[0].layout["width"]
        found[name] = {"run_seconds": times, "chosen": chosen, "trials": num_trials}
    return found


def widths(data_dir: str, rounds: int, output: Path | None) -> None:
    """Measure trials a second against trials at once, and the width chosen automatically."""
    runs = [in_fresh_process("widths") for _ in range(rounds)]
    checks, found = [], {}
    for name in runs[0]:
        times = {
            w: float(np.median([run[name]["run_seconds"][w] for run in runs])) for w in runs[0][name]["run_seconds"]
        }
        found[name] = runs[0][name] | {"run_seconds": times}
        checks.append(check(f"{name}: the width chosen / the best", times["auto"] / min(times.values()), 1.1))
    store("search_widths", {"work": found, "checks": checks}, output)


def journal_once(data_dir: str) -> dict[str, Any]:
    """Time searches with and without a journal and progress, in turn."""
    search = book_search(data_dir, CORES)
    times: dict[str, list[float]] = {"without": [], "with": []}
    search()
    for _ in range(6):
        times["without"].append(search().run_seconds)
        with tempfile.TemporaryDirectory() as folder:
            times["with"].append(search(journal=folder).run_seconds)
    return times


def journal(data_dir: str, rounds: int, output: Path | None) -> None:
    """Measure the cost of journal and progress."""
    runs = [in_fresh_process("journal", data_dir) for _ in range(rounds)]
    times = {name: [t for run in runs for t in run[name]] for name in runs[0]}
    cost = ratio(times, "with", "without")
    checks = [check("a search with its journal / without", cost["median"], 1.02)]
    store("search_journal", {"times": summary(times), "ratio": cost, "checks": checks}, output)


PARTS = {"book": book_once, "small": small_once, "timed": book_timed, "widths": widths_once, "journal": journal_once}
BENCHMARKS = {"book": (book, 5), "small": (small, 3), "trials": (trials, 3), "devices": (devices, 3),
              "widths": (widths, 2), "journal": (journal, 2)}  # fmt: skip


def main() -> None:
    """Run the benchmarks named on the command line."""
    if sys.argv[1:2] == ["--part"]:
        print(json.dumps(PARTS[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=list(BENCHMARKS))
    parser.add_argument("--data-dir", required=True, help="folder with MNIST's four IDX files")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--output", type=output_file, help="a file instead of benchmarks/results")
    options = parser.parse_args()
    for name in options.names:
        run, rounds = BENCHMARKS[name]
        print(name, flush=True)
        run(options.data_dir, options.rounds or rounds, options.output)


if __name__ == "__main__":
    main()
