"""Samplers of the configurations of a search: random, on a grid, by a Sobol sequence, or of one's own choice."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Float

from jaxopt_study._checks import check_choice, check_integer
from jaxopt_study.sweeps._execution._keys import refuse_traced, study_key
from jaxopt_study.sweeps._space._dimension import Dimension
from jaxopt_study.sweeps._space._options import Choices, Conditional
from jaxopt_study.sweeps._space._ranges import Integers
from jaxopt_study.sweeps._space._space import Space, as_space
from jaxopt_study.types import Key

SamplerName = Literal["random", "grid", "sobol"]


@runtime_checkable
class Sampler(Protocol):
    """A sampler whose trials may depend on the scores of those before: it is asked for a few, and told their scores.

    Any object with these methods is a sampler of `search`; `OptunaSampler` is one. An attribute `mode`, "min" or "max",
    says which scores it takes for better, and a search with the other one is refused.
    """

    def ask(self, space: Space, count: int, *, num_trials: int) -> Sequence[tuple[Any, Mapping[str, Any]]]:
        """Return the next trials.

        Args:
            space: What is searched.
            count: At most how many, ≥ 1.
            num_trials: Of the whole search.

        Returns:
            Pairs of a handle, by which `tell` knows the trial, and a configuration in the space. None end the search.
        """
        ...

    def tell(self, handle: Any, score: float) -> Any:
        """Receive the score of a trial.

        Args:
            handle: From `ask`.
            score: The mean over the seeds; NaN if one of them diverged.
        """
        ...


def sample(
    space: Space | Mapping[str, Any], num_trials: int, *, sampler: SamplerName | str = "random", key: Key | None = None
) -> tuple[list[dict[str, Any]], Float[np.ndarray, "trials dimensions"]]:
    """Draw the configurations of a search.

    - "random": independent points, uniform in the unit cube. If only a few of the dimensions matter, random points try
      more of their values than a grid does.
    - "sobol": a randomly scrambled Sobol sequence, which fills the cube more evenly than random points; best for powers
      of two.
    - "grid": every combination of levels. Options and static integers take all their values; all other ranges take the
      same number of levels, evenly spaced in the unit coordinate and including both ends (a single level is the
      middle). Integers with fewer values take them all. A conditional name has levels only in the combinations in which
      it exists.

    Except on a grid, a longer search with the same key begins with the trials of a shorter one.

    Args:
        space: The search space, d dimensions by name.
        num_trials: n ≥ 1; for a grid, a number for which one exists.
        sampler: "random", "sobol" or "grid".
        key: Random key of the points, which are the same in every process and on every device. A grid needs none.

    Returns:
        n configurations, values by name, and their points in the unit cube, shape (n, d), float64, NaN for names that
        do not exist.

    Raises:
        TypeError: If `space` is not a space, or `key` is not a key.
        ValueError: If there are no trials, the sampler is unknown, a needed key is missing, or there is no grid of n
            trials; the message gives the nearest numbers with a grid.

    Example:
        >>> from jaxopt_study.sweeps import choices, uniform
        >>> space = Space({"method": choices("sgd", "adam"), "decay": uniform(0.0, 1.0)})
        >>> configs, points = sample(space, 6, sampler="grid")
        >>> [config["decay"] for config in configs]
        [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]
        >>> sample(space, 6, key=jax.random.key(0))[0] == sample(space, 9, key=jax.random.key(0))[0][:6]
        True

    References:
        Bergstra and Bengio (2012), Random Search for Hyper-Parameter Optimization, JMLR 13. Owen (1998), Scrambling
        Sobol' and Niederreiter–Xing Points; `scipy.stats.qmc.Sobol`.
    """
    space = as_space(space)
    num_trials = check_integer("sample", "num_trials", num_trials, 1)
    check_choice("sample", "sampler", sampler, get_args(SamplerName))
    if sampler == "grid":
        points = _grid(space, num_trials)
    elif key is None:
        raise ValueError(f"The sampler {sampler!r} needs a key; pass key=jax.random.key(0).")
    else:
        refuse_traced("sample", key)
        points = _SAMPLERS[sampler](len(space), num_trials, _generator(study_key("sample", key)))
    configs = space.at(points)
    exists = np.array([[name in config for name in space] for config in configs])
    return configs, np.where(exists, points, np.nan)


def _generator(key: Key) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)).tolist())


def _random(dimensions: int, num_trials: int, rng: np.random.Generator) -> Float[np.ndarray, "trials dimensions"]:
    return rng.random((num_trials, dimensions))


def _sobol(dimensions: int, num_trials: int, rng: np.random.Generator) -> Float[np.ndarray, "trials dimensions"]:
    most = scipy.stats.qmc.Sobol.MAXDIM
    if dimensions > most:
        raise ValueError(f"A Sobol sequence has at most {most} dimensions; the space has {dimensions}.")
    sequence = scipy.stats.qmc.Sobol(dimensions, scramble=True, rng=rng)
    return sequence.random_base2(math.ceil(math.log2(num_trials)))[:num_trials]


_SAMPLERS: dict[str, Callable[[int, int, np.random.Generator], Float[np.ndarray, "trials dimensions"]]] = {
    "random": _random,
    "sobol": _sobol,
}


def _grid(space: Space, num_trials: int) -> Float[np.ndarray, "trials dimensions"]:
    levels = _levels_for(space, num_trials)
    rows: list[tuple[dict[str, Any], list[float]]] = [({}, [])]
    for name, dimension in space.items():
        column = _coordinates(dimension, levels)
        extended = []
        for config, point in rows:
            if space.active(name, config):
                extended += [({**config, name: dimension.at(u)}, [*point, u]) for u in column]
            else:
                extended.append((config, [*point, math.nan]))
        rows = extended
    return np.array([point for _, point in rows])


def _levels_for(space: Space, num_trials: int) -> int:
    """Return the number of levels per range for a number of trials."""
    below: tuple[int, int] | None = None
    above: tuple[int, int] | None = None
    for levels in range(1, num_trials + 2):  # an unconditional range reaches num_trials by then
        size = _size(space, levels)
        if size == num_trials:
            return levels
        if size < num_trials and (below is None or size > below[0]):
            below = size, levels
        if size > num_trials:
            above = size, levels
            break
    shared = [name for name in space if _is_range(space[name])]
    rule = [f"{name} has {_count(space[name], 1)}" for name in space if name not in shared]
    rule += [f"{', '.join(shared)} have the same number of levels"] if shared else []
    neighbours = [pair for pair in (below, above) if pair]
    nearest = " and ".join(f"{size} ({levels} per range)" if shared else str(size) for size, levels in neighbours)
    raise ValueError(
        f"No grid over this space has num_trials={num_trials} trials ({'; '.join(rule)}). The nearest have {nearest}. "
        "Choose one of these numbers, or another sampler."
    )


def _size(space: Space, levels: int) -> int:
    """Return the number of trials of a grid: a product over names, and a sum over the values of conditions."""

    def beside(on: str | None, equals: Any) -> int:
        return math.prod(size(name) for name in space if _condition(space[name]) == (on, equals))

    def size(name: str) -> int:
        conditions = {_condition(dimension) for dimension in space.values()}
        special = {equals for on, equals in conditions if on == name and _takes(space[name], equals, levels)}
        return _count(space[name], levels) + sum(beside(name, equals) - 1 for equals in special)

    return beside(None, None)


def _condition(dimension: Dimension) -> tuple[str | None, Any]:
    return (dimension.on, dimension.equals) if isinstance(dimension, Conditional) else (None, None)


def _inner(dimension: Dimension) -> Dimension:
    return dimension.dimension if isinstance(dimension, Conditional) else dimension


def _is_range(dimension: Dimension) -> bool:
    inner = _inner(dimension)
    return not isinstance(inner, Choices) and not (isinstance(inner, Integers) and inner.static)


def _count(dimension: Dimension, levels: int) -> int:
    """Return the number of levels of a dimension."""
    inner = _inner(dimension)
    if isinstance(inner, Choices):
        return len(inner.options)
    if isinstance(inner, Integers):
        values = inner.high - inner.low + 1
        return values if inner.static else min(values, levels)
    return levels


def _takes(dimension: Dimension, value: Any, levels: int) -> bool:
    return not _is_range(dimension) or value in [dimension.at(u) for u in _coordinates(dimension, levels)]


def _coordinates(dimension: Dimension, levels: int) -> list[float]:
    """Return the unit coordinates of a dimension's levels."""
    inner, count = _inner(dimension), _count(dimension, levels)
    if isinstance(inner, Choices):
        return [inner.unit(option) for option in inner.options]
    if isinstance(inner, Integers) and count == inner.high - inner.low + 1:
        return [inner.unit(value) for value in range(inner.low, inner.high + 1)]
    return [0.5] if count == 1 else np.linspace(0.0, 1.0, count).tolist()
