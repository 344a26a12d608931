"""`Card`: what a result shows of itself, and the methods that show it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxopt_study._display._html import card_html
from jaxopt_study._display._numbers import bounds, count, number, several
from jaxopt_study._display._text import card_text

LONG = 60  # characters of a value that is shown as its own repr


class Card(NamedTuple):
    """Contents of a display.

    Attributes:
        title: The name of the class, and what it holds in a few words.
        rows: Cells of a table: name, value with its error, and a unit or remark; with a head, any columns.
        head: Names of the columns; empty for none.
        notes: Sentences below the table.
        picture: A function that returns an SVG element; None for no picture.
    """

    title: str
    rows: Sequence[Sequence[str]] = ()
    head: Sequence[str] = ()
    notes: Sequence[str] = ()
    picture: Callable[[], str] | None = None


class NotShownError(Exception):
    """A field holds no number that can be read, as in `jit` and `vmap`: the result then shows its fields."""


def scalar(value: Any) -> Any:
    """Return a single number; raise NotShownError for anything else, such as a tracer or a batch."""
    found = array(value, 0)
    return found.item()


def array(value: Any, ndim: int = 1) -> np.ndarray:
    """Return an array of a number of axes; raise NotShownError for anything else."""
    try:
        found = np.asarray(value)
    except Exception as error:  # traced, donated, on another process, or not an array at all
        raise NotShownError from error
    if found.ndim != ndim or found.dtype.kind not in "biufcV":
        raise NotShownError
    return found if found.dtype.kind in "biuc" else found.astype(float)


def products(result: Any) -> tuple[str, str, str]:
    """Return the row of a result's number of products with the Hessian."""
    return "products", count(scalar(result.num_matvecs)), ""


def work(result: Any) -> str:
    """Return the cost of a result, for its title."""
    return several(scalar(result.num_matvecs), "product")


def displayed(make: Callable[[Any], Card]) -> tuple[Any, Any]:
    """Return the methods `__repr__` and `_repr_html_` of a class whose instances show a card.

    A result whose numbers cannot be read, inside `jit` or with a batch axis of `vmap`, shows its fields instead.

    Args:
        make: A function of the result that returns its card, and reads numbers with `scalar` and `array`.

    Returns:
        The two methods.
    """

    def card(result: Any) -> Card:
        try:
            return make(result)
        except NotShownError:
            return _of_fields(result)

    return lambda result: card_text(card(result)), lambda result: card_html(card(result))


def tabulated(columns: Callable[[Any], Any]) -> Any:
    """Return the method `to_pandas` of a class whose instances are tables.

    Args:
        columns: A function of the result that returns its columns by name.

    Returns:
        The method.
    """

    def to_pandas(result: Any) -> Any:
        """Return the result as a table of pandas."""
        import pandas  # takes a fifth of a second, and only tables need it

        return pandas.DataFrame(columns(result))

    return to_pandas


def plotted(result: Any, ax: Any = None, **options: Any) -> Any:
    """Draw the result with Matplotlib.

    Args:
        result: The result.
        ax: Axes to draw in; None makes a figure with one.
        **options: Options of the function of `figures` that draws such a result, as `figures.plot` lists them.

    Returns:
        The axes; `ax.figure` is the figure.
    """
    # Figures stand above what they draw, and Matplotlib takes as long to load as JAX.
    return import_module("jaxopt_study.figures").plot(result, ax, **options)


def _of_fields(result: Any) -> Card:
    rows = [(name, _summary(value), "") for name, value in _fields(result) if value is not None]
    return Card(type(result).__name__, rows)


def _fields(result: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(result):
        yield from ((field.name, getattr(result, field.name, None)) for field in fields(result))
    else:
        yield from zip(result._fields, result, strict=True)


def _summary(value: Any) -> str:
    if isinstance(value, Tracer):
        return f"traced {value.aval.str_short()}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _of_array(value)
    if isinstance(value, tuple | list | dict) or is_dataclass(value):
        leaves = jax.tree.leaves(value)
        arrays = [leaf for leaf in leaves if hasattr(leaf, "shape")]
        if arrays:
            return f"{type(value).__name__} of {len(arrays)} array{'s' * (len(arrays) > 1)}"
    try:
        shown = " ".join(repr(value).split())
    except Exception:  # an object of the user's
        shown = type(value).__name__
    return shown if len(shown) <= LONG else f"{shown[: LONG - 1]}…"


def _of_array(value: Any) -> str:
    kind = f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    try:
        found = array(value, len(value.shape))
    except NotShownError:
        return kind
    if not found.ndim:
        return number(found.item())
    if found.dtype.kind == "b":
        return f"{kind}, {count(found.sum())} of {count(found.size)} true"
    seen = found[np.isfinite(found)] + 0  # no −0
    if not seen.size or found.dtype.kind == "c":
        return kind
    lost = f", {count(found.size - seen.size)} not finite" if seen.size < found.size else ""
    return f"{kind}, {bounds(seen.min().item(), seen.max().item())}{lost}"
