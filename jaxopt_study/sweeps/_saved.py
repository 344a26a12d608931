"""Searches, comparisons and ablations as records: data only, so that reading a file never runs code."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import records
from jaxopt_study.sweeps._execution._lost_trials import LostTrials
from jaxopt_study.sweeps._space._options import Choices, Conditional
from jaxopt_study.sweeps._space._ranges import Integers, LogUniform, Uniform
from jaxopt_study.sweeps._space._space import Space

KIND = "sweep"
LOST = "this result was read from a file, which holds no functions. Repeat the run to replay its trials."
_RANGES: Mapping[str, Callable[..., Any]] = {"uniform": Uniform, "log_uniform": LogUniform, "integers": Integers}


def save(name: str, content: Mapping[str, Any], path: str | Path) -> Path:
    """Write the content of a result as a record.

    Args:
        name: Name of its class in lower case.
        content: Plain values, and arrays from `from_array`.
        path: The file.

    Returns:
        The path.
    """
    return records.save(records.Record(KIND, name, config={}, results=content), path)


def load(name: str, path: str | Path, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Return the result that `make` builds from the content of a record.

    Args:
        name: Name of its class in lower case.
        path: The file.
        make: A function of the content.

    Returns:
        What `make` returns.

    Raises:
        RecordError: If the file holds something else.
    """
    record = records.load(path)
    if (record.kind, record.name) != (KIND, name):
        raise records.RecordError(f"{path} holds {record.kind} {record.name!r}; expected a saved {name}.")
    try:
        found = make(record.results)
        repr(found)  # reads every number that is shown
        found.to_pandas()  # and every array
    except records.MALFORMED as error:
        raise records.RecordError(
            f"{path} does not hold a {name} ({type(error).__name__}: {error}). Save it again."
        ) from error
    return found


def from_array(values: Any) -> dict[str, Any]:
    """Return an array as plain values, with its dtype."""
    values = np.asarray(values)
    return {"dtype": str(values.dtype), "shape": list(values.shape), "values": values.ravel().tolist()}


def to_array(plain: Mapping[str, Any]) -> np.ndarray:
    """Return the array of plain values; raise ValueError unless it is one of numbers."""
    dtype = np.dtype(str(plain["dtype"]))
    if not (dtype.kind == "b" or jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"an array of {dtype} is not numeric")
    return np.array(plain["values"], dtype).reshape([int(size) for size in plain["shape"]])


def from_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by name as plain values."""
    return {name: from_array(values) for name, values in arrays.items()}


def to_arrays(plain: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays by name from plain values."""
    return {str(name): to_array(values) for name, values in plain.items()}


def from_keys(keys: Any) -> dict[str, Any] | None:
    """Return random keys as plain values."""
    if keys is None:
        return None
    return {"impl": str(jax.random.key_impl(keys)), "data": from_array(jax.random.key_data(keys))}


def to_keys(plain: Mapping[str, Any] | None) -> Any:
    """Return random keys from plain values."""
    if plain is None:
        return None
    return jax.random.wrap_key_data(jnp.asarray(to_array(plain["data"])), impl=str(plain["impl"]))


def from_space(space: Space) -> dict[str, Any]:
    """Return the definition of a space as plain values."""
    return {name: dimension.describe() for name, dimension in space.items()}


def to_space(plain: Mapping[str, Any]) -> Space:
    """Return a space from the description of its dimensions."""
    return Space({name: _dimension(described) for name, described in plain.items()})


def _dimension(described: Mapping[str, Any]) -> Any:
    given = dict(described)
    kind = given.pop("kind")
    if kind == "choices":
        return Choices(tuple(_frozen(option) for option in given["options"]), static=given["static"])
    if kind == "conditional":
        return Conditional(_dimension(given["dimension"]), on=given["on"], equals=_frozen(given["equals"]))
    return _RANGES[kind](**given)


def _frozen(value: Any) -> Any:
    """Return a list of JSON as the tuple that it was."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def lost(num_steps: int) -> LostTrials:
    """Return the place of the functions of a result that was read from a file."""
    return LostTrials(num_steps, LOST)


def from_search(found: Any) -> dict[str, Any]:
    """Return a search as plain values, without the functions of its trials."""
    whole = {name: getattr(found, name) for name in ("metric", "mode", "compile_seconds", "run_seconds")}
    arrays = {name: from_array(getattr(found, name)) for name in _OF_SEARCH}
    return whole | arrays | {
        "space": from_space(found.space), "configs": found.configs, "layout": found.layout,
        "curves": from_arrays(found.curves), "reports": from_arrays(found.reports), "keys": from_keys(found.seed_keys),
    }  # fmt: skip


def to_search(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Search` from plain values."""
    arrays = {name: to_array(plain[name]) for name in _OF_SEARCH}
    configs, metric, curves = plain["configs"], str(plain["metric"]), to_arrays(plain["curves"])
    if len(configs) != len(arrays["points"]):
        raise ValueError(f"there are {len(configs)} configurations for {len(arrays['points'])} trials")
    _check_curves(curves, metric, len(arrays["points"]), len(arrays["steps"]))
    return arrays | {
        "space": to_space(plain["space"]), "configs": [_config(config) for config in configs],
        "metric": metric, "mode": _mode(plain["mode"]), "curves": curves,
        "reports": to_arrays(plain["reports"]), "layout": dict(plain["layout"]),
        "compile_seconds": float(plain["compile_seconds"]), "run_seconds": float(plain["run_seconds"]),
        "trials": lost(int(arrays["steps"][-1])), "seed_keys": to_keys(plain["keys"]),
    }  # fmt: skip


def from_report(found: Any) -> dict[str, Any]:
    """Return a report as plain values, without parameters and functions."""
    whole = {name: getattr(found, name) for name in (*_NAMES, "config", "fixed", "seconds_per_step")}
    arrays = {name: from_array(getattr(found, name)) for name in _OF_REPORT}
    return whole | arrays | {
        "finals": from_arrays(found.finals), "curves": from_arrays(found.curves), "keys": from_keys(found.seed_keys),
    }  # fmt: skip


def to_report(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Report` from plain values."""
    arrays = {name: to_array(plain[name]) for name in _OF_REPORT}
    return arrays | {name: str(plain[name]) for name in _NAMES} | {
        "config": _config(plain["config"]), "fixed": _config(plain["fixed"]), "finals": to_arrays(plain["finals"]),
        "curves": to_arrays(plain["curves"]), "seconds_per_step": float(plain["seconds_per_step"]),
        "trials": lost(int(arrays["steps"][-1])), "seed_keys": to_keys(plain["keys"]),
    }  # fmt: skip


def from_comparison(found: Any) -> dict[str, Any]:
    """Return a comparison as plain values."""
    names = ("budget", "metric", "selected_by", "mode", "select_mode", "complete")
    searches = [
        {"problem": problem, "candidate": candidate, "search": from_search(search)}
        for (problem, candidate), search in found.searches.items()
    ]
    whole = {name: getattr(found, name) for name in names}
    return whole | {"reports": [from_report(report) for report in found.reports], "searches": searches}


def to_comparison(plain: Mapping[str, Any], report: Any, search: Any) -> dict[str, Any]:
    """Return the arguments of `Comparison` from plain values, given the classes `Report` and `Search`."""
    searches = {
        (str(entry["problem"]), str(entry["candidate"])): search(**to_search(entry["search"]))
        for entry in plain["searches"]
    }
    reports, selected_by = [report(**to_report(entry)) for entry in plain["reports"]], str(plain["selected_by"])
    for one in reports:
        _check_curves(one.curves, selected_by, len(one.scores), len(one.steps))
    return {
        "reports": reports, "searches": searches,
        "budget": int(plain["budget"]), "metric": str(plain["metric"]), "selected_by": selected_by,
        "mode": _mode(plain["mode"]), "select_mode": _mode(plain["select_mode"]), "complete": bool(plain["complete"]),
    }  # fmt: skip


_OF_SEARCH = ("points", "steps", "diverged_at", "stalled", "num_steps", "finished")
_OF_REPORT = ("scores", "steps", "diverged", "stalled")
_NAMES = ("problem", "candidate", "settings")


def _check_curves(curves: Mapping[str, np.ndarray], metric: str, runs: int, evaluations: int) -> None:
    """Raise ValueError unless there is a curve of the metric for every run."""
    shape = curves[metric].shape if metric in curves else None
    if shape is None or (shape[0], shape[-1]) != (runs, evaluations):
        raise ValueError(f"{runs} runs of {evaluations} evaluations need curves of {metric!r}; received {shape}")


def _config(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _frozen(value) for name, value in plain.items()}


def _mode(plain: Any) -> str:
    if plain not in ("min", "max"):
        raise ValueError(f'a direction is "min" or "max"; received {plain!r}')
    return plain
