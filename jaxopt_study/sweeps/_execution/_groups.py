"""Groups of lanes that share a compiled program."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Integer, Real, Shaped

from jaxopt_study.records import environment
from jaxopt_study.sweeps._execution import _compile as compilation
from jaxopt_study.sweeps._execution._layout import Layout, batch_axes
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._execution._values import explain_branches
from jaxopt_study.types import Key


@dataclass(frozen=True)
class Group:
    """The lanes of one program."""

    lane_ids: Integer[np.ndarray, " lanes"]  # indices of the lanes
    lanes: dict[str, Any]  # arguments of the lanes, with a leading axis
    shared: dict[str, Any]
    traced: compilation.Traced
    layout: Layout


def by_program(cases: Sequence[tuple[Trials, Mapping[str, Any]]]) -> list[list[int]]:
    """Return the indices of the cases that share a program, for each program."""
    groups: dict[Any, list[int]] = {}
    for i, (trials, config) in enumerate(cases):
        groups.setdefault((id(trials), repr(_fixed(trials, config)), tuple(config)), []).append(i)
    return list(groups.values())


def _fixed(trials: Trials, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the static hyperparameters, which include all that are not numbers, such as None."""
    return {name: value for name, value in config.items() if name in trials.static or not _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def group_of(
    cases: Sequence[tuple[Trials, Mapping[str, Any]]],
    members: list[int],
    seed_keys: Shaped[Key, " seeds"],
    mesh: Mesh,
    *,
    report: bool = True,
    most_seeds: int = 1,
) -> Group:
    """Return the lanes of the cases that share a program, which is traced unless their trials already did so.

    Args:
        cases: As in `sweep`.
        members: Indices of the cases.
        seed_keys: As in `sweep`.
        mesh: As in `sweep`, with automatic axes.
        report: As in `sweep`.
        most_seeds: As in `sweep`.
    """
    num_seeds = len(seed_keys)
    rows = np.minimum(np.arange(max(num_seeds, most_seeds)), num_seeds - 1)  # repeats the last seed
    trials, first = cases[members[0]]
    fixed = _fixed(trials, first)
    varying = {name: _numbers([cases[i][1][name] for i in members]) for name in first if name not in fixed}
    lanes = {
        "values": {name: np.repeat(values, num_seeds) for name, values in varying.items()},
        "seed": np.tile(np.arange(num_seeds, dtype=np.int32), len(members)),
    }
    values = {name: numbers[0] for name, numbers in varying.items()}
    program_key = repr(fixed), tuple(varying), mesh
    shared_key = *program_key, np.asarray(jax.random.key_data(seed_keys)).tobytes(), len(rows), report
    if shared_key not in trials.shared_by_key:
        trials.shared_by_key[shared_key] = trials.shared(fixed, values, seed_keys[rows], report=report)
    shared = trials.shared_by_key[shared_key]
    one = jax.tree.map(lambda x: x[0], lanes)
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), (one, shared))
    program_key = *program_key, repr(shapes)
    if program_key not in trials.traced:
        start = trials.start(fixed) if trials.start_varies() else None
        lane = trials.lane(fixed, batch_axes(mesh))
        try:
            trials.traced[program_key] = compilation.trace(lane, start, one, shared, mesh)
        except Exception as error:
            explain_branches(error, trials, first, values)
            raise
    traced = trials.traced[program_key]
    lane_ids = (np.asarray(members)[:, None] * num_seeds + np.arange(num_seeds)).ravel()
    position = np.zeros(lane_ids.max() + 1, np.int64)
    position[lane_ids] = np.arange(len(lane_ids))
    return Group(lane_ids, jax.tree.map(lambda x: x[position], lanes), shared, traced, Layout(mesh))


def _numbers(values: list[Any]) -> Real[np.ndarray, " trials"]:
    numbers = np.array(values)
    if numbers.dtype.kind not in "fi":
        raise TypeError(f"Traced hyperparameters must be numbers; received {values[0]!r}. Make them static.")
    if jax.config.read("jax_enable_x64"):
        return numbers
    narrow = numbers.astype(np.float32 if numbers.dtype.kind == "f" else np.int32)
    if lost := numbers[(narrow == 0) & (numbers != 0)].tolist():
        raise ValueError(
            f"A sweep runs in single precision, where {lost[0]!r} underflows to 0. Search values above "
            f"{np.finfo(np.float32).tiny:.2g}, or set jax_enable_x64."
        )
    return narrow


def blank_records(
    traced: Sequence[compilation.Traced], metric: str, total: int
) -> dict[str, Shaped[np.ndarray, "{total} ..."]]:
    """Return records of all lanes without values; raise ValueError if the trials evaluate different metrics."""
    like = traced[0].record
    for other in traced[1:]:
        if other.record != like:
            raise ValueError(
                "All trials of a sweep must evaluate the same metrics at the same steps; received "
                f"{sorted(like)} and {sorted(other.record)}. Sweep the problems one at a time."
            )
    if metric not in like or len(like[metric].shape) != 1:
        known = [what for what, x in like.items() if len(x.shape) == 1]
        listed = ", ".join(map(repr, sorted(known)))
        raise ValueError(f"metric={metric!r} is not among the evaluated metrics: {listed}.")
    blank = {what: np.nan if jnp.issubdtype(x.dtype, np.floating) else 0 for what, x in like.items()}
    return {what: np.full((total, *x.shape), blank[what], x.dtype) for what, x in like.items()}


def identity_of(groups: Sequence[Group]) -> dict[str, Any]:
    """Return the programs, data, layouts and versions, which together determine the results of groups."""
    return {
        "programs": [group.traced.fingerprint for group in groups],
        "data": [_hash_of(group.shared["examples"]) for group in groups],
        "starts": [_hash_of(group.shared["starts"]) for group in groups],
        "layout": [group.layout.describe() for group in groups],
        "versions": environment()["versions"],
    }


def _hash_of(arrays: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(arrays):
        values = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {values.shape} {values.dtype}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
