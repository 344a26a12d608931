"""Expressions: transformations and functions that know the call that built them.

From its specification, the constructor and the arguments, an `Expression` prints as the call, compares by the call,
lists and replaces its hyperparameters by path, is saved as JSON, and is a JAX pytree whose leaves are its numeric
hyperparameters. A `Transform` is an expression that is an Optax transformation; a `Function` is one that is a plain
function (a schedule, or the function with which `merge` combines its branches).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from jaxopt_study._checks import check_integer
from jaxopt_study.transforms._paths import arguments_of, match, rebuild
from jaxopt_study.transforms._printing import render_call
from jaxopt_study.transforms._spec import Spec, same
from jaxopt_study.transforms._summary import Summary, summary
from jaxopt_study.transforms._to_json import to_json


class Expression:
    """A transformation or function with the specification that built it.

    Attributes:
        spec: The call that built this expression, or None if it was built directly from functions.
    """

    spec: Spec | None
    unflattened: tuple[list[Any], Any] | None = None  # leaves and structure from JAX's last unflattening

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Every argument that is not itself a transformation, by path.

        A path is the argument's name, preceded by the names of the transformations around it:
        `"adam.b2"` inside a chain, `"merge.chain[1].ema.decay"` further down.
        """
        return {path: value for path, value in arguments_of(self) if not isinstance(value, Expression)}

    def replace(self, changes: Mapping[str, Any] | None = None, /, **keywords: Any) -> Any:
        """Return a copy of the expression with some arguments changed.

        Args:
            changes: New values by path, by unique suffix of a path (`{"b2": 0.95}`), or by pattern with `*`, which
                changes every match. Values may be traced: changing only numbers does not recompile.
            **keywords: The same, for arguments whose path is a plain name.

        Returns:
            A new expression of the same kind; this one is unchanged.

        Raises:
            ValueError: If a path matches nothing, or several arguments without a `*`.
        """
        paths = [path for path, _ in arguments_of(self)]
        resolved: dict[str, Any] = {}
        for given, value in {**(changes or {}), **keywords}.items():
            for path in match(given, paths, self):
                resolved[path] = value
        return rebuild(self, resolved, construct)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the expression as JSON text, from which `from_json` builds an equal one.

        Args:
            indent: Number of spaces per level; None writes a single line.

        Returns:
            The text.

        Raises:
            TypeError: If `indent` is no integer.
            ValueError: If a part has no importable name: a lambda, a local function, a bare Optax transformation, or a
                traced value. The message names the part and an alternative.
        """
        return to_json(self, indent=None if indent is None else check_integer("to_json", "indent", indent, 0, 100))

    def __copy__(self) -> "Expression":
        return self

    def __deepcopy__(self, memo: Any) -> "Expression":
        return self

    def __repr__(self) -> str:
        if self.spec is None:
            return f"<{type(self).__name__} without a specification; build it with `from_optax` to have one>"
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
    """An Optax transformation that records the call that built it.

    It unpacks as `(init, update)` and works wherever Optax expects a transformation.
    """

    spec: Spec | None = None  # None, for example, after `_replace`, which changes the functions

    def __new__(cls, init: Callable[..., Any], update: Callable[..., Any], spec: Spec | None = None):
        """Build a transformation from its two functions; constructors add the specification."""
        self = super().__new__(cls, init, update)
        self.spec = spec
        return self

    def expand(self) -> "Transform":
        """Return the same transformation composed of atoms only.

        Named optimizers and other composites are replaced by their chains. The state keeps its structure, so a run can
        continue with the expanded form.
        """
        if self.spec is None:
            return self
        if self.spec.constructor.kind == "composite":
            return self.spec.call().expand()
        arguments = {name: _expand_parts(value) for name, value in self.spec.arguments.items()}
        return construct(Spec(self.spec.constructor, arguments))

    def summary(self, params: PyTree = None) -> Summary:
        """Return the tree of the parts with their hyperparameters, defaults included.

        A named optimizer is shown with the chain that it stands for.

        Args:
            params: Parameters, or their shapes, for the memory of each part's state; None measures none.

        Returns:
            The summary, which shows itself as a table. Cost: the state's shapes are traced, no array is made.

        Example:
            >>> from jaxopt_study import optimizers
            >>> tx = optimizers.momentum(0.1, decay=0.9)
            >>> tx.summary(np.zeros(1000, np.float32)).nodes[0].memory  # one buffer and its counters
            4008
        """
        return summary(self, params)

    def _repr_html_(self) -> str:
        return repr(self) if self.spec is None else self.summary()._repr_html_()


class Function(Expression):
    """A function that records the call that built it: a schedule, or the `fn` of a `merge`."""

    def __init__(self, function: Callable[..., Any], spec: Spec | None = None):
        self.spec = spec
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the function's value."""
        return self._function(*args, **kwargs)


def with_any_extra(transformation: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return a transformation that ignores extra arguments it does not accept.

    `optax.with_extra_args_support` does so for transformations that accept none. Some, such as `optax.contrib.sam`,
    accept a few and reject the rest.

    Args:
        transformation: Any Optax transformation.

    Returns:
        The same transformation, which accepts any extra argument.
    """
    tolerant = optax.with_extra_args_support(transformation)
    parameters = inspect.signature(tolerant.update).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return tolerant

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> Any:
        taken = {name: argument for name, argument in extra.items() if name in parameters}
        return tolerant.update(updates, state, params, **taken)

    return optax.GradientTransformationExtraArgs(tolerant.init, update)


def construct(spec: Spec) -> Any:
    """Build an expression from its specification.

    Args:
        spec: The constructor and its arguments.

    Returns:
        A `Transform` or a `Function` that remembers the call.

    Raises:
        TypeError: If the constructor returns neither a transformation nor a function.
        ValueError: If the convention is unknown.
    """
    spec.constructor.check_convention(spec.arguments.get("convention"))  # JSON text and `replace` may hold any value
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


def _expand_parts(value: Any) -> Any:
    is_part = lambda x: isinstance(x, (optax.GradientTransformation, Function))
    return jax.tree.map(lambda part: part.expand() if isinstance(part, Transform) else part, value, is_leaf=is_part)
