"""The commands `jaxopt-study optimizers`, `problems` and `explain`."""

import inspect
from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxopt_study import optimizers, problems
from jaxopt_study.cli._expressions import read_optimizer
from jaxopt_study.cli._options import Explain, Optimizers, Problems
from jaxopt_study.cli._runner import Job
from jaxopt_study.problems import Problem
from jaxopt_study.transforms import Transform

KINDS: dict[str, tuple[str, str]] = {
    "minimum": ("minimum", "minima"),
    "saddle": ("saddle", "saddles"),
    "maximum": ("maximum", "maxima"),
    "degenerate": ("degenerate point", "degenerate points"),
}


def list_optimizers(options: Optimizers, job: Job) -> int:
    """Print the named optimizers with their arguments.

    Returns:
        The exit code.
    """
    table = Table("optimizer", "summary and arguments", box=None, pad_edge=False)
    for name, constructor in optimizers.named().items():
        summary = (inspect.getdoc(constructor) or "").splitlines()[0]
        table.add_row(name, Text(f"{summary}\n{_arguments(constructor)}"))
    job.console.print(table, markup=False)
    job.console.print("\nThe defaults are those of the first convention. Changes by another one:", markup=False)
    job.console.print("jaxopt-study explain 'adam(1e-3)' \"adam(1e-3, convention='saito2016')\"", markup=False)
    return 0


def list_problems(options: Problems, job: Job) -> int:
    """Print the problems that can be built by name.

    Returns:
        The exit code.
    """
    table = Table("problem", "summary and known properties", box=None, pad_edge=False)
    for name, constructor in problems.catalogue().items():
        summary = (inspect.getdoc(constructor) or "").splitlines()[0].removeprefix("Build ")
        table.add_row(name, Text(f"{summary}\n{_known(constructor())}"))
    job.console.print(table, markup=False)
    job.console.print("\nIn Python: problems.catalogue()['rosenbrock']()", markup=False)
    return 0


def explain(options: Explain, job: Job) -> int:
    """Print the first difference between two optimizers.

    Returns:
        The exit code.

    Raises:
        UserError: If one cannot be parsed or built.
    """
    first, second = read_optimizer(options.a), read_optimizer(options.b)
    for title, tx in (("first: ", first), ("second:", second)):
        job.say(f"{title} {_written(tx)}", soft_wrap=True)
    job.say(str(optimizers.explain_difference(first, second)), soft_wrap=True)
    return 0


def _arguments(constructor: Any) -> str:
    """Return the arguments as in a call, with the defaults of the first convention."""
    conventions = constructor.constructor.conventions
    defaults = dict(conventions[0][1]) if conventions else {}
    written = []
    for name, parameter in inspect.signature(constructor).parameters.items():
        default = defaults.get(name) if parameter.default is None else parameter.default
        if name == "convention":
            written.append("convention=" + "|".join(convention for convention, _ in conventions))
        elif default is parameter.empty:
            written.append(name)
        else:
            written.append(f"{name}={default}")
    return ", ".join(written)


def _known(problem: Problem) -> str:
    """Return the numbers of known critical points of each kind, the ends of the spectrum, and the domain."""
    counts = Counter(point.kind for point in problem.critical_points)
    points = [
        f"{counts[kind]} {one if counts[kind] == 1 else several}"
        for kind, (one, several) in KINDS.items()
        if counts[kind]
    ]
    known = [", ".join(points)] if points else []
    if problem.spectrum is not None:
        known.append(f"curvatures {problem.spectrum[0]:.3g} to {problem.spectrum[-1]:.3g}")
    if problem.domain is not None:
        (left, bottom), (right, top) = problem.domain
        known.append(f"x {left:g} to {right:g}, y {bottom:g} to {top:g}")
    return "; ".join(known)


def _written(tx: Any) -> str:
    return repr(tx) if isinstance(tx, Transform) else "a bare Optax transformation"
