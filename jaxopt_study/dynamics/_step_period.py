"""Period of an optimizer (e.g. `optax.MultiSteps`), detected from its counters.

Gradient accumulation, delayed application and synchronisation have a counter that is reset. A single step of such a
chain is not representative, and may not move the parameters at all; stability is that of the map of a whole period.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, Integer

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import RANDOM_DRAWS, strongly_typed
from jaxopt_study.dynamics._static_shapes import Shapes
from jaxopt_study.dynamics._updates import call_update, differentiated, keep_dtypes
from jaxopt_study.linalg.hash_normal import draw_like

_NUM_RUN = 2048  # steps of the run, at least two periods
_MAX_FOUND = 64  # largest detected period that is composed
_MAX_GIVEN = 10_000  # largest `num_steps`; each step is linearised


def period(
    name: str,
    optimizer: Any,
    params: Any,
    opt_state: Any = None,
    num_steps: int | None = None,
    *,
    composes: bool = True,
) -> int:
    """Return the number of steps after which the counters of an optimizer's state return to their values.

    The optimizer is run on random gradients, with small parameters of the same structure. Counters that return define
    the period, as inside `optax.MultiSteps`, `apply_every`, `lookahead` and `contrib.sam`; counters that only increase
    do not. A rule that alternates by the parity of such a counter, like a periodic schedule, is not detected.

    Args:
        name: The function that was called, for the messages.
        optimizer: Any Optax transformation.
        params: The parameters, or their shapes.
        opt_state: A state with the initial counters; None for those of `init`.
        num_steps: The user's number of steps; None to detect it.
        composes: Whether the calling function composes the steps of a period; others only run them.

    Returns:
        `num_steps` if it is given and a multiple of the period; else the period: 1 for a chain without one. Cost:
        compiling the counters of the update, and 2,048 runs of them.

    Raises:
        TypeError: If `num_steps` is not an integer.
        ValueError: If `num_steps` is not in [1, 10000] or not a multiple of the period; or if it is None and there is
            no period, or one longer than 64 steps (1,024 if the steps are not composed).
    """

    def remedy(steps: str) -> str:
        inner = "pass the inner transformation and its state."
        return f"Give num_steps={steps}, or {inner}" if composes else inner.capitalize()

    if num_steps is not None:
        num_steps = check_integer(
            name, "num_steps", num_steps, 1, _MAX_GIVEN, remedy="It is the number of steps of a period."
        )
    with jax.disable_jit(False):  # thousands of steps, from which XLA removes all but the counters
        counters = _counters(optimizer, params, opt_state)
    cycle_lengths = {path: _cycle(values) for path, values in counters.items()}
    irregular = [path for path, cycle in cycle_lengths.items() if cycle is None]
    if irregular and num_steps is None:
        raise ValueError(
            f"{name}: the counters {', '.join(irregular)} of the optimizer's state neither change monotonically nor "
            f"repeat, so no period can be detected. {remedy('…, a number of steps that represents the run')}"
        )
    cycles = {path: cycle for path, cycle in cycle_lengths.items() if cycle not in {None, 1}}
    steps = math.lcm(*(cycle for cycle in cycles.values() if cycle is not None))
    listed = ", ".join(f"{path} every {cycle} steps" for path, cycle in cycles.items())
    if num_steps is not None:
        if num_steps % steps:
            raise ValueError(
                f"{name}: num_steps must be a multiple of {steps}, the period of the optimizer's counters ({listed}); "
                f"received {num_steps}. Omit it to use {steps}."
            )
        return num_steps
    largest, limit = (_MAX_FOUND, "without num_steps") if composes else (_NUM_RUN // 2, "supported")
    if steps > largest:
        raise ValueError(
            f"{name}: the period of the optimizer's counters must be at most {largest} steps {limit}; received one of "
            f"{steps} ({listed}). {remedy(str(steps))}"
        )
    return steps


def refuse_period(name: str, optimizer: Any, params: Any, opt_state: Any = None) -> None:
    """Raise ValueError unless a single step represents the run."""
    steps = period(name, optimizer, params, opt_state, composes=False)
    if steps > 1:
        raise ValueError(
            f"{name}: the optimizer repeats only every {steps} steps, as inside MultiSteps, apply_every or lookahead, "
            "but this analysis covers a single step. Use `stability` or `stability_threshold`, which compose the "
            "steps, or pass the inner transformation and its state."
        )


def _counters(optimizer: Any, params: Any, opt_state: Any) -> dict[str, Integer[np.ndarray, " steps"]]:
    """Return the values of every counter of the state before each of many steps, by path."""
    full = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,) * len(leaf.shape), leaf.dtype), full)
    paths = _integers(jax.eval_shape(optimizer.init, full))
    if not paths:
        return {}
    try:
        _run_compiled.eval_shape(optimizer, Shapes(small), {})
        shapes = small if _integers(jax.eval_shape(optimizer.init, small)) == paths else full
    except Exception:  # any error of a transformation that needs its true shapes
        shapes = full
    given = {} if opt_state is None else _by_path(opt_state)
    start = {path: np.asarray(given[path]) for path in paths if path in given}
    values = _run_compiled(optimizer, Shapes(shapes), start)
    return {path: np.asarray(value) for path, value in zip(paths, values, strict=True)}


def _run(optimizer: Any, shapes: Shapes, start: dict[str, Any]) -> list[Integer[Array, " steps"]]:
    params = draw_like(shapes.tree, 0)
    state = strongly_typed(optimizer.init(params))
    leaves, structure = jax.tree.flatten(state)
    paths = list(_by_path(state))
    leaves = [
        jnp.asarray(start[path]).astype(leaf.dtype) if path in start else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]

    def step(state: Any, t: Int[Array, ""]) -> tuple[Any, list[Integer[Array, ""]]]:
        grads = draw_like(differentiated(shapes.tree), t + 1)
        value = -t.astype(jnp.float32)  # always decreasing, so that no rule waits for an improvement
        _, new = call_update(optimizer, grads, state, params, value, lambda p: value)
        integers = [leaf for leaf in jax.tree.leaves(state) if _is_counter(leaf)]
        return keep_dtypes(new, state), integers

    # Only the counters are returned, so XLA removes all other computations.
    return lax.scan(step, structure.unflatten(leaves), jnp.arange(_NUM_RUN))[1]


_run_compiled = jax.jit(_run, static_argnums=(0, 1), compiler_options=RANDOM_DRAWS)


def _cycle(values: Integer[np.ndarray, " steps"]) -> int | None:
    """Return the period of a sequence, 1 for a monotonic one, None if there is none."""
    steps = np.diff(values.astype(np.int64))
    if (steps >= 0).all() or (steps <= 0).all():
        return 1
    starts = np.flatnonzero(values == values[0])[1:]
    return next((int(p) for p in starts if 2 * p <= len(values) and (values[p:] == values[:-p]).all()), None)


def _integers(state: Any) -> list[str]:
    return [path for path, leaf in _by_path(state).items() if _is_counter(leaf)]


def _is_counter(leaf: Any) -> bool:
    return jnp.ndim(leaf) == 0 and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def _by_path(state: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
