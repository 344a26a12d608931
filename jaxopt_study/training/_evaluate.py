"""Loss and metrics over a whole set of examples."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxopt_study._checks import check_choice, check_integer, describe_argument, in_double
from jaxopt_study.linalg.vectors import accumulator
from jaxopt_study.problems import Problem
from jaxopt_study.types import ModelState, Params

SPLITS = ("train", "validation", "test")


def evaluate(
    problem: Problem,
    params: Params,
    model_state: ModelState = None,
    *,
    on: str = "validation",
    batch_size: int | None = None,
) -> dict[str, Array]:
    """Return the mean loss and metrics of a problem over one of its sets of examples.

    With batches of sizes n₁, n₂, … (the last may be smaller) it returns Σ nᵢ·metricᵢ / Σ nᵢ: every example counts the
    same. It uses the deterministic `problem.loss`, never `step_loss`: no dropout, and batch statistics as they are.

    Args:
        problem: The problem.
        params: Its parameters.
        model_state: What the model carries beside them, if the problem has `init_state`.
        on: "train", "validation" or "test".
        batch_size: Examples evaluated at a time, to bound memory; None for all at once.

    Returns:
        Scalars by name: "loss" and the names in `problem.metrics`. Cost: one forward pass over the examples per metric
        (what they share is computed once).

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the problem has no such examples, the parameters are not of the problem's shapes, a model state
            is given to a problem without one, or `batch_size` is not positive.

    Example:
        >>> data = jnp.arange(5.0)
        >>> problem = Problem("mean", lambda key: jnp.zeros(()), lambda p, x: jnp.mean((x - p) ** 2), data=data)
        >>> whole = evaluate(problem, jnp.array(2.0), on="train")
        >>> parts = evaluate(problem, jnp.array(2.0), on="train", batch_size=2)  # 2 + 2 + 1 examples
        >>> print(whole["loss"], parts["loss"])
        2.0 2.0
    """
    check_problem("evaluate", problem)
    check_split(problem, on, "evaluate")
    if batch_size is not None:
        batch_size = check_integer("evaluate", "batch_size", batch_size, 1, remedy="Use None for all examples at once.")
    params = jax.tree.map(in_double, evaluated(params))
    _check_like_init(problem, params)
    if model_state is not None and not problem.init_state:
        raise ValueError(
            f"evaluate needs no model_state for problem {problem.name!r}, whose model carries nothing beside its "
            f"parameters; received {describe_argument(model_state)}. Leave it out."
        )
    functions = (("loss", problem.loss), *sorted(problem.metrics.items()))
    examples = problem.data if on == "train" else getattr(problem, on)
    state = (model_state,) if problem.init_state else ()
    return _measure_compiled(functions, params, state, examples, batch_size)


def evaluated(params: Params) -> Params:
    """Return the parameters to evaluate: of the pair of `optax.lookahead` the slow ones."""
    return params.slow if isinstance(params, optax.LookaheadParams) else params


def check_problem(who: str, problem: Any) -> None:
    """Raise TypeError if something is no problem."""
    if not isinstance(problem, Problem):
        raise TypeError(
            f"{who} needs a Problem; received {describe_argument(problem)}. Make one with problems.from_pytree, "
            "from_linen or from_nnx."
        )


def check_split(problem: Problem, split: str, who: str = "train") -> None:
    """Raise ValueError if a problem has no examples of a name."""
    check_choice(who, "the examples", split, SPLITS)
    if split != "train" and getattr(problem, split) is None:
        raise ValueError(
            f"Problem {problem.name!r} has no {split} examples: give it some with problem.replace({split}=…), or "
            "evaluate on 'train'."
        )


def _check_like_init(problem: Problem, params: Params) -> None:
    expected = init_like(problem.init)
    shapes = jax.tree.map(jnp.shape, params)
    if jax.tree.structure(expected) != jax.tree.structure(params) or shapes != jax.tree.map(jnp.shape, expected):
        raise ValueError(
            f"evaluate needs parameters as problem {problem.name!r} makes them, of shapes "
            f"{jax.tree.map(jnp.shape, expected)}; received {shapes}. Lanes of a vmap are evaluated by jax.vmap."
        )


@lru_cache(maxsize=64)
def init_like(init: Callable[..., Any]) -> Any:
    """Return the parameters that `init` makes, without their values."""
    return jax.eval_shape(lambda: init(jax.random.key(0)))  # inside a trace, no key becomes part of the program


def measure(
    functions: Mapping[str, Callable[..., Any]], params: Any, state: tuple, examples: Any, batch_size: int | None
) -> dict[str, Any]:
    """Return the averages of functions of (params, batch, *state) over examples, each counting the same."""

    def values(batch: Any) -> dict[str, Any]:
        return {name: jnp.asarray(fn(params, batch, *state)) for name, fn in functions.items()}

    if examples is None or batch_size is None:
        return values(examples)
    examples = jax.tree.map(jnp.asarray, examples)
    count = len(jax.tree.leaves(examples)[0])
    whole, rest = divmod(count, batch_size)

    def part(first: Any, size: int) -> Any:
        return jax.tree.map(lambda x: rows(x, first + jnp.arange(size)), examples)

    sums, found = [], {}
    if whole:
        firsts = batch_size * jnp.arange(whole)
        found = jax.lax.map(lambda first: values(part(first, batch_size)), firsts)
        sums.append({name: v.sum(0, dtype=accumulator(v.dtype)) * batch_size for name, v in found.items()})
    if rest:
        found = values(part(whole * batch_size, rest))
        sums.append({name: v.astype(accumulator(v.dtype)) * rest for name, v in found.items()})
    return {
        name: jnp.asarray(sum(s[name] for s in sums) / count, jnp.result_type(v, float)) for name, v in found.items()
    }


def rows(x: Any, indices: Any) -> Any:
    """Return some examples, spread over the devices of an explicit mesh as all of them are."""
    sharding = getattr(jax.typeof(x), "sharding", None)
    if sharding is None or not any(sharding.spec):
        return x.at[indices].get(mode="promise_in_bounds")
    shared = sharding.shard_shape(x.shape)[0] < len(x)
    parts = len(x) // sharding.shard_shape(x.shape)[0]
    first = sharding.spec[0] if shared and len(indices) % parts == 0 else None
    spec = jax.sharding.PartitionSpec(first, *sharding.spec[1:])
    return x.at[indices].get(mode="promise_in_bounds", out_sharding=sharding.update(spec=spec))


@partial(jax.jit, static_argnames=("functions", "batch_size"))
def _measure_compiled(functions: Any, params: Any, state: Any, examples: Any, batch_size: int | None) -> dict[str, Any]:
    return measure(dict(functions), params, state, examples, batch_size)
