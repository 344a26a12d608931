"""Candidates of `jaxopt-study compare`: the optimizers of Saito (2016) and the user's, with their spaces to tune."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study import optimizers
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import DEFAULT_RATE
from jaxopt_study.cli._spaces import RATE, default_space, read_space
from jaxopt_study.cli._user_modules import call_maker, import_maker
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import Candidate, Space
from jaxopt_study.training import train
from jaxopt_study.transforms import Transform

_OWN = re.compile(r"([\w:]+)\.(.+)")  # optimizer.hyperparameter=…


@dataclass(frozen=True)
class NamedCandidate:
    """A candidate of a comparison, with its settings for the contour problem.

    Attributes:
        name: Name in tables and figures.
        plane: The optimizer on the contour problem; None if it has no default settings.
        network: The optimizer on the network, with its space to tune.
        path: `module:function` of a user's optimizer.
    """

    name: str
    plane: optax.GradientTransformation | None
    network: Candidate
    path: str | None = None

    def with_settings(self, config: Mapping[str, Any]) -> optax.GradientTransformation:
        """Return the optimizer with the given values of its hyperparameters."""
        maker = self.network.make_optimizer
        return maker.replace(dict(config)) if isinstance(maker, Transform) else maker(**config)


def named_candidates(only: Iterable[str], own: Iterable[str], spaces: Iterable[str] = ()) -> dict[str, NamedCandidate]:
    """Return the candidates of a comparison by name: the optimizers of Saito (2016), then the user's.

    Args:
        only: Names among the optimizers of Saito (2016); none for all.
        own: `module:function` of each user's optimizer. An argument `learning_rate` of the function is tuned.
        spaces: Dimensions to tune instead of the learning rate, each `OPTIMIZER.NAME=KIND(…)` as in `read_space`.

    Raises:
        UserError: If a name is unknown, a function cannot be used, or a space cannot be parsed.
    """
    only, own = tuple(only), tuple(own)
    plane, network = optimizers.plane_optimizers(), optimizers.network_optimizers()
    # The paper's AdaDelta has no learning rate; with torch's factor of 1 it takes the same steps.
    network["adadelta"] = optimizers.adadelta(1.0, decay=0.95, eps=1e-6, convention="torch")
    if unknown := [name for name in only if name not in network]:
        raise UserError(f"--only {' '.join(unknown)}: unknown; expected names among {', '.join(network)}.")
    if twice := [path for path in own if own.count(path) > 1]:
        raise UserError(f"--optimizer {twice[0]} is given twice. Give it once.")
    names = only or tuple(network)
    makers: dict[str, Any] = {name: network[name] for name in names}
    paths: dict[str, str] = {}
    for path in own:
        short = path.rpartition(":")[2]
        name = path if short in network or short in makers else short
        makers[name], paths[name] = import_maker(path), path
    user_spaces = _spaces_of(spaces, makers)
    candidates = {}
    for name, maker in makers.items():
        space = user_spaces.get(name)
        if name in paths:
            candidates[name] = _users(name, paths[name], maker, space)
        else:
            candidate = Candidate(maker, space or default_space(maker))
            candidates[name] = NamedCandidate(name, plane[name], candidate)
    return candidates


def failure_of(candidate: NamedCandidate, problem: Problem) -> str | None:
    """Return the error that training with a candidate would raise, found by tracing alone; None if there is none."""
    config = _middle(candidate.network.space)
    traced = {name: jnp.asarray(value) for name, value in config.items() if isinstance(value, float)}
    fixed = {name: value for name, value in config.items() if name not in traced}

    def run(values: dict[str, Any]) -> Any:
        return train(problem, candidate.with_settings(fixed | values), num_steps=1, key=jax.random.key(0)).losses

    try:
        jax.eval_shape(run, traced)
    except Exception as error:  # a user's optimizer may raise anything
        return f"{type(error).__name__}: {error}"
    return None


def _users(name: str, path: str, maker: Any, space: Space | None) -> NamedCandidate:
    space = space or default_space(maker)
    if space is None:
        built = call_maker(path, maker)
        return NamedCandidate(name, built, Candidate(lambda: built), path)
    candidate = Candidate(maker, space)
    if candidate.defaults is None:  # its function has no default arguments
        rate = {RATE: DEFAULT_RATE} if RATE in space else {}
        call_maker(path, maker, **(_middle(space) | rate))
        return NamedCandidate(name, None, candidate, path)
    return NamedCandidate(name, call_maker(path, maker), candidate, path)


def _middle(space: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if space is None else Space(space).at(np.full((1, len(space)), 0.5))[0]


def _spaces_of(texts: Iterable[str], makers: Mapping[str, Any]) -> dict[str, Space]:
    grouped: dict[str, list[str]] = {}
    for text in texts:
        match = _OWN.fullmatch(text.strip())
        if match is None or match[1] not in makers:
            raise UserError(
                f'--space "{text}": expected OPTIMIZER.NAME=KIND(…), such as "adam.learning_rate=log(1e-4, 1)", with '
                f"one of {', '.join(makers)}."
            )
        grouped.setdefault(match[1], []).append(match[2])
    return {name: read_space(own) for name, own in grouped.items()}
