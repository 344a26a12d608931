"""Parts shared by `from_pytree`, `from_linen`, `from_nnx` and `networks`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxopt_study.problems._examples import as_examples
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._problem import Problem, StepLossFn
from jaxopt_study.types import Batch, Key, LossFn, ModelState, Params, Scalar

StatefulLoss = Callable[[Params, Batch, ModelState], Scalar]


def with_state(function: StatefulLoss, stateful: bool) -> LossFn:
    """Return a loss or metric that takes the model state as a third argument only if there is one."""
    return function if stateful else lambda params, batch=None: function(params, batch, {})


def model_problem(
    name: str,
    variables: Callable[[Key], tuple[Params, ModelState]],
    loss: StatefulLoss,
    metrics: Mapping[str, StatefulLoss],
    step_loss: StepLossFn | None,
    *,
    stateful: bool,
    **attributes: Any,
) -> Problem:
    """Return the problem of training a model whose variables are its parameters and its state."""
    return Problem(
        name,
        init=lambda key: variables(key)[0],
        loss=with_state(loss, stateful),
        metrics={label: directed_as(metric, with_state(metric, stateful)) for label, metric in metrics.items()},
        init_state=(lambda key: variables(key)[1]) if stateful else None,
        step_loss=step_loss,
        **attributes,
    )


def checked_examples(name: str, data: Any) -> Any:
    """Return a problem's examples as checked arrays, or None if there are none."""
    return None if data is None else as_examples(f"The data of problem {name!r}", data)


def sample_of(data: Batch | None) -> Any:
    """Return shapes and dtypes of two examples, with which a loss is traced."""
    # Two are enough to find shapes; batch normalisation of a single one would be degenerate. All examples are
    # used where an array's type includes its sharding, which limits what a loss may do with it; nothing is computed.
    kinds = jax.tree.map(jax.typeof, data)
    if any(any(kind.sharding.spec) for kind in jax.tree.leaves(kinds)):
        return jax.tree.map(lambda kind: jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=kind.sharding), kinds)
    return jax.tree.map(lambda kind: jax.ShapeDtypeStruct((min(2, kind.shape[0]), *kind.shape[1:]), kind.dtype), kinds)


def check_scalar_loss(name: str, loss: Callable[..., Any], *arguments: Any) -> None:
    """Raise ValueError unless a loss returns one scalar; it is traced, not computed."""
    result = jax.eval_shape(loss, *arguments)
    if getattr(result, "shape", None) != ():
        shapes = jax.tree.map(lambda leaf: leaf.shape, result)
        raise ValueError(
            f"The loss of {name!r} must be one scalar, the mean over the batch; it returns {shapes} instead of (). "
            "Reduce it with jnp.mean, and return further values as metrics."
        )
