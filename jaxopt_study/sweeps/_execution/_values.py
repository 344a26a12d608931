"""Validation of hyperparameter values in Python, before anything is compiled.

In a compiled program values are traced, so that constructors cannot check them: a decay of 1.33 would run, and might
win. Here the optimizers and problems of the trials are built with the concrete numbers, so that their own checks apply.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxopt_study._checks import check_integer
from jaxopt_study.sweeps._execution._accepted_names import TRAIN_OPTIONS
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._space._space import Space
from jaxopt_study.transforms import Transform, match

_REFUSALS = (ValueError, TypeError, ArithmeticError)
_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_TRIALS = 200  # built one by one, besides those at the ends of a dimension; a chain of atoms takes 1 ms or more


def check_values(trials: Trials, configs: Sequence[Mapping[str, Any]], space: Space | None, who: str = "Trial") -> None:
    """Raise for configurations from which no optimizer or problem can be built.

    Optimizers are built from the first 200 configurations and from those with the smallest and the largest value of
    each hyperparameter; problems, which may be expensive, only from the latter.

    Args:
        trials: The functions that build optimizer and problem.
        configs: Values by name.
        space: The space of the configurations, for the message.
        who: Name of a configuration in the message.

    Raises:
        ValueError: If a constructor raises ValueError for a configuration, whose message is included, or two names mean
            the same hyperparameter.
        TypeError: If a constructor raises TypeError.
    """
    extreme = _extremes(trials, configs)
    for i in sorted({*range(min(len(configs), _TRIALS)), *extreme}):
        _check_collisions(trials, configs[i])
        _try(trials.optimizer, "optimizer", trials, configs[i], space, f"{who} {i}")
    for i in extreme:
        rounded = {name: _rounded(value) for name, value in configs[i].items() if name not in trials.static}
        _try(trials.optimizer, "optimizer", trials, {**configs[i], **rounded}, space, f"{who} {i}")
        if trials.start_varies():
            _try(trials.problem_of, "problem", trials, configs[i], space, f"{who} {i}")
        for name in TRAIN_OPTIONS:
            if name in configs[i] and name not in trials.static:
                raise ValueError(
                    f"The hyperparameter {name!r} must be static. Search integers(…) or choices(…, static=True) "
                    "instead of traced numbers."
                )
        if "batch_size" in configs[i]:
            num_examples = trials.problem_of(configs[i]).num_examples
            check_integer(f"{who} {i}", "batch_size", configs[i]["batch_size"], 1, num_examples)


def explain_branches(error: Exception, trials: Trials, config: Mapping[str, Any], traced: Mapping[str, Any]) -> None:
    """Raise an error with the remedy if Python code branched on a traced hyperparameter.

    Args:
        error: The error from tracing.
        trials: The traced trials.
        config: Hyperparameters of one trial.
        traced: Names of the traced hyperparameters.

    Raises:
        TypeError: If it is such an error and some hyperparameters are traced.
    """
    if not isinstance(error, _CONCRETE) or not traced:
        return

    def fails(make: Callable[[Mapping[str, Any]], Any], name: str) -> bool:
        def built(value: Any) -> int:
            make({**config, name: value})
            return 0

        try:
            jax.eval_shape(built, traced[name])
        except _CONCRETE:
            return True
        return False

    makers = {"optimizer": trials.optimizer} | ({"problem": trials.problem_of} if trials.start_varies() else {})
    branching = {what: [name for name in traced if fails(make, name)] for what, make in makers.items()}
    branching = {what: names for what, names in branching.items() if names}
    where = " and ".join(f"the {what} branches on {', '.join(names)}" for what, names in branching.items())
    where = where or f"the optimizer, the problem or its loss branches on one of {', '.join(traced)}"
    raise TypeError(
        "A sweep compiles one program for all values of a number, so the number is traced, but "
        f"{where} in Python. Use static=True to compile one program per value, as in log_uniform(1e-3, 1.0, "
        "static=True) or choices(0.1, 0.2, static=True). Or scale a fixed schedule: unit = "
        "optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100), then lambda peak: optax.adam(lambda step: peak * "
        "unit(step))."
    ) from error


def _extremes(trials: Trials, configs: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the trials with the smallest and largest value of each number, for each choice of the other values."""
    groups: dict[Any, list[int]] = {}
    for i, config in enumerate(configs):
        fixed = {name: v for name, v in config.items() if name in trials.static or not isinstance(v, int | float)}
        groups.setdefault((repr(fixed), tuple(config)), []).append(i)
    indices = set()
    for (_, names), members in groups.items():
        indices.add(members[0])
        for name in names:
            if name not in trials.static and isinstance(configs[members[0]][name], int | float):
                order = sorted(members, key=lambda i, name=name: configs[i][name])
                indices |= {order[0], order[-1]}
    return sorted(indices)


def _check_collisions(trials: Trials, config: Mapping[str, Any]) -> None:
    maker = trials.make_optimizer
    if not isinstance(maker, Transform):
        return
    paths, taken = list(maker.hyperparams), {}
    for name in config:
        if trials.taken_by(name)["optimizer"]:
            for path in match(name, paths, maker):
                if path in taken:
                    both = f"{taken[path]!r} and {name!r}"
                    raise ValueError(f"{both} are the same hyperparameter, {path}. Leave one out of the space.")
                taken[path] = name


def _try(
    make: Callable[[Mapping[str, Any]], Any],
    what: str,
    trials: Trials,
    config: Mapping[str, Any],
    space: Space | None,
    who: str,
) -> None:
    try:
        make(config)
    except _REFUSALS as error:
        accepted = {name: value for name, value in config.items() if trials.taken_by(name)[what]}
        if not accepted:
            raise  # not caused by a value
        message = str(error)
        blamed = {name: v for name, v in accepted.items() if f"{v}" in message} or accepted
        values = ", ".join(f"{name} = {value!r}" for name, value in blamed.items())
        ranges = ", ".join(f"{name}: {space[name]!r}" for name in blamed if space is not None and name in space)
        hint = f" The space has {ranges}; exclude the invalid values." if ranges else ""
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{who} has {values}, for which the {what} cannot be built: {message}{hint}") from error


def _rounded(value: Any) -> Any:
    """Return a number rounded to the single precision of the program."""
    if not isinstance(value, float) or jax.config.read("jax_enable_x64"):
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(value))
