"""Cards of the results of training: what each shows in a terminal and in a notebook."""

from typing import Any

import jax
import numpy as np

from jaxopt_study._display import Card, array, count, curves, extent, memory, number, scalar, several


def diagnosis(found: Any) -> Card:
    """Return the card of a `Diagnosis`."""
    rows = [(name.replace("_", " "), number(value), "") for name, value in found.statistics.items()]
    return Card(f"Diagnosis: {found.finding}", rows, notes=[f"{found.evidence} {found.advice}"])


def trajectory(found: Any) -> Card:
    """Return the card of a `Trajectory`, of one run or of many."""
    losses = array(found.losses, np.ndim(found.diverged) + 1)
    return _of_one(found, losses) if losses.ndim == 1 else _of_many(found, losses)


def columns_of_trajectory(found: Any) -> dict[str, Any]:
    """Return the columns of the table of a `Trajectory`: a row for each step, or each step and run.

    The evaluations stand at the steps before which they were made; elsewhere they are NaN.
    """
    losses = np.asarray(found.losses, float)
    runs = losses.reshape(-1, losses.shape[-1])
    at = np.asarray(found.evaluations.get("step", np.zeros((len(runs), 0), int))).reshape(len(runs), -1)[0]
    num_steps = max(runs.shape[1], int(at.max(initial=-1)) + 1)
    whole = np.full((len(runs), num_steps), np.nan)
    whole[:, : runs.shape[1]] = runs
    columns = {"step": np.tile(np.arange(num_steps), len(runs)), "batch_loss": whole.ravel()}
    if losses.ndim > 1:
        columns = {"run": np.repeat(np.arange(len(runs)), num_steps)} | columns
    for name, values in found.evaluations.items():
        if name != "step":
            spread = np.full((len(runs), num_steps), np.nan)
            spread[:, at] = np.asarray(values, float).reshape(len(runs), -1)
            columns[name] = spread.ravel()
    return columns


def _of_one(found: Any, losses: Any) -> Card:
    taken, requested = scalar(found.num_steps), len(losses)
    ended = "complete"
    if scalar(found.diverged):
        ended = f"diverged at step {count(scalar(found.diverged_at))}"
    elif scalar(found.stopped_early):
        ended = "stopped early"
    elif taken < requested:
        ended = "interrupted"
    elif found.stalled is not None and scalar(found.stalled):
        ended = f"stalled after step {count(scalar(found.last_moved))}"
    rows = [("steps", count(taken), f"of {count(requested)}" if taken < requested else "")]
    if taken:
        rows.append(("batch loss", f"{number(losses[0].item())} → {number(losses[taken - 1].item())}", ""))
    for name, values in found.evaluations.items():
        seen = array(values)
        known = np.flatnonzero(np.isfinite(seen))
        if name != "step" and len(known):
            first, last = number(seen[known[0]].item()), number(seen[known[-1]].item())
            rows.append((name.replace("_", " "), f"{first} → {last}", f"{len(known)} evaluations"))
    if found.best_step is not None:
        rows.append(("best step", count(scalar(found.best_step)), ""))
    picture = lambda: curves(
        np.arange(requested), [losses], label="training loss of each step", log_y=_spread(losses), xlabel="loss by step"
    )
    return Card(f"Trajectory: {ended}", [*rows, *_holdings(found)], picture=picture if taken else None)


def _of_many(found: Any, losses: Any) -> Card:
    shape = losses.shape[:-1]
    lost = int(array(found.diverged, len(shape)).sum())
    steps = array(found.num_steps, len(shape))
    runs = losses.reshape(-1, losses.shape[-1])
    last = np.array([run[np.isfinite(run)][-1] if np.isfinite(run).any() else np.nan for run in runs])
    rows = [
        ("runs", " × ".join(map(count, shape)), f"{count(lost)} diverged" if lost else ""),
        ("steps", extent(steps.astype(float)), f"of {count(losses.shape[-1])}"),
        ("last batch loss", extent(last), ""),
    ]
    for name, values in found.evaluations.items():
        if name != "step" and np.ndim(values) == len(shape) + 1:
            rows.append((name.replace("_", " "), extent(array(values, len(shape) + 1)[..., -1]), "at the end"))
    return Card(f"Trajectory: {several(len(runs), 'run')}", [*rows, *_holdings(found)])


def _holdings(found: Any) -> list[tuple[str, str, str]]:
    """Return rows of what a trajectory holds: parameters, state, snapshots, measurements and taps."""
    rows = []
    for name, tree in (("parameters", found.params), ("optimizer state", found.opt_state)):
        leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes")]
        numbers = sum(leaf.size for leaf in leaves)
        rows.append((name, f"{count(numbers)} numbers", memory(sum(leaf.nbytes for leaf in leaves))))
    for name, steps in (("snapshots", found.snapshot_steps), ("measurements", found.probe_steps)):
        if steps is not None:
            rows.append((name, count(np.shape(steps)[-1]), "along the run"))
    if found.taps:
        rows.append(("taps", ", ".join(map(str, found.taps)), "metrics of every step"))
    return rows


def _spread(values: Any) -> bool:
    """Return whether positive values span so much that a logarithmic axis shows them better."""
    seen = values[np.isfinite(values)]
    return bool(seen.size and seen.min() > 0 and seen.max() > 20 * seen.min())
