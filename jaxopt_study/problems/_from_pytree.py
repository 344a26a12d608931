"""Problems from initial parameters and a loss."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study._checks import check_bool, check_callable, check_kept, in_double, is_finite
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._model_problem import check_scalar_loss, checked_examples, sample_of
from jaxopt_study.problems._problem import Problem, check_metrics
from jaxopt_study.types import Batch, LossFn, Params


def from_pytree(
    params: Params,
    loss: LossFn,
    *,
    name: str = "custom",
    data: Batch | None = None,
    freeze_others: bool = False,
    metrics: Mapping[str, LossFn] | None = None,
    **attributes: Any,
) -> Problem:
    """Make a problem from initial parameters and a `loss(params, batch)`.

    The parameters may be any pytree: dictionaries, tuples, registered dataclasses, Equinox modules. `init` ignores its
    key and returns a copy, so that a training loop may overwrite it. For a random start, write
    `from_pytree(...).replace(init=lambda key: ...)`.

    Args:
        params: Initial parameters; every leaf is a floating array, a NumPy scalar or a Python float.
        loss: `loss(params, batch) -> scalar`, the mean over the examples of the batch; without data, batch is None.
        name: The problem's name.
        data: Training examples, a pytree of arrays with a common leading axis, or None.
        freeze_others: Remove leaves that are not floating arrays (activation functions, integer tables, Python numbers)
            from the parameters, and reinsert them before every call of `loss` and `metrics`. Equinox modules need this.
            The problem's parameters then have None in their places.
        metrics: Further scalars of (params, batch), by name.
        **attributes: Any other attribute of `Problem`: validation, test, critical_points, domain, …

    Returns:
        The problem. Cost: one abstract trace of the loss, to check its shape.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a leaf is not a floating array and `freeze_others` is False, if there is no floating array, or if
            the loss is not a scalar.

    Example:
        >>> data = {"x": jnp.arange(4.0), "y": 2 * jnp.arange(4.0)}
        >>> problem = from_pytree(
        ...     {"slope": jnp.array(0.0)},
        ...     lambda params, batch: jnp.mean((params["slope"] * batch["x"] - batch["y"]) ** 2),
        ...     data=data,
        ... )
        >>> print(jax.grad(problem.loss)(problem.init(jax.random.key(0)), problem.data)["slope"])
        -14.0
    """
    metrics = check_metrics("from_pytree", {} if metrics is None else metrics)
    check_callable("from_pytree", "loss", loss, expected="a function of (params, batch) that returns a scalar")
    check_bool("from_pytree", "freeze_others", freeze_others)
    data = checked_examples(name, data)
    if not freeze_others:  # a Python float is a parameter, unless freeze_others holds it fixed
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf) if type(leaf) is float else leaf, params)
    leaves, structure = jax.tree_util.tree_flatten_with_path(jax.tree.map(in_double, params))
    for path, leaf in leaves:
        if _is_trained(leaf) and not is_finite(leaf):
            raise ValueError(
                f"from_pytree needs finite parameters; params{jax.tree_util.keystr(path)} has NaN or infinity."
            )
        if _is_trained(leaf) and not isinstance(leaf, jax.Array):
            check_kept(f"from_pytree: params{jax.tree_util.keystr(path)}", leaf)
    others = [jax.tree_util.keystr(path) or "the only leaf" for path, leaf in leaves if not _is_trained(leaf)]
    if len(others) == len(leaves):
        raise ValueError("from_pytree found no floating array to train; wrap Python integers in jnp.asarray(…, float).")
    if others and not freeze_others:
        raise ValueError(
            f"from_pytree needs floating arrays; received other leaves at {', '.join(others)}. Wrap Python integers "
            "in jnp.asarray(…, float) to train them, or pass freeze_others=True to hold such leaves fixed."
        )
    trained = structure.unflatten([leaf if _is_trained(leaf) else None for _, leaf in leaves])
    fixed = structure.unflatten([None if _is_trained(leaf) else leaf for _, leaf in leaves])

    def restored(function: LossFn) -> LossFn:
        if not freeze_others:
            return function
        return lambda params, batch=None: function(_combine(params, fixed), batch)

    problem = Problem(
        name,
        init=lambda key: jax.tree.map(jnp.array, trained),
        loss=restored(loss),
        data=data,
        metrics={label: directed_as(metric, restored(metric)) for label, metric in metrics.items()},
        **attributes,
    )
    check_scalar_loss(name, problem.loss, trained, sample_of(data))
    return problem


def _is_trained(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _combine(trained: Params, fixed: Params) -> Params:
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf, trained, fixed, is_leaf=lambda leaf: leaf is None
    )
