"""The target of a user's module, `module:name`: a loss and parameters, perhaps with data and an optimizer state."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_study._checks import check_structure
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import read_optimizer
from jaxopt_study.cli._target import Target, content_hash
from jaxopt_study.cli._user_modules import import_named
from jaxopt_study.types import LossFn, Params

FORMS = (
    "(loss, params), (loss, params, data) or (loss, params, data, opt_state) with a scalar loss(params, data), or a "
    "function that returns one"
)
FRESH = (
    "The optimizer is in its initial state, so that the threshold, the preconditioned sharpness and the stability are "
    "those of a first step from this point. To use another state, let {path} return (loss, params, data, opt_state), "
    "where data may be None."
)


def target_from_module(path: str, optimizer: str | None) -> Target:
    target = import_named(path, what="a loss and parameters")
    if callable(target):
        try:
            target = target()
        except Exception as error:
            raise UserError(
                f"{path!r}: calling it without arguments fails with {type(error).__name__}: {error}"
            ) from error
    if not isinstance(target, tuple) or len(target) not in {2, 3, 4} or not callable(target[0]):
        raise UserError(f"{path!r} gives {_shortened(target)}; expected {FORMS}.")
    loss: Any = target[0]
    params, data, given = (*target[1:], None, None)[:3]
    try:
        params, data, given = (jax.tree.map(jnp.asarray, part) for part in (params, data, given))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path!r}: parameters and data must be pytrees of arrays: {error}") from None
    if given is not None and optimizer is None:
        raise UserError(f"{path!r} gives an optimizer state without an optimizer. Name the optimizer with --optimizer.")
    built = None if optimizer is None else read_optimizer(optimizer)
    fresh = built is not None and given is None
    return Target(
        name=path.rpartition(":")[2],
        loss=_of_two(loss),
        params=params,
        data=data,
        data_hash=None if data is None else content_hash(data),
        optimizer=built,
        opt_state=None if built is None else _state(built, optimizer, params, given, path),
        expression=optimizer,
        described={
            "target": path,
            "optimizer": optimizer,
            "opt_state": None if built is None else "fresh" if fresh else "given",
        },
        note=FRESH.format(path=path) if fresh else None,
    )


def _state(built: Any, optimizer: str | None, params: Params, given: Any, path: str) -> Any:
    """Return the given optimizer state, checked, or by default the initial one."""
    try:
        state = built.init(params)
    except Exception as error:
        raise UserError(f"{optimizer!r} cannot start from these parameters: {type(error).__name__}: {error}") from error
    if given is None:
        return state
    try:
        return check_structure(repr(path), "opt_state", given, state, of=f"the state of {optimizer}")
    except ValueError as error:
        raise UserError(f"{error} Give a state of this optimizer, or none.") from None


def _of_two(loss: Callable[..., Any]) -> LossFn:
    """Return a loss, with or without data, as a function of parameters and data."""
    try:
        inspect.signature(loss).bind(None, None)
    except TypeError:
        return lambda params, _: loss(params)
    except ValueError:  # a built-in function without a signature
        pass
    return loss


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
