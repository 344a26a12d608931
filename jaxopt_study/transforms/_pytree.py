"""Registration of expressions as JAX pytrees whose leaves are the numeric hyperparameters.

A transformation can therefore be an argument under `jit` and `vmap`, and changing a number does not recompile.
Everything but the numbers is static.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxopt_study.transforms._expression import Function, Transform, construct
from jaxopt_study.transforms._spec import Spec


class _Numeric:
    """Marks the place of a numeric leaf among the static ones."""

    def __repr__(self):
        return "·"


_NUMERIC = _Numeric()


def _is_numeric(value: Any) -> bool:
    return isinstance(value, (float, jax.Array, np.ndarray, np.floating))


def _flatten(expression: Any) -> tuple[list[Any], Any]:
    if expression.spec is None:
        return [], (None, expression)
    if expression.unflattened is not None:  # JAX may use any objects as leaves: shapes, axes, None
        return expression.unflattened
    constructor, arguments = expression.spec
    wrapped = (_Static(value) if constructor.is_structural(name) else value for name, value in arguments.items())
    leaves, structure = jax.tree.flatten(tuple(wrapped))
    numeric = [leaf for leaf in leaves if _is_numeric(leaf)]
    static = tuple(
        _NUMERIC if _is_numeric(leaf) else leaf if isinstance(leaf, _Static) else _Static(leaf) for leaf in leaves
    )
    return numeric, (constructor, tuple(arguments), structure, static)


class _Static:
    """Compares a static argument by value and type: True is not 1, and functions compare by identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def _unflatten(kind: type, auxiliary: Any, numeric: Any) -> Any:
    if auxiliary[0] is None:
        return auxiliary[1]
    constructor, names, structure, static = auxiliary
    numeric = list(numeric)
    values = iter(numeric)
    leaves = [next(values) if leaf is _NUMERIC else leaf.value for leaf in static]
    spec = Spec(constructor, dict(zip(names, jax.tree.unflatten(structure, leaves), strict=True)))

    # JAX also unflattens with placeholders for leaves, so the transformation is built only when it is called. The
    # result is not cached, because it would hold the tracers of the trace that built it.
    def build() -> Any:
        return construct(spec)

    expression = (
        Transform(
            lambda params: build().init(params),
            lambda updates, state, params=None, **extra: build().update(updates, state, params, **extra),
            spec,
        )
        if kind is Transform
        else Function(lambda *args, **kwargs: build()(*args, **kwargs), spec)
    )
    expression.unflattened = (list(numeric), auxiliary)
    return expression


def register_expressions() -> None:
    """Register transformations and functions as JAX pytrees."""
    for kind in (Transform, Function):
        jax.tree_util.register_pytree_node(kind, _flatten, partial(_unflatten, kind))
