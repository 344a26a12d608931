"""Candidates of a comparison: a constructor of an optimizer, the space to tune, and the default settings."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import optax

from jaxopt_study._checks import describe_argument
from jaxopt_study.sweeps._execution._trials import MakeOptimizer
from jaxopt_study.sweeps._space._space import as_space
from jaxopt_study.transforms import Transform


@dataclass(frozen=True, eq=False)
class Candidate:
    """One optimizer in a comparison.

    Attributes:
        make_optimizer: A function of hyperparameters that returns any Optax transformation; or a `Transform`, whose
            hyperparameters are named by their paths.
        space: The space to tune; None for nothing.
        defaults: Settings without tuning, a value for each name of the space. None takes the values in the `Transform`,
            or the default arguments of the function; if a name has no default, only the tuned candidate is reported.

    Raises:
        ValueError: If the names of `defaults` differ from those of the space.
        TypeError: If `make_optimizer` is neither a function nor a `Transform`.
    """

    make_optimizer: MakeOptimizer
    space: Mapping[str, Any] | None = None
    defaults: Mapping[str, Any] | None = None
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        if not callable(self.make_optimizer) and not isinstance(self.make_optimizer, Transform):
            raise TypeError(
                "A candidate needs make_optimizer to be a function that returns an optimizer, or a Transform; "
                f"received {self.make_optimizer!r}. Pass an Optax transformation without hyperparameters to tune as "
                "lambda: optimizer."
            )
        space = self.space if self.space is None else as_space(self.space)
        object.__setattr__(self, "space", space)
        names = tuple(space or ())
        object.__setattr__(self, "names", names)
        if self.defaults is None:
            object.__setattr__(self, "defaults", _defaults(self.make_optimizer, names))
        elif not isinstance(self.defaults, Mapping):
            raise TypeError(
                "A candidate needs defaults to be a mapping of names to values; received "
                f"{describe_argument(self.defaults)}."
            )
        else:
            needed = {name for name in names if space is not None and space.active(name, self.defaults)}
            if not needed <= set(self.defaults) <= set(names):
                raise ValueError(
                    f"A candidate needs defaults for exactly the names of its space, {', '.join(names) or 'none'}; "
                    f"received {dict(self.defaults)}."
                )


def as_candidate(name: str, given: Any) -> Candidate:
    """Return a `Candidate` from a candidate, a transformation without a space, or a pair (function, space)."""
    if isinstance(given, Candidate):
        return given
    if isinstance(given, Transform):
        return Candidate(given)
    if isinstance(given, optax.GradientTransformation):
        return Candidate(lambda: given)
    if isinstance(given, tuple) and len(given) == 2:
        return Candidate(*given)
    raise TypeError(
        f"Candidate {name!r}: expected a Candidate, a transformation, or a pair (function, space); received {given!r}."
    )


def _defaults(maker: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    if isinstance(maker, Transform):
        paths = maker.hyperparams
        defaults = {name: [paths[path] for path in paths if f".{path}".endswith(f".{name}")] for name in names}
        return {name: values[0] for name, values in defaults.items()} if all(defaults.values()) else None
    parameters = inspect.signature(maker).parameters
    defaults = {name: parameters[name].default for name in names if name in parameters}
    given = all(value is not inspect.Parameter.empty for value in defaults.values())
    return defaults if given and len(defaults) == len(names) else None
