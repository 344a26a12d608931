"""Validation of the arguments shared by `search`, `compare` and `ablate`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from jax.sharding import Mesh

from jaxopt_study._checks import check_choice, check_integer, describe_argument
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps._execution._keys import refuse_traced
from jaxopt_study.sweeps._execution._layout import TRIALS
from jaxopt_study.sweeps._search._samplers import SamplerName
from jaxopt_study.sweeps._statistics._scores import sign_of
from jaxopt_study.types import Mode


def direction(who: str, metric: Any, mode: Mode | str | None, evaluated: Mapping[str, Mode | None]) -> Mode:
    """Return the direction of a metric, as given by the caller or declared by the metric.

    Args:
        who: The function that was called, for the message.
        metric: The metric.
        mode: The caller's direction; None takes the one that the metric declares.
        evaluated: The evaluated metrics with their declared directions.

    Returns:
        The direction.

    Raises:
        ValueError: If the metric is not evaluated, `mode` is unknown, or there is no direction.
    """
    if not isinstance(metric, str) or metric not in evaluated:
        known = ", ".join(map(repr, sorted(evaluated)))
        raise ValueError(f"metric={metric!r} is not among the evaluated metrics: {known}.")
    declared = evaluated[metric] if mode is None else mode
    if declared is None:
        raise ValueError(
            f"{who} needs a direction for {metric!r}, but the metric declares none. Give mode='max' or mode='min', or "
            "declare it in the metrics of the problem as problems.Metric(fn, mode='max')."
        )
    return "min" if sign_of(declared) > 0 else "max"


def selection(
    who: str, metric: str, select_by: str | None, mode: Any, select_mode: Any
) -> tuple[str, Mode | str | None, Mode | str | None]:
    """Return the selecting metric, and the given directions of the reported and of the selecting metric.

    Args:
        who: The function that was called.
        metric: The reported metric.
        select_by: The selecting metric; None takes `metric`.
        mode: Direction of `metric`.
        select_mode: Direction of `select_by`; None takes `mode` if the metrics are the same.

    Returns:
        `select_by`, `mode` and `select_mode`.

    Raises:
        TypeError: If `select_by` is not a string.
        ValueError: If a direction is unknown, or one metric is given two.
    """
    check_choice(who, "mode", mode, ("min", "max", None))
    check_choice(who, "select_mode", select_mode, ("min", "max", None))
    if select_by is not None and not isinstance(select_by, str):
        raise TypeError(f"{who} needs select_by to be the name of a metric; received {describe_argument(select_by)}.")
    if select_by is not None and select_by != metric:
        return select_by, mode, select_mode
    if mode and select_mode and mode != select_mode:
        raise ValueError(
            f"{who}: {metric!r} is both reported and selecting; received mode={mode!r} and another select_mode. Give "
            "only mode."
        )
    return metric, mode or select_mode, mode or select_mode


def common_direction(who: str, metric: Any, mode: Mode | str | None, problems: Iterable[Problem]) -> Mode:
    """Return the direction of a metric on several problems, as `direction` does.

    Args:
        who: The function that was called.
        metric: "loss" or the name of a metric that all problems have.
        mode: The caller's direction, or None.
        problems: The problems.

    Returns:
        The direction.

    Raises:
        ValueError: As in `direction`, or if a problem lacks the metric, or the problems declare different directions.
    """
    modes: set[Mode] = {
        direction(who, metric, mode, {name: one.mode_of(name) for name in ("loss", *one.metrics)}) for one in problems
    }
    if len(modes) > 1:
        raise ValueError(f"{who}: the problems declare different directions of {metric!r}; give mode='max' or 'min'.")
    return modes.pop()


def check_run(
    who: str,
    *,
    key: Any,
    mesh: Any,
    width: Any,
    journal: Any,
    progress: Any,
    sampler: Any = "random",
    **counts: tuple[Any, int],
) -> None:
    """Raise for a traced key, or invalid counts, mesh, width, journal, progress or sampler.

    Args:
        who: The function that was called.
        key: As in `search`.
        mesh: As in `search`.
        width: As in `search`.
        journal: As in `search`.
        progress: As in `search`.
        sampler: One of the names in `SAMPLERS`.
        **counts: By name, an integer and its minimum.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an argument is out of range, or the mesh has no axis "trials".
    """
    refuse_traced(who, key)
    for name, (count, least) in counts.items():
        check_integer(who, name, count, least)
    check_choice(who, "sampler", sampler, get_args(SamplerName))
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"{who} needs mesh to be a jax.sharding.Mesh, jax.make_mesh((n,), ({TRIALS!r},)), or None for all devices; "
            f"received {describe_argument(mesh)}."
        )
    if mesh is not None and TRIALS not in mesh.axis_names:
        raise ValueError(f"{who} needs a mesh with an axis {TRIALS!r}; received the axes {mesh.axis_names}.")
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
