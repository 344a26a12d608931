"""References: their type, and a function that runs one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
State = dict[str, Any]
Number = float | Callable[[int], float]  # a constant, or a function of the number of completed steps


class Reference(NamedTuple):
    """An update rule: `init(params)` gives its state, `step(grad, state, params)` the new parameters and state."""

    init: Callable[[Array], State]
    step: Callable[[Any, State, Array], tuple[Array, State]]


def at(value: Number, count: int) -> float:
    """Give the constant, or the schedule's value after `count` completed steps (0 for the first step)."""
    return value(count) if callable(value) else value


def zeros(params: Array) -> Array:
    return np.zeros_like(params, dtype=np.float64)


def one_minus_power(decay: float, t: int) -> float:
    """1 − decayᵗ without cancellation: −expm1(t·log1p(−(1 − decay)))."""
    if decay == 0.0:
        return 1.0
    return float(-np.expm1(t * np.log1p(-(1.0 - decay))))


def divide(numerator: Array, denominator: Array) -> Array:
    """Divide, and read 0/0 as 0.

    Papers that print no ε (AMSGrad, AdaMax, RAdam's l_t) leave a coordinate that has only seen zero gradients
    undefined. A zero gradient asks for no step, so no step is taken.
    """
    numerator, denominator = np.broadcast_arrays(np.float64(numerator), np.float64(denominator))
    quotient = np.zeros(numerator.shape)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0.0)
    return quotient


def run(reference: Reference, grads: Array, params: Array) -> dict[str, Array]:
    """Feed the gradients in order; return `params` and every state variable after each step, stacked."""
    params = np.array(params, dtype=np.float64)
    state = reference.init(params)
    history = []
    for grad in grads:
        params, state = reference.step(np.asarray(grad, dtype=np.float64), state, params)
        history.append({"params": params, **state})
    return {name: np.stack([record[name] for record in history]) for name in history[0]}


def run_on(reference: Reference, gradient: Callable[[Array], Array], params: Array, num_steps: int) -> dict[str, Array]:
    """Like `run`, with the gradient evaluated by the rule itself, at the point it chooses."""
    params = np.array(params, dtype=np.float64)
    state = reference.init(params)
    history = []
    for _ in range(num_steps):
        params, state = reference.step(gradient, state, params)
        history.append({"params": params, **state})
    return {name: np.stack([record[name] for record in history]) for name in history[0]}
