"""Specifications: the call that built a transformation, kept as data beside the functions."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer


class Constructor(NamedTuple):
    """A function that builds expressions, with the information needed to rebuild them."""

    name: str  # as printed
    path: str  # "module:name", where it can be imported; "" if it cannot
    build: Callable[..., Any]  # arguments -> Transform or plain function
    signature: inspect.Signature
    kind: str  # "atom", "composite" or "optax"
    conventions: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()  # defaults that depend on `convention`
    neutral: Mapping[str, float] = MappingProxyType({})  # values that disable arguments, such as 0 of an ε

    def check_convention(self, convention: Any) -> None:
        """Raise ValueError if the constructor has conventions and this is not one of them."""
        known = [name for name, _ in self.conventions]
        if known and (not isinstance(convention, str) or convention not in known):
            raise ValueError(
                f"{self.name}: convention must be one of {', '.join(map(repr, known))}, received {convention!r}."
            )

    def defaults(self, convention: Any = None) -> dict[str, Any]:
        """Return the default of every optional argument under a convention."""
        plain = {
            name: parameter.default
            for name, parameter in self.signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        table = {name: dict(values) for name, values in self.conventions}
        return plain | table.get(str(convention or plain.get("convention")), {})

    def is_structural(self, name: str) -> bool:
        """Return whether a number is static in the program: annotated as plain float, not as a hyperparameter."""
        return self.signature.parameters[name].annotation is float

    def __hash__(self):
        return hash((self.path, self.name, id(self.build)))

    def __eq__(self, other):
        return isinstance(other, Constructor) and self.build is other.build

    def __ne__(self, other):
        return not self == other


class Spec(NamedTuple):
    """A constructor and its bound arguments, defaults filled in, in the order of the signature."""

    constructor: Constructor
    arguments: dict[str, Any]

    def variadic(self) -> str | None:
        """Return the name of the constructor's `*args`, if it has one."""
        for name, parameter in self.constructor.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                return name
        return None

    def shown(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, which are the ones printed."""
        defaults = self.constructor.defaults(self.arguments.get("convention"))
        plain = self.constructor.defaults()
        return {
            name: value
            for name, value in self.arguments.items()
            if name not in defaults or not same(value, plain[name] if name == "convention" else defaults[name])
        }

    def call(self) -> Any:
        """Return the result of the constructor's function for the arguments."""
        positional, keywords = [], {}
        for name, value in self.arguments.items():
            kind = self.constructor.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                positional.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                keywords.update(value)
            elif kind is inspect.Parameter.POSITIONAL_ONLY or (self.variadic() and not keywords and kind.value == 1):
                positional.append(value)
            else:
                keywords[name] = value
        return self.constructor.build(*positional, **keywords)


def same(a: Any, b: Any) -> bool:
    """Return whether two argument values are equal, comparing arrays by dtype and content."""
    if a is b:
        return True
    leaves_a, structure_a = jax.tree.flatten(a)
    leaves_b, structure_b = jax.tree.flatten(b)
    return structure_a == structure_b and all(map(_same_leaf, leaves_a, leaves_b))


def _same_leaf(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tracer) or isinstance(b, Tracer):
        return False
    if isinstance(a, jax.Array) and jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        return isinstance(b, jax.Array) and a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, (jax.Array, np.ndarray)) or isinstance(b, (jax.Array, np.ndarray)):
        return getattr(a, "dtype", None) == getattr(b, "dtype", None) and np.array_equal(a, b, equal_nan=True)
    return type(a) is type(b) and bool(a == b or (a != a and b != b))
