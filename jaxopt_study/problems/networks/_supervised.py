"""Supervised training of a Flax Linen module on a data set, as a `Problem`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxopt_study._checks import check_real, check_text, describe_argument
from jaxopt_study._programs import wider
from jaxopt_study.problems._metric import directed_as
from jaxopt_study.problems._model_problem import with_state
from jaxopt_study.problems._problem import Problem
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.problems.networks._losses import accuracy, cross_entropy, mse, weight_penalty
from jaxopt_study.types import Batch, Key, LossFn, ModelState, Params, Scalar

Outputs = Float[Array, "examples ..."]
_OF_FLAX = ("parent", "name")  # fields that every Linen module has


def classifier(
    model: nn.Module,
    dataset: Dataset,
    *,
    label_smoothing: Real[ArrayLike, ""] = 0.0,
    weight_decay: Real[ArrayLike, ""] = 0.0,
    name: str | None = None,
) -> Problem:
    """Make the problem of training a Linen module as a classifier, with cross-entropy as loss and accuracy as metric.

    With softmax targets smoothed by s and weights W:

        L(θ) = mean cross-entropy + ½ λ Σ ‖W‖²

    A batch is `{"x": inputs, "y": labels}`. If the module has neither state nor randomness, the problem only has
    `loss(params, batch)`. Otherwise it also has `step_loss`, which applies the module with `train=True` and a dropout
    key and returns the updated state; `loss` and `metrics` then evaluate with running statistics and without dropout.
    The penalty is part of the gradient; for decoupled weight decay, use `add_decayed_weights` in the chain instead.

    Args:
        model: A module mapping (examples, …) to logits (examples, classes). If its `__call__` takes `train`, that
            argument is set; collections other than "params" are its state; randomness is drawn from the stream
            "dropout".
        dataset: A data set with classes.
        label_smoothing: s in [0, 1); may be traced.
        weight_decay: λ ≥ 0, the factor of the penalty on leaves with two or more axes; may be traced.
        name: Name of the problem; default: data set and module.

    Returns:
        The problem. Its metrics are "accuracy" and "cross_entropy", the latter without smoothing and penalty.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data set has no classes, the module's output does not have shape (examples, classes), or
            smoothing or weight decay is out of range.

    Example:
        >>> from jaxopt_study.problems import datasets, networks
        >>> problem = networks.classifier(networks.MLP(10, widths=(32,)), datasets.digits())
        >>> params = problem.init(jax.random.key(0))
        >>> gradient = jax.grad(problem.loss)(params, problem.data)
        >>> print(gradient["output"]["kernel"].shape)
        (32, 10)
        >>> bool(problem.metrics["accuracy"](params, problem.test) < 0.5)  # before training
        True
    """
    check_model("classifier", model, dataset)
    if dataset.num_classes is None:
        other = "regressor" if dataset.vocabulary_size is None else "gpt"
        raise ValueError(f"classifier needs a data set with classes; {dataset.name!r} has none. Use {other}.")
    check_real("classifier", "label_smoothing", label_smoothing, 0, 1, closed="[)")
    return supervised(
        "classifier",
        model,
        dataset,
        (dataset.num_classes,),
        lambda logits, labels: cross_entropy(logits, labels, label_smoothing=label_smoothing),
        {"accuracy": accuracy, "cross_entropy": cross_entropy},
        weight_decay=weight_decay,
        name=name,
        settings={"label_smoothing": label_smoothing},
    )


def regressor(
    model: nn.Module, dataset: Dataset, *, weight_decay: Real[ArrayLike, ""] = 0.0, name: str | None = None
) -> Problem:
    """Make the problem of training a Linen module as a regression, with the mean squared error without the factor ½.

    Everything else is as in `classifier`.

    Args:
        model: A module mapping (examples, …) to the shape of the targets.
        dataset: A data set without classes.
        weight_decay: λ ≥ 0; may be traced.
        name: Name of the problem; default: data set and module.

    Returns:
        The problem. Its metric is "mse", without the penalty.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the data set has classes, the module's output differs in shape from the targets, or weight decay
            is negative.
    """
    check_model("regressor", model, dataset)
    if dataset.num_classes is not None:
        raise ValueError(f"regressor needs a data set with real targets; {dataset.name!r} has classes. Use classifier.")
    if dataset.vocabulary_size is not None:
        raise ValueError(f"regressor needs a data set with real targets; {dataset.name!r} has tokens. Use gpt.")
    shape = dataset.train["y"].shape[1:]
    metrics = {"mse": mse}
    return supervised(
        "regressor", model, dataset, shape, mse, metrics, weight_decay=weight_decay, name=name, settings={}
    )


def supervised(
    who: str,
    model: nn.Module,
    dataset: Dataset,
    output_shape: tuple[int, ...],
    fit: Callable[[Outputs, Any], Scalar],
    metrics: dict[str, Callable[[Outputs, Any], Scalar]],
    *,
    weight_decay: Real[ArrayLike, ""],
    name: str | None,
    settings: dict[str, Any],
) -> Problem:
    """Make the problem of a model with a loss of its outputs and targets, as `classifier` describes it.

    Args:
        who: The function that a user called, for messages.
        model: The module.
        dataset: The data set.
        output_shape: Shape of the outputs of one example.
        fit: `fit(outputs, targets)`, the loss without the penalty.
        metrics: Functions of outputs and targets, by name.
        weight_decay: λ ≥ 0.
        name: Name of the problem, or None.
        settings: Further settings, for records.

    Returns:
        The problem.
    """
    check_real(who, "weight_decay", weight_decay, 0)
    if name is not None:
        check_text("A network's problem", "name", name)
    sample = dataset.train["x"][:2]
    takes_train = "train" in inspect.signature(type(model).__call__).parameters

    def apply(params: Params, state: ModelState, x: Any, *, train: bool, **options: Any) -> Any:
        mode: dict[str, Any] = {"train": train} if takes_train else {}
        if not train and updates_always:
            return model.apply({"params": params, **state}, jnp.asarray(x), **mode, mutable=list(state))[0]
        return model.apply({"params": params, **state}, jnp.asarray(x), **mode, **options)

    def variables(key: Key) -> tuple[Params, ModelState]:
        collections = dict(model.init(key, jnp.asarray(sample)))
        return collections.pop("params"), collections

    params_shape, state_shape = jax.eval_shape(variables, jax.random.key(0))
    updates_always = False  # a module that updates its variables even in evaluation
    try:
        output = jax.eval_shape(lambda p, s: apply(p, s, sample, train=False), params_shape, state_shape)
    except flax.errors.ModifyScopeVariableError:
        updates_always = True
        output = jax.eval_shape(lambda p, s: apply(p, s, sample, train=False), params_shape, state_shape)
    if output.shape[1:] != output_shape:
        raise ValueError(
            f"{type(model).__name__} gives outputs of shape (examples, {_comma(output.shape[1:])}), but "
            f"{dataset.name!r} needs (examples, {_comma(output_shape)}). Change its number of outputs."
        )
    stateful = bool(state_shape)
    stochastic = _is_stochastic(apply, params_shape, state_shape, sample)

    def penalised(value: Scalar, params: Params) -> Scalar:
        if isinstance(weight_decay, int | float) and weight_decay == 0:
            return value
        penalty = weight_penalty(params)
        dtype = wider(value.dtype, penalty.dtype)
        return value.astype(dtype) + jnp.asarray(weight_decay, dtype) * penalty.astype(dtype)

    def evaluate(params: Params, batch: Batch, state: ModelState) -> Outputs:
        return apply(params, state, batch["x"], train=False)

    def loss(params: Params, batch: Batch, state: ModelState) -> Scalar:
        return penalised(fit(evaluate(params, batch, state), batch["y"]), params)

    def step_loss(params: Params, state: ModelState, batch: Batch, key: Key) -> tuple[Scalar, ModelState]:
        outputs, updated = apply(
            params, state or {}, batch["x"], train=True, rngs={"dropout": key}, mutable=list(state or {})
        )
        # A stateless model returns the state it was given, so that a loop's carry keeps its structure.
        return penalised(fit(outputs, batch["y"]), params), dict(updated) if stateful else state

    def metric(score: Callable[[Outputs, Any], Scalar]) -> LossFn:
        scored = with_state(lambda params, batch, state: score(evaluate(params, batch, state), batch["y"]), stateful)
        return directed_as(score, scored)

    return Problem(
        name=name or f"{dataset.name}-{type(model).__name__.lower()}",
        init=lambda key: variables(key)[0],
        loss=with_state(loss, stateful),
        data=dataset.train,
        validation=dataset.validation,
        test=dataset.test,
        metrics={label: metric(score) for label, score in metrics.items()},
        # Compiled, so that the unused draws of the parameters are eliminated.
        init_state=jax.jit(lambda key: variables(key)[1]) if stateful else None,
        step_loss=step_loss if stateful or stochastic else None,
        metadata={
            "model": describe(model),
            "num_params": sum(leaf.size for leaf in jax.tree.leaves(params_shape)),
            "dataset": dataset.name,
            "data_sha256": dataset.sha256,
            "data_source": dataset.source,
            "data_sizes": dataset.sizes,
            **{f"data_{label}": value for label, value in dataset.details.items()},
            **{label: _plain(value) for label, value in settings.items()},
            "weight_decay": _plain(weight_decay),
        },
    )


# Whether the training mode needs random numbers, found by tracing it without any.
def _is_stochastic(apply: Callable[..., Any], params: Any, state: Any, sample: Any) -> bool:
    try:
        jax.eval_shape(lambda p, s: apply(p, s, sample, train=True, mutable=list(state)), params, state)
    except flax.errors.InvalidRngError:
        return True
    return False


def check_model(who: str, model: Any, dataset: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who} needs an instance of a Linen module; received {describe_argument(model)}.")
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"{who} needs a Dataset, for example from datasets.from_arrays; received {describe_argument(dataset)}."
        )


def with_options(who: str, network: type[nn.Module], num_outputs: int, options: Mapping[str, Any]) -> nn.Module:
    """Return a network with a number of outputs; raise TypeError for an option that is none of its attributes."""
    first, *known = (field.name for field in fields(network) if field.name not in _OF_FLAX)
    for name in options:
        if name not in known:
            given = f"; {first} is that of the data set" if name == first else ""
            raise TypeError(f"{who} has the options {', '.join(known)} for its network{given}. Received {name!r}.")
    return network(num_outputs, **options)


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)


def describe(model: nn.Module) -> str:
    """Return the expression that builds a module, with functions by name, for records.

    Args:
        model: The module.

    Returns:
        The expression. It is the same in every process, unlike `repr`, which shows memory addresses.

    Example:
        >>> from jaxopt_study.problems import networks
        >>> describe(networks.MLP(10, widths=(8,), activation=jnp.tanh, initialiser=0.01))
        "MLP(num_outputs=10, widths=(8,), activation='tanh', initialiser=0.01, ...dropout=0.0)"
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"describe needs a Linen module; received {describe_argument(model)}.")
    shown = [field.name for field in fields(model) if field.name not in _OF_FLAX]
    arguments = ", ".join(f"{name}={_plain(getattr(model, name))!r}" for name in shown)
    return f"{type(model).__name__}({arguments})"


# Reduce a setting to a JSON value that does not change between processes.
def _plain(value: Any) -> Any:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, Tracer):
        return "traced"
    if isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0:
        return value.item()
    return value
