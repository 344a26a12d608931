"""Evaluation of loss and metrics over all examples of a split."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Integer

from jaxopt_study._checks import check_choice, check_integer, describe_argument, in_double
from jaxopt_study.linalg.sharding import rows
from jaxopt_study.linalg.vectors import accumulator
from jaxopt_study.problems import Problem
from jaxopt_study.types import Batch, ModelState, Params

SPLITS = ("train", "validation", "test")


def evaluate(
    problem: Problem,
    params: Params,
    model_state: ModelState = None,
    *,
    on: str = "validation",
    batch_size: int | None = None,
) -> dict[str, Array]:
    """Return the mean loss and metrics of a problem over one of its splits.

    With batches of sizes n₁, n₂, … (the last may be smaller) it returns Σ nᵢ·metricᵢ / Σ nᵢ, which weights every
    example equally. It uses the deterministic `problem.loss`, never `step_loss`: without dropout, and with the given
    batch statistics.

    Args:
        problem: The problem.
        params: Parameters of the problem.
        model_state: State of the model, if the problem has `init_state`.
        on: "train", "validation" or "test".
        batch_size: Number of examples evaluated at a time, to bound memory; None for all at once.

    Returns:
        Scalars by name: "loss" and the names in `problem.metrics`. Cost: one forward pass over the examples per metric
        (shared computations are done once).

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the problem lacks the split, the parameters do not have the problem's shapes, a model state is
            given to a problem without one, or `batch_size` is not positive.

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
            f"evaluate needs model_state to be None for problem {problem.name!r}, whose model has no state; received "
            f"{describe_argument(model_state)}. Leave it out."
        )
    functions = (("loss", problem.loss), *sorted(problem.metrics.items()))
    examples = problem.data if on == "train" else getattr(problem, on)
    state = (model_state,) if problem.init_state else ()
    try:
        return measure_once(functions, params, state, examples, batch_size)
    except MISSING_DATA as error:
        explain_missing_data(problem, error)
        raise


def evaluated(params: Params) -> Params:
    """Return the parameters to evaluate, which are the slow ones for `optax.lookahead`."""
    return params.slow if isinstance(params, optax.LookaheadParams) else params


def check_problem(who: str, problem: Any) -> None:
    """Raise TypeError unless the argument is a `Problem`."""
    if not isinstance(problem, Problem):
        raise TypeError(
            f"{who} needs a Problem; received {describe_argument(problem)}. Make one with problems.from_pytree, "
            "from_linen or from_nnx."
        )


def check_split(problem: Problem, split: str, who: str = "train") -> None:
    """Raise ValueError if a problem lacks a split."""
    check_choice(who, "the examples", split, SPLITS)
    if split != "train" and getattr(problem, split) is None:
        raise ValueError(
            f"Problem {problem.name!r} has no {split} examples. Add them with problem.replace({split}=…), or evaluate "
            "on 'train'."
        )


MISSING_DATA = (TypeError, ValueError, AttributeError)  # of functions that look for examples in None


def explain_missing_data(problem: Problem, error: Exception) -> None:
    """Raise ValueError if an error is that of a loss or metric which looks for examples, and the problem has no data.

    A function that ignores its batch needs none, so whether one looks for examples is known only from its error.
    """
    if problem.data is not None or "None" not in str(error):
        return
    key = jax.random.key(0)

    def values(function: Callable[..., Any]) -> Any:
        state = () if problem.init_state is None else (problem.init_state(key),)
        return function(problem.init(key), None, *state)

    functions = {"loss": problem.loss} | {f"metric {name!r}": fn for name, fn in sorted(problem.metrics.items())}
    if problem.step_loss is not None:
        step_loss, init_state = problem.step_loss, problem.init_state
        functions["step_loss"] = lambda params, batch, *_: step_loss(params, init_state and init_state(key), batch, key)
    for name, function in functions.items():
        try:
            jax.eval_shape(lambda function=function: values(function))
        except MISSING_DATA as again:
            if str(again) == str(error):
                raise ValueError(
                    f"Problem {problem.name!r} has no data, and its {name} fails on batch=None: "
                    f"{type(error).__name__}: {error}. Give the problem its examples, as data=…, or ignore the batch."
                ) from error


def _check_like_init(problem: Problem, params: Params) -> None:
    expected = init_like(problem.init)
    shapes = jax.tree.map(jnp.shape, params)
    if jax.tree.structure(expected) != jax.tree.structure(params) or shapes != jax.tree.map(jnp.shape, expected):
        raise ValueError(
            f"evaluate needs parameters of the shapes of problem {problem.name!r}, "
            f"{jax.tree.map(jnp.shape, expected)}; received {shapes}. Evaluate batched parameters with jax.vmap."
        )


@lru_cache(maxsize=64)
def init_like(init: Callable[..., Any]) -> Any:
    """Return the structure and shapes of the parameters that `init` returns, without values."""
    return jax.eval_shape(lambda: init(jax.random.key(0)))  # keys are no constants


def measure(
    functions: Mapping[str, Callable[..., Any]], params: Params, state: tuple, examples: Batch, batch_size: int | None
) -> dict[str, Array]:
    """Return the averages of functions of (params, batch, *state) over examples with equal weights."""

    def values(batch: Batch) -> dict[str, Array]:
        return {name: jnp.asarray(fn(params, batch, *state)) for name, fn in functions.items()}

    if examples is None or batch_size is None:
        return values(examples)
    examples = jax.tree.map(jnp.asarray, examples)
    count = len(jax.tree.leaves(examples)[0])
    whole, rest = divmod(count, batch_size)

    def part(first: Integer[Array, ""] | int, size: int) -> Batch:
        return jax.tree.map(lambda x: rows(x, first + jnp.arange(size)), examples)

    sums, means = [], {}
    if whole:
        firsts = batch_size * jnp.arange(whole)
        means = jax.lax.map(lambda first: values(part(first, batch_size)), firsts)
        sums.append({name: v.sum(0, dtype=accumulator(v.dtype)) * batch_size for name, v in means.items()})
    if rest:
        means = values(part(whole * batch_size, rest))
        sums.append({name: v.astype(accumulator(v.dtype)) * rest for name, v in means.items()})
    return {
        name: jnp.asarray(sum(s[name] for s in sums) / count, jnp.result_type(v, float)) for name, v in means.items()
    }


@partial(jax.jit, static_argnames=("functions", "batch_size"))
def measure_once(functions: Any, params: Any, state: Any, examples: Any, batch_size: int | None) -> dict[str, Any]:
    """Return what `measure` returns; a run traces it once, although it has it in several places."""
    return measure(dict(functions), params, state, examples, batch_size)
