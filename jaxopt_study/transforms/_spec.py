"""What a transformation is made of: the call that built it, kept as data beside the functions it built.

An `Expression` remembers its constructor and arguments. That one record gives it everything else: it prints as the
call, compares by the call, lists and replaces its hyperparameters by path, is saved as JSON, and is a JAX pytree whose
leaves are its numeric hyperparameters. `Transform` is the expression that is an Optax transformation, `Function` the
one that is a function (a schedule, or what `merge` combines branches with).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.core import Tracer

from jaxopt_study._checks import check_integer
from jaxopt_study.transforms._paths import arguments_of, match, rebuild
from jaxopt_study.transforms._printing import render_call
from jaxopt_study.transforms._to_json import to_json


class Constructor(NamedTuple):
    """A function that builds expressions, and what must be known about it to build them again."""

    name: str  # as printed
    path: str  # "module:name", where it can be imported; "" if it cannot
    build: Callable[..., Any]  # arguments -> Transform or plain function
    signature: inspect.Signature
    kind: str  # "atom", "composite" or "optax"
    conventions: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()  # defaults that depend on `convention`

    def check_convention(self, convention: Any) -> None:
        """Raise ValueError if there are conventions, and this is none of them."""
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
        """Return whether a number decides the program itself: those annotated as plain float, not as hyperparameter."""
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
        """Return the arguments that differ from their defaults: the ones a reader needs."""
        defaults = self.constructor.defaults(self.arguments.get("convention"))
        plain = self.constructor.defaults()
        return {
            name: value
            for name, value in self.arguments.items()
            if name not in defaults or not same(value, plain[name] if name == "convention" else defaults[name])
        }

    def call(self) -> Any:
        """Return what the constructor's function makes of the arguments."""
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


class Expression:
    """The specification of a transformation or function, and what follows from it.

    Attributes:
        spec: The call that built this, or None for one built directly from functions.
    """

    spec: Spec | None
    unflattened: tuple[list[Any], Any] | None = None  # as JAX last built it

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Every argument that is not itself a transformation, by path.

        A path is the argument's name, preceded by the names of the transformations around it:
        `"adam.b2"` inside a chain, `"merge.chain[1].ema.decay"` further down.
        """
        return {path: value for path, value in arguments_of(self) if not isinstance(value, Expression)}

    def replace(self, changes: Mapping[str, Any] | None = None, /, **keywords: Any) -> Any:
        """Return the same expression with some arguments changed.

        Args:
            changes: New values by path, by unique end of a path (`{"b2": 0.95}`), or by pattern with `*`, which changes
                every match. Values may be traced: nothing is recompiled when only numbers change.
            **keywords: The same, for arguments whose path is a plain name.

        Returns:
            A new expression of the same kind; this one is unchanged.

        Raises:
            ValueError: If a path matches nothing, or several arguments without a `*`.
        """
        paths = [path for path, _ in arguments_of(self)]
        resolved: dict[str, Any] = {}
        for wanted, value in {**(changes or {}), **keywords}.items():
            for path in match(wanted, paths, self):
                resolved[path] = value
        return rebuild(self, resolved, construct)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the expression as JSON text; `from_json` builds an equal one from it.

        Args:
            indent: Spaces that each level is indented by; None writes one line.

        Returns:
            The text.

        Raises:
            TypeError: If `indent` is no integer.
            ValueError: If a part cannot be named in text: a lambda, a local function, a bare Optax transformation, or a
                traced value. The message says which part and what to use.
        """
        return to_json(self, indent=None if indent is None else check_integer("to_json", "indent", indent, 0, 100))

    def __copy__(self) -> "Expression":
        return self

    def __deepcopy__(self, memo: Any) -> "Expression":
        return self

    def __repr__(self) -> str:
        if self.spec is None:
            return f"<{type(self).__name__} without a specification; build it with `from_optax` to give it one>"
        return render_call(self.spec)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or self.spec is None or other.spec is None:  # pyright: ignore
            return False
        return same(self.spec, other.spec)  # pyright: ignore

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self) if self.spec is None else hash((self.spec.constructor, jax.tree.structure(self)))


class Transform(Expression, optax.GradientTransformationExtraArgs):
    """An Optax transformation that carries the call that built it.

    It unpacks as `(init, update)` and works wherever an Optax transformation does.
    """

    spec: Spec | None = None  # as after `_replace`, which changes the functions behind the call

    def __new__(cls, init: Callable[..., Any], update: Callable[..., Any], spec: Spec | None = None):
        """Build a transformation from its two functions; constructors add the specification."""
        self = super().__new__(cls, init, update)
        self.spec = spec
        return self

    def expand(self) -> "Transform":
        """Return the same transformation written out in atoms.

        Named optimizers and other composites are replaced by the chains they stand for. The state has the same
        structure, so a run can be continued with the expanded form.
        """
        if self.spec is None:
            return self
        if self.spec.constructor.kind == "composite":
            return self.spec.call().expand()
        arguments = {name: _expand_parts(value) for name, value in self.spec.arguments.items()}
        return construct(Spec(self.spec.constructor, arguments))


class Function(Expression):
    """A function that carries the call that built it: a schedule, or what `merge` applies to its branches."""

    def __init__(self, function: Callable[..., Any], spec: Spec | None = None):
        self.spec = spec
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the function's value."""
        return self._function(*args, **kwargs)


def with_any_extra(transformation: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that is given only those extra arguments that it takes.

    `optax.with_extra_args_support` does so for transformations that take none. Others name a few and refuse the rest,
    as `optax.contrib.sam` does.

    Args:
        transformation: Any Optax transformation.

    Returns:
        The same, whatever it is called with.
    """
    tolerant = optax.with_extra_args_support(transformation)
    parameters = inspect.signature(tolerant.update).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return tolerant

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        taken = {name: argument for name, argument in extra.items() if name in parameters}
        return tolerant.update(updates, state, params, **taken)

    return optax.GradientTransformationExtraArgs(tolerant.init, update)


def construct(spec: Spec) -> Any:
    """Build an expression.

    Args:
        spec: The call to make.

    Returns:
        A `Transform` or a `Function` that remembers the call.

    Raises:
        TypeError: If the constructor returns neither a transformation nor a function.
        ValueError: If the convention is unknown.
    """
    spec.constructor.check_convention(spec.arguments.get("convention"))  # a text or `replace` may give any
    built = spec.call()
    if isinstance(built, optax.GradientTransformation):
        built = optax.with_extra_args_support(built)
        return Transform(built.init, built.update, spec)
    if callable(built):
        return Function(built, spec)
    raise TypeError(
        f"{spec.constructor.name} returned {type(built).__name__}; a constructor must return an Optax transformation "
        "or a function such as a schedule."
    )


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


def _expand_parts(value: Any) -> Any:
    is_part = lambda x: isinstance(x, (optax.GradientTransformation, Function))
    return jax.tree.map(lambda part: part.expand() if isinstance(part, Transform) else part, value, is_leaf=is_part)
