"""Problems from Flax NNX modules."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxopt_study._checks import check_callable, check_text, describe_argument
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._model_problem import check_scalar_loss, checked_examples, model_problem, sample_of
from jaxopt_study.problems._problem import Problem, check_metrics
from jaxopt_study.types import Batch, Key, ModelState, Params, Scalar

if TYPE_CHECKING:
    from flax import nnx


def from_nnx(
    model: "nnx.Module | Callable[[nnx.Rngs], nnx.Module]",
    loss: Callable[[Any, Batch], Scalar],
    data: Batch | None = None,
    *,
    metrics: Mapping[str, Callable[[Any, Batch], Scalar]] | None = None,
    name: str | None = None,
    **attributes: Any,
) -> Problem:
    """Make a problem from a Flax NNX module and a `loss(model, batch)`.

    The loss is written as usual in NNX: it calls the model, and layers may update themselves. Each evaluation rebuilds
    the module from its arrays, so the problem is a pure function and the user's object is never changed. `nnx.Param`
    variables are the parameters, as nested dictionaries. Random states are set from the key of the step, so that the
    same key drops the same units, and different keys under `vmap` drop different ones. All other variables
    (`nnx.BatchStat`) are the model state. Training calls `model.train()`, evaluation `model.eval()`.

    Args:
        model: A function `lambda rngs: Model(..., rngs=rngs)`, which is called with the key of `init`, so that seeds
            give different starts; or a module, whose current values are then the start for every key.
        loss: `loss(model, batch) -> scalar`, the mean over the examples of the batch; without data, batch is None.
        data: Training examples, a pytree of arrays with a common leading axis, or None.
        metrics: Further scalars of (model, batch), by name.
        name: The problem's name; None takes that of the module's class.
        **attributes: Any other attribute of `Problem`: validation, test, metadata, …

    Returns:
        The problem. With model state, `loss` and metrics take it as a third argument.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the module has no `nnx.Param`, or the loss is not a scalar.

    Example:
        >>> data = {"x": jnp.ones((8, 3)), "y": jnp.zeros((8, 1))}
        >>> from flax import nnx
        >>> problem = from_nnx(
        ...     lambda rngs: nnx.Linear(3, 1, rngs=rngs),
        ...     lambda model, batch: jnp.mean((model(batch["x"]) - batch["y"]) ** 2),
        ...     data,
        ... )
        >>> print(jax.tree.map(jnp.shape, problem.init(jax.random.key(0))))
        {'bias': (1,), 'kernel': (3, 1)}
    """
    from flax import nnx  # imports IPython, which takes longer than the rest of Flax

    metrics = check_metrics("from_nnx", {} if metrics is None else metrics)
    check_callable("from_nnx", "loss", loss, expected="a function of (model, batch) that returns a scalar")
    if name is not None:
        check_text("from_nnx", "name", name)
    data = checked_examples(name or "from_nnx", data)
    if isinstance(model, nnx.Optimizer):
        raise TypeError(
            "from_nnx needs the model; received its nnx.Optimizer. Give the model, and train with optimizer.tx."
        )
    if not isinstance(model, nnx.Module):
        check_callable("from_nnx", "model", model, expected="an nnx.Module or a function of nnx.Rngs that returns one")
    if isinstance(model, nnx.Module):
        template = nnx.clone(model)
    else:
        template = nnx.eval_shape(lambda: model(nnx.Rngs(jax.random.key(0))))
    if not isinstance(template, nnx.Module):
        raise TypeError(
            f"from_nnx: the model function must return an nnx.Module; it returned {describe_argument(template)}."
        )

    def variables(key: Key) -> tuple[Params, ModelState]:
        fresh = model if isinstance(model, nnx.Module) else model(nnx.Rngs(key))
        _, params, _, others = _split(fresh)
        return jax.tree.map(jnp.array, (nnx.to_pure_dict(params), nnx.to_pure_dict(others)))  # copies, to be donated

    title = name or type(template).__name__
    tags = {stream.key.tag for _, stream in nnx.iter_graph(template) if isinstance(stream, nnx.RngStream)}
    template.train()
    training, _, rng_states, _ = _split(template)
    template.eval()
    evaluating = _split(template)[0]

    def rebuild(graph: Any, params: Params, model_state: ModelState, key: Key) -> "nnx.Module":
        module = nnx.merge(graph, params, nnx.to_pure_dict(rng_states), model_state or {})
        keys = dict(zip(sorted(tags), jax.random.split(key, len(tags)), strict=True)) if tags else {}
        nnx.reseed(module, policy="match_shape", **keys)
        return module

    def evaluated(function: Callable[[Any, Batch], Scalar]) -> Callable[[Params, Batch, ModelState], Scalar]:
        # A model that draws random numbers even in evaluation draws the same ones every time.
        return lambda params, batch, state: function(rebuild(evaluating, params, state, jax.random.key(0)), batch)

    def step_loss(params, model_state, batch, key):
        module = rebuild(training, params, model_state, key)
        value = loss(module, batch)
        if not model_state:
            return value, model_state
        return value, nnx.to_pure_dict(_split(module)[3])

    shapes = jax.eval_shape(variables, jax.random.key(0))
    if not jax.tree.leaves(shapes[0]):
        raise ValueError(f"{title} has no nnx.Param variable to train; wrap its weights in nnx.Param.")
    check_scalar_loss(title, evaluated(loss), shapes[0], sample_of(data), shapes[1])
    return model_problem(
        title,
        variables,
        evaluated(loss),
        {label: directed_as(metric, evaluated(metric)) for label, metric in metrics.items()},
        step_loss if tags or shapes[1] or training != evaluating else None,
        stateful=bool(shapes[1]),
        data=data,
        **attributes,
    )


def _split(module: "nnx.Module") -> Any:
    from flax import nnx

    # Values that layers sow for inspection are not state: they would change the structure of a loop's carry.
    view = nnx.clone(module, variables=False)
    nnx.pop(view, nnx.Intermediate)
    return nnx.split(view, nnx.Param, nnx.RngState, ...)
