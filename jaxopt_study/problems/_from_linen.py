"""Problems from Flax Linen modules."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
from flax import linen

from jaxopt_study._checks import check_callable, check_text, describe_argument
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._model_problem import check_scalar_loss, checked_examples, model_problem, sample_of
from jaxopt_study.problems._problem import Problem, check_metrics
from jaxopt_study.types import Batch, Key, ModelState, Params, Scalar

TRAINING_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}


def from_linen(
    module: linen.Module,
    loss: Callable[[Any, Batch], Scalar],
    data: Batch,
    *,
    inputs: Callable[[Batch], Any] = lambda batch: batch["x"],
    metrics: Mapping[str, Callable[[Any, Batch], Scalar]] | None = None,
    rng_names: tuple[str, ...] = ("dropout",),
    name: str | None = None,
    **attributes: Any,
) -> Problem:
    """Make a problem from a Flax Linen module and a loss of its outputs.

    Variables outside the collection "params", such as batch statistics, become the model state: training steps update
    them, evaluation only reads them. If the module's `__call__` takes `train`, `training`, `is_training` or
    `deterministic`, that argument is set accordingly; a module without one is called the same way in training and
    evaluation. Random streams get a new key at every training step and none in evaluation. If a module updates its
    variables even in evaluation, as `BatchNorm(use_running_average=False)` does, these updates are discarded. What
    layers sow or perturb for inspection is no state: a collection that changes its structure in a step is not kept.

    For classification and regression on a `Dataset`, use the simpler `networks.classifier` and `networks.regressor`.

    Args:
        module: The module.
        loss: `loss(outputs, batch) -> scalar`, the mean over the examples of the batch.
        data: Training examples, a pytree of arrays with a common leading axis.
        inputs: A function from a batch to the input of the module.
        metrics: Further scalars of (outputs, batch), by name.
        rng_names: Names of the random streams that the module uses in training.
        name: The problem's name; None takes that of the module's class.
        **attributes: Any other attribute of `Problem`: validation, test, metadata, …

    Returns:
        The problem; its parameters are the collection "params". With model state, `loss` and metrics take it as a third
        argument.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the loss is not a scalar, or the data are not arrays of finite numbers.

    Example:
        >>> data = {"x": jnp.ones((8, 3)), "y": jnp.zeros((8, 1))}
        >>> problem = from_linen(linen.Dense(1), lambda out, batch: jnp.mean((out - batch["y"]) ** 2), data)
        >>> print(jax.tree.map(jnp.shape, problem.init(jax.random.key(0))))
        {'bias': (1,), 'kernel': (3, 1)}
    """
    metrics = check_metrics("from_linen", {} if metrics is None else metrics)
    if not isinstance(module, linen.Module):
        raise TypeError(f"from_linen needs an instance of a Linen module; received {describe_argument(module)}.")
    title = type(module).__name__ if name is None else check_text("from_linen", "name", name)
    if not isinstance(rng_names, tuple | list) or not all(isinstance(stream, str) for stream in rng_names):
        raise TypeError(
            "from_linen needs rng_names to be a tuple of names of random streams, such as ('dropout',); received "
            f"{describe_argument(rng_names)}."
        )
    _check_functions("from_linen", loss, inputs)
    data = checked_examples(title, data)
    sample = sample_of(data)
    if inputs(_zeros(sample)) is None:
        raise TypeError("from_linen: inputs(batch) must return the input of the module; it returned None.")
    accepted = inspect.signature(type(module).__call__).parameters
    flags: dict[str, Any] = {flag: value for flag, value in TRAINING_FLAGS.items() if flag in accepted}

    inspected = {"perturbations"}  # collections of `sow` and `perturb`, without which a module computes the same

    def variables(key: Key) -> tuple[Params, ModelState]:
        keys = dict(zip(("params", *rng_names), jax.random.split(key, 1 + len(rng_names)), strict=True))
        collections = dict(module.init(keys, inputs(_zeros(sample)), **_negated(flags)))
        params = collections.pop("params", {})
        return params, {name: values for name, values in collections.items() if name not in inspected}

    def applied(params: Params, batch: Batch, model_state: ModelState, *, mutable: bool) -> Any:
        known = {"params": params, **model_state}
        if not mutable:
            return module.apply(known, inputs(batch), **_negated(flags))
        return module.apply(known, inputs(batch), **_negated(flags), mutable=list(model_state))[0]

    def evaluated(function: Callable[[Any, Batch], Scalar]) -> Callable[[Params, Batch, ModelState], Scalar]:
        def evaluate(params, batch, model_state):
            return function(applied(params, batch, model_state, mutable=updates_always), batch)

        return evaluate

    def train(params, model_state, batch, rngs):
        carried = model_state or {}
        outputs, updated = module.apply(
            {"params": params, **carried}, inputs(batch), **flags, rngs=rngs, mutable=list(carried)
        )
        return loss(outputs, batch), dict(updated)

    def step_loss(params, model_state, batch, key):
        rngs = dict(zip(rng_names, jax.random.split(key, len(rng_names)), strict=True)) if rng_names else {}
        value, updated = train(params, model_state, batch, rngs)
        return value, updated if model_state else model_state

    shapes = jax.eval_shape(variables, jax.random.key(0))
    try:
        _, updated = jax.eval_shape(lambda p, s, b: train(p, s, b, {}), *shapes, sample)
        random = False
    except flax.errors.InvalidRngError:
        random = True
        _, updated = jax.eval_shape(step_loss, *shapes, sample, jax.random.key(0))  # fails without a stream's name
    inspected |= {
        name for name, kept in shapes[1].items() if jax.tree.structure(kept) != jax.tree.structure(updated[name])
    }
    shapes = jax.eval_shape(variables, jax.random.key(0))
    updates_always = False
    try:
        jax.eval_shape(lambda p, b, s: applied(p, b, s, mutable=False), shapes[0], sample, shapes[1])
    except flax.errors.ModifyScopeVariableError:
        updates_always = True
    check_scalar_loss(title, evaluated(loss), shapes[0], sample, shapes[1])
    return model_problem(
        title,
        variables,
        evaluated(loss),
        {label: directed_as(metric, evaluated(metric)) for label, metric in metrics.items()},
        step_loss if random or shapes[1] else None,
        stateful=bool(shapes[1]),
        data=data,
        **attributes,
    )


def _check_functions(who: str, loss: Any, inputs: Any) -> None:
    check_callable(who, "loss", loss, expected="a function of (outputs, batch) that returns a scalar")
    check_callable(who, "inputs", inputs, expected="a function of a batch that returns the input of the module")


def _negated(flags: Mapping[str, bool]) -> dict[str, Any]:
    return {flag: not value for flag, value in flags.items()}


def _zeros(sample: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((min(2, leaf.shape[0]), *leaf.shape[1:]), leaf.dtype), sample)
