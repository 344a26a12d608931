"""Adapters that turn a loss on pytrees, a Flax Linen module or a Flax NNX module into a `Problem`."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxopt_study._checks import (
    check_bool,
    check_callable,
    check_kept,
    check_text,
    describe_argument,
    in_double,
    is_finite,
)
from jaxopt_study.problems._examples import as_examples
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._problem import Problem, check_metrics
from jaxopt_study.types import Batch, Key, LossFn, ModelState, Params, Scalar

if TYPE_CHECKING:
    from flax import nnx

TRAINING_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}


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
    data = _examples(name, data)
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
    if fault := _not_scalar(name, problem.loss, trained, _sample(data)):
        raise ValueError(fault)
    return problem


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
    variables even in evaluation, as `BatchNorm(use_running_average=False)` does, these updates are discarded.

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
    data = _examples(title, data)
    sample = _sample(data)
    if inputs(_zeros(sample)) is None:
        raise TypeError("from_linen needs inputs to return the input of the module; received None.")
    accepted = inspect.signature(type(module).__call__).parameters
    flags: dict[str, Any] = {flag: value for flag, value in TRAINING_FLAGS.items() if flag in accepted}

    def variables(key: Key) -> tuple[Params, ModelState]:
        keys = dict(zip(("params", *rng_names), jax.random.split(key, 1 + len(rng_names)), strict=True))
        collections = dict(module.init(keys, inputs(_zeros(sample)), **_negated(flags)))
        return collections.pop("params", {}), collections

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
    updates_always = False
    try:
        jax.eval_shape(lambda p, b, s: applied(p, b, s, mutable=False), shapes[0], sample, shapes[1])
    except flax.errors.ModifyScopeVariableError:
        updates_always = True
    try:
        jax.eval_shape(lambda p, s, b: train(p, s, b, {}), *shapes, sample)
        random = False
    except flax.errors.InvalidRngError:
        random = True
        jax.eval_shape(step_loss, *shapes, sample, jax.random.key(0))  # a stream missing from rng_names fails here
    if fault := _not_scalar(title, evaluated(loss), shapes[0], sample, shapes[1]):
        raise ValueError(fault)
    return _model_problem(
        title,
        variables,
        evaluated(loss),
        {label: directed_as(metric, evaluated(metric)) for label, metric in metrics.items()},
        step_loss if random or shapes[1] else None,
        data,
        shapes,
        attributes,
    )


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
    data = _examples(name or "from_nnx", data)
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
            f"from_nnx needs the function that makes the model to return an nnx.Module; received "
            f"{describe_argument(template)}."
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
    if fault := _not_scalar(title, evaluated(loss), shapes[0], _sample(data), shapes[1]):
        raise ValueError(fault)
    return _model_problem(
        title,
        variables,
        evaluated(loss),
        {label: directed_as(metric, evaluated(metric)) for label, metric in metrics.items()},
        step_loss if tags or shapes[1] or training != evaluating else None,
        data,
        shapes,
        attributes,
    )


def _examples(name: str, data: Any) -> Any:
    return None if data is None else as_examples(f"The data of problem {name!r}", data)


def _check_functions(who: str, loss: Any, inputs: Any) -> None:
    check_callable(who, "loss", loss, expected="a function of (outputs, batch) that returns a scalar")
    check_callable(who, "inputs", inputs, expected="a function of a batch that returns the input of the module")


def _model_problem(title, variables, loss, metrics, step_loss, data, shapes, attributes) -> Problem:
    # Only a model with state takes the state as an argument; the others keep `loss(params, batch)`.
    def arity(function):
        return function if shapes[1] else lambda params, batch=None: function(params, batch, {})

    return Problem(
        title,
        init=lambda key: variables(key)[0],
        loss=arity(loss),
        data=data,
        metrics={label: directed_as(metric, arity(metric)) for label, metric in metrics.items()},
        init_state=(lambda key: variables(key)[1]) if shapes[1] else None,
        step_loss=step_loss,
        **attributes,
    )


def _split(module: "nnx.Module") -> Any:
    from flax import nnx

    # Values that layers sow for inspection are not state: they would change the structure of a loop's carry.
    view = nnx.clone(module, variables=False)
    nnx.pop(view, nnx.Intermediate)
    return nnx.split(view, nnx.Param, nnx.RngState, ...)


def _negated(flags: Mapping[str, bool]) -> dict[str, Any]:
    return {flag: not value for flag, value in flags.items()}


def _sample(data: Batch | None) -> Any:
    # Two examples are enough to find shapes; batch normalisation of a single one would be degenerate. All examples are
    # used where an array's type includes its sharding, which limits what a loss may do with it; nothing is computed.
    kinds = jax.tree.map(jax.typeof, data)
    if any(any(kind.sharding.spec) for kind in jax.tree.leaves(kinds)):
        return jax.tree.map(lambda kind: jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=kind.sharding), kinds)
    return jax.tree.map(lambda kind: jax.ShapeDtypeStruct((min(2, kind.shape[0]), *kind.shape[1:]), kind.dtype), kinds)


def _zeros(sample: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros((min(2, leaf.shape[0]), *leaf.shape[1:]), leaf.dtype), sample)


def _is_trained(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _combine(trained: Params, fixed: Params) -> Params:
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf, trained, fixed, is_leaf=lambda leaf: leaf is None
    )


def _not_scalar(name: str, loss: LossFn, *arguments: Any) -> str | None:
    result = jax.eval_shape(loss, *arguments)
    if getattr(result, "shape", None) == ():
        return None
    shapes = jax.tree.map(lambda leaf: leaf.shape, result)
    return (
        f"The loss of {name!r} must be one scalar, the mean over the batch; it returns {shapes} instead of (). Reduce "
        "it with jnp.mean, and return further values as metrics."
    )
