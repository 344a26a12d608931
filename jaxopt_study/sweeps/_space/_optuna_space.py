"""Conversion of search spaces to and from Optuna. Needs an `optuna.Trial` but does not import optuna."""

from collections.abc import Mapping
from typing import Any

from jaxopt_study.sweeps._space._dimension import Dimension
from jaxopt_study.sweeps._space._options import Choices, Conditional
from jaxopt_study.sweeps._space._ranges import Integers, LogUniform, Uniform
from jaxopt_study.sweeps._space._space import Space


def suggest(space: Space, trial: Any) -> dict[str, Any]:
    """Return the configuration suggested by an Optuna trial.

    Args:
        space: The search space; only names that exist are suggested.
        trial: An `optuna.Trial`, which records its suggestions.

    Returns:
        Values by name.

    Raises:
        TypeError: If Optuna does not support one of the dimensions.
    """
    config: dict[str, Any] = {}
    for name, dimension in space.items():
        if not space.active(name, config):
            continue
        match _inner(dimension):
            case Uniform(low, high):
                config[name] = trial.suggest_float(name, low, high)
            case LogUniform(low, high):
                config[name] = trial.suggest_float(name, low, high, log=True)
            case Integers(low, high, log):
                config[name] = trial.suggest_int(name, low, high, log=log)
            case Choices() as options:
                labels = _labels(options)
                config[name] = labels[trial.suggest_categorical(name, list(labels))]
            case other:
                raise TypeError(f"{name}: expected a dimension that Optuna supports, received {other}.")
    return config


def config_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a stored Optuna trial.

    Args:
        space: The search space.
        params: The trial's parameters.

    Returns:
        Values by name, in the order of the space.
    """
    config = {}
    for name in space:
        if name in params:
            inner = _inner(space[name])
            config[name] = _labels(inner)[params[name]] if isinstance(inner, Choices) else params[name]
    return config


def _labels(options: Choices) -> dict[Any, Any]:
    """Return options by the values that Optuna can store: the options themselves, or strings if one is a tuple."""
    if any(isinstance(option, tuple) for option in options.options):
        return {f"{position}: {option}": option for position, option in enumerate(options.options)}
    return {option: option for option in options.options}


def _inner(dimension: Dimension) -> Dimension:
    return dimension.dimension if isinstance(dimension, Conditional) else dimension
