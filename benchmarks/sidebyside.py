"""Side-by-side timing: methods alternate in one process; medians, quartiles and the machine are stored."""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_study import files

RESULTS = Path(__file__).parent / "results"
_REST = 0.01  # seconds in which the threads of the method before stop waiting for work by spinning
PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "torch")


def alternate(methods: dict[str, Callable[[], Any]], *, rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Time every method once per round, in turn, so that a slow spell of the machine hits all of them.

    Each callable must return only when its work is done. Times are seconds per call.
    """
    for method in methods.values():
        method()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            time.sleep(_REST)
            began = time.perf_counter()
            for _ in range(calls):
                method()
            times[name].append((time.perf_counter() - began) / calls)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return median and quartiles of each method's times."""
    return {
        name: dict(
            zip(("lower_quartile", "median", "upper_quartile"), np.percentile(t, [25, 50, 75]).tolist(), strict=True)
        )
        | {"rounds": len(t)}
        for name, t in times.items()
    }


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> dict[str, float]:
    """Return median and quartiles, over the rounds, of one method's time over another's in the same round."""
    low, middle, high = np.percentile(np.array(times[ours]) / np.array(times[theirs]), [25, 50, 75])
    return {"lower_quartile": float(low), "median": float(middle), "upper_quartile": float(high)}


def check(name: str, value: float, bound: float, *, at_least: bool = False) -> dict[str, Any]:
    """Return a measured value with its target, and print both."""
    holds = value >= bound if at_least else value <= bound
    print(f"  {'ok  ' if holds else 'MISS'} {name}: {value:.3f} ({'≥' if at_least else '≤'} {bound})", flush=True)
    return {"name": name, "value": value, "bound": bound, "at_least": at_least, "holds": bool(holds)}


def machine() -> dict[str, Any]:
    """Describe processor, threads, load and versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_average_at_the_end": os.getloadavg(),
        "scheduling": {os.SCHED_FIFO: "real-time (chrt -f)", os.SCHED_OTHER: "normal"}.get(
            os.sched_getscheduler(0), "other"
        ),
        "python": platform.python_version(),
        "versions": versions,
        "date": date.today().isoformat(),
    }


def output_file(text: str) -> Path:
    """Return the path of a file that can be written, for an option; before anything is measured."""
    try:
        return files.check_place(text)
    except files.PathError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def store(name: str, record: dict[str, Any], output: Path | None) -> None:
    """Write a record, with the command that made it, as JSON."""
    path = output or RESULTS / f"{name}.json"
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_paths(sys.argv[1:])])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"command": command, "machine": machine()} | record, indent=1, ensure_ascii=False) + "\n"
    )
    print(f"wrote {path}", flush=True)


def _without_paths(arguments: list[str]) -> list[str]:
    shown = list(arguments)
    for i, argument in enumerate(shown):
        if i and shown[i - 1] in {"--data-dir", "--output"}:
            shown[i] = "DIR"
        elif argument.startswith(("--data-dir=", "--output=")):
            shown[i] = argument.split("=", 1)[0] + "=DIR"
    return shown


def table() -> str:
    """Return the checks of stored results as the rows of the README's table."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        load = record["machine"]["load_average_at_the_end"][0]
        parts = record.get("comparisons", [record])  # some results hold several comparisons
        named = [(f"{p['tree']}, {p['layout']}: " if "tree" in p else "", c) for p in parts for c in p["checks"]]
        for name, c in named:
            value = f"{c['value']:.3g}" if c["value"] == 0 or abs(c["value"]) >= 1e-3 else f"{c['value']:.1e}"
            verdict = "yes" if c["holds"] else "**no**"
            target = f"{'≥' if c['at_least'] else '≤'} {c['bound']:g}"
            rows.append(f"| `{path.name}` | {name}{c['name']} | {value} | {target} | {verdict} | {load:.1f} |")
    return "\n".join(rows)
