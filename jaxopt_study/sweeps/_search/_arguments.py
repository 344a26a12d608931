"""Checks of the arguments that `search`, `compare` and `ablate` share, before anything is traced."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from jax.sharding import Mesh

from jaxopt_study._checks import check_choice, check_integer, describe_argument
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps._execution._layout import TRIALS
from jaxopt_study.sweeps._search._samplers import SamplerName
from jaxopt_study.sweeps._statistics._scores import sign_of
from jaxopt_study.types import Mode


def direction(who: str, metric: Any, mode: Mode | str | None, evaluated: Mapping[str, Mode | None]) -> Mode:
    """Return which values of a metric are better: as the caller says, or as the metric declares.

    Args:
        who: The function that was called, for the message.
        metric: The metric.
        mode: What the caller says; None takes what the metric declares.
        evaluated: What is evaluated, with what it declares.

    Returns:
        The direction.

    Raises:
        ValueError: If the metric is not evaluated, `mode` is unknown, or nobody says which values are better.
    """
    if not isinstance(metric, str) or metric not in evaluated:
        known = ", ".join(map(repr, sorted(evaluated)))
        raise ValueError(f"metric={metric!r} is not evaluated; evaluated are {known}.")
    found = evaluated[metric] if mode is None else mode
    if found is None:
        raise ValueError(
            f"{who} must know which values of {metric!r} are better, and the metric does not say: give mode='max' or "
            "mode='min', or declare it in the metrics of the problem as problems.Metric(fn, mode='max')."
        )
    return "min" if sign_of(found) > 0 else "max"


def selection(
    who: str, metric: str, select_by: str | None, mode: Any, select_mode: Any
) -> tuple[str, Mode | str | None, Mode | str | None]:
    """Return by what settings are chosen, and which values of what is reported and of that are better, if said.

    Args:
        who: The function that was called.
        metric: What is reported.
        select_by: What chooses; None takes `metric`.
        mode: Of `metric`.
        select_mode: Of `select_by`; None takes `mode` where they are the same.

    Returns:
        `select_by`, `mode` and `select_mode`.

    Raises:
        TypeError: If `select_by` is no name.
        ValueError: If a direction is unknown, or one metric is given two.
    """
    check_choice(who, "mode", mode, ("min", "max", None))
    check_choice(who, "select_mode", select_mode, ("min", "max", None))
    if select_by is not None and not isinstance(select_by, str):
        raise TypeError(f"{who} needs select_by to be the name of a metric; received {describe_argument(select_by)}.")
    if select_by is not None and select_by != metric:
        return select_by, mode, select_mode
    if mode and select_mode and mode != select_mode:
        raise ValueError(f"{who}: {metric!r} is reported and chooses; received mode={mode!r} and another select_mode.")
    return metric, mode or select_mode, mode or select_mode


def common_direction(who: str, metric: Any, mode: Mode | str | None, problems: Iterable[Problem]) -> Mode:
    """Return which values of a metric are better on several problems, as `direction`.

    Args:
        who: The function that was called.
        metric: "loss" or the name of a metric that all problems have.
        mode: What the caller says.
        problems: The problems.

    Returns:
        The direction.

    Raises:
        ValueError: As `direction`, or if a problem lacks the metric, or they declare different directions.
    """
    found: set[Mode] = {
        direction(who, metric, mode, {name: one.mode_of(name) for name in ("loss", *one.metrics)}) for one in problems
    }
    if len(found) > 1:
        raise ValueError(f"{who}: the problems declare different directions of {metric!r}; give mode='max' or 'min'.")
    return found.pop()


def check_run(
    who: str, *, mesh: Any, width: Any, journal: Any, progress: Any, sampler: Any = "random", **counts: tuple[Any, int]
) -> None:
    """Refuse counts out of range, and what is no mesh with an axis "trials", no width, journal, progress or sampler.

    Args:
        who: The function that was called.
        mesh: As in `search`.
        width: As in `search`.
        journal: As in `search`.
        progress: As in `search`.
        sampler: One of the names.
        **counts: By name, an integer and the least it may be.

    Raises:
        TypeError: If one is of another kind.
        ValueError: If one is out of range, or the mesh has no such axis.
    """
    for name, (count, least) in counts.items():
        check_integer(who, name, count, least)
    check_choice(who, "sampler", sampler, get_args(SamplerName))
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"{who} needs mesh to be a jax.sharding.Mesh, jax.make_mesh((n,), ({TRIALS!r},)), or None for all devices; "
            f"received {describe_argument(mesh)}."
        )
    if mesh is not None and TRIALS not in mesh.axis_names:
        raise ValueError(f"{who} spreads its trials over a mesh axis {TRIALS!r}; received {mesh.axis_names}.")
    if not (isinstance(width, str) and width == "auto"):
        check_integer(who, "width", width, 1, remedy='Or give "auto".')
    if journal is not None and not isinstance(journal, str | Path):
        raise TypeError(
            f"{who} needs journal to be the path of a folder, or None; received {describe_argument(journal)}."
        )
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise TypeError(
            f"{who} needs progress to be True, False, None or a function; received {describe_argument(progress)}."
        )
