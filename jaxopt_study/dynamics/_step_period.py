"""After how many steps an optimizer does the same again, found by running it.

Gradient accumulation, delayed application and synchronisation keep a counter that starts anew. A single step of such a
chain says nothing about the run: most steps do nothing at all. What can be stable is the map of a whole period.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_study._checks import check_integer
from jaxopt_study._programs import strongly_typed
from jaxopt_study.dynamics._static_shapes import Shapes
from jaxopt_study.dynamics._updates import call_update, differentiated, keep_dtypes
from jaxopt_study.linalg.hash_normal import draw_like

_WATCHED = 2048  # steps; a longer period than half of them is not seen
_LONGEST = 64  # of a period that is composed without being asked for
_MOST = 10_000  # steps that are composed; each is linearised on its own


def period(
    name: str,
    optimizer: Any,
    params: Any,
    opt_state: Any = None,
    num_steps: int | None = None,
    *,
    composes: bool = True,
) -> int:
    """Return the number of steps after which the counters of an optimizer's state stand as before.

    The optimizer is run on random gradients, at small parameters of the same structure. A counter that only goes up is
    no phase, one that returns is: inside `optax.MultiSteps`, `apply_every`, `lookahead`, `contrib.sam`. What alternates
    by the parity of a counter that goes on counting, such as a periodic schedule, is not noticed.

    Args:
        name: Who asks, for the messages.
        optimizer: Any Optax transformation.
        params: The parameters, or their shapes.
        opt_state: A state of it, from whose counters to start; None for those of `init`.
        num_steps: What the user says; None to find out.
        composes: Whether who asks composes the steps of a period, as many as the user says. Others only run them.

    Returns:
        `num_steps` if it is given and a multiple of the period; else the period: 1 for a chain without one. Cost:
        compiling the part of the update that counts, and 2,048 runs of it.

    Raises:
        TypeError: If `num_steps` is no integer.
        ValueError: If `num_steps` is less than 1, more than 10,000 or no multiple of the period; or if it is None and
            the period cannot be told or is longer than 64 steps, 1,024 if they are not composed.
    """

    def remedy(steps: str) -> str:
        inside = "pass the transformation inside and its state."
        return f"Give num_steps={steps}, or {inside}" if composes else inside.capitalize()

    if num_steps is not None:
        num_steps = check_integer(name, "num_steps", num_steps, 1, _MOST, remedy="It counts the steps of a period.")
    with jax.disable_jit(False):  # thousands of steps, of which only the compiler drops what no counter needs
        counters = _counters(optimizer, params, opt_state)
    found = {path: _cycle(values) for path, values in counters.items()}
    irregular = [path for path, cycle in found.items() if cycle is None]
    if irregular and num_steps is None:
        raise ValueError(
            f"{name}: the counters {', '.join(irregular)} of the optimizer's state go back and forth without a period "
            f"that can be seen, so no one step stands for the run. {remedy('…, after which it does the same again')}"
        )
    cycles = {path: cycle for path, cycle in found.items() if cycle not in {None, 1}}
    steps = math.lcm(*(cycle for cycle in cycles.values() if cycle is not None))
    stated = ", ".join(f"{path} every {cycle} steps" for path, cycle in cycles.items())
    if num_steps is not None:
        if num_steps % steps:
            raise ValueError(
                f"{name}: num_steps must be a multiple of {steps}, because the optimizer's state starts anew "
                f"({stated}); received {num_steps}. Leave it out to use {steps}."
            )
        return num_steps
    longest, refused = (_LONGEST, "composed unasked") if composes else (_WATCHED // 2, "run")
    if steps > longest:
        raise ValueError(
            f"{name}: the optimizer's state starts anew after {steps} steps ({stated}), and more than {longest} are "
            f"not {refused}. {remedy(str(steps))}"
        )
    return steps


def refuse_period(name: str, optimizer: Any, params: Any, opt_state: Any = None) -> None:
    """Raise ValueError if a single step does not stand for the run."""
    steps = period(name, optimizer, params, opt_state, composes=False)
    if steps > 1:
        raise ValueError(
            f"{name}: the optimizer does the same again only after {steps} steps, as inside MultiSteps, apply_every or "
            "lookahead, so one step has no gain that stands for the run. Use `stability` or `stability_threshold`, "
            "which compose the steps, or pass the transformation inside and its state."
        )


def _counters(optimizer: Any, params: Any, opt_state: Any) -> dict[str, np.ndarray]:
    """Return the value of every integer of the state before each of many steps, by path."""
    full = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,) * len(leaf.shape), leaf.dtype), full)
    wanted = _integers(jax.eval_shape(optimizer.init, full))
    if not wanted:
        return {}
    try:
        jax.eval_shape(partial(_run, optimizer, Shapes(small)), {})
        shapes = small if _integers(jax.eval_shape(optimizer.init, small)) == wanted else full
    except Exception:  # whatever a transformation raises that needs its real shapes: it gets them
        shapes = full
    given = {} if opt_state is None else _by_path(opt_state)
    start = {path: np.asarray(given[path]) for path in wanted if path in given}
    values = _run_compiled(optimizer, Shapes(shapes), start)
    return {path: np.asarray(value) for path, value in zip(wanted, values, strict=True)}


def _run(optimizer: Any, shapes: Shapes, start: dict[str, Any]) -> list[Any]:
    params = draw_like(shapes.tree, 0)
    state = strongly_typed(optimizer.init(params))
    leaves, structure = jax.tree.flatten(state)
    paths = list(_by_path(state))
    leaves = [
        jnp.asarray(start[path]).astype(leaf.dtype) if path in start else leaf
        for path, leaf in zip(paths, leaves, strict=True)
    ]

    def step(state: Any, t: Any) -> tuple[Any, Any]:
        grads = draw_like(differentiated(shapes.tree), t + 1)
        value = -t.astype(jnp.float32)  # always better, so that nothing waits for it to improve
        _, new = call_update(optimizer, grads, state, params, value, lambda p: value)
        integers = [leaf for leaf in jax.tree.leaves(state) if _is_counter(leaf)]
        return keep_dtypes(new, state), integers

    # Only the counters are returned, so XLA leaves out what they do not depend on.
    return lax.scan(step, structure.unflatten(leaves), jnp.arange(_WATCHED))[1]


_run_compiled = jax.jit(_run, static_argnums=(0, 1))


def _cycle(values: np.ndarray) -> int | None:
    """Return the period of a sequence, 1 if it only rises or falls, or None if there is none."""
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
