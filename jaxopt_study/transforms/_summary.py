"""Summary of a transformation: the tree of its parts with hyperparameters, and the memory of their states."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from jaxopt_study._display import Card, displayed, memory
from jaxopt_study.transforms._paths import children
from jaxopt_study.transforms._printing import render

LONG = 48  # characters of an argument


@dataclass(frozen=True)
class Node:
    """A part of a transformation.

    Attributes:
        depth: Number of parts around it.
        name: Its name, with its place among parts of the same name.
        hyperparams: Its own arguments, defaults included.
        memory: Bytes of its state, parts included; None without parameters.
    """

    depth: int
    name: str
    hyperparams: dict[str, Any]
    memory: int | None


def _card(found: "Summary") -> Card:
    rows = []
    for node in found.nodes:
        arguments = ", ".join(
            f"{name}={_cropped(render(value))}" for name, value in node.hyperparams.items() if value is not None
        )
        place = f"{'  ' * (node.depth - 1)}└ " * bool(node.depth) + node.name
        rows.append((place, arguments) if node.memory is None else (place, arguments, memory(node.memory)))
    total = found.nodes[0].memory
    title = "Transform: parts with their hyperparameters"
    if total is not None:
        return Card(f"{title}, {memory(total)} of state", rows, ("part", "hyperparameters", "state"))
    return Card(title, rows, ("part", "hyperparameters"))


@dataclass(frozen=True)
class Summary:
    """The parts of a transformation, in the order in which they apply, each after the part around it.

    Attributes:
        nodes: The parts, the whole first.
    """

    nodes: tuple[Node, ...]

    __repr__, _repr_html_ = displayed(_card)


def summary(transform: Any, params: PyTree = None) -> Summary:
    """Return the tree of a transformation, as `Transform.summary` does."""
    return Summary(tuple(_walk(transform, _name(transform, "transformation"), 0, params)))


def _walk(part: Any, name: str, depth: int, params: PyTree) -> Iterator[Node]:
    spec = getattr(part, "spec", None)
    size = None if params is None else _bytes(part, params)
    if spec is None:
        yield Node(depth, name, {}, size)
        return
    inner = [(path, value) for path, _, value in children(spec) if isinstance(value, optax.GradientTransformation)]
    own = {path: value for path, _, value in children(spec) if not isinstance(value, optax.GradientTransformation)}
    yield Node(depth, name, own, size)
    if spec.constructor.kind == "composite":
        built = spec.call()
        inner = [(_name(built, "built of"), built)]
    for path, value in inner:
        yield from _walk(value, path, depth + 1, params)


def _name(part: Any, fallback: str) -> str:
    spec = getattr(part, "spec", None)
    if spec is None:
        return fallback
    stage = "optimizers." if spec.constructor.path.startswith("jaxopt_study.optimizers.") else ""
    return stage + spec.constructor.name


def _bytes(part: Any, params: PyTree) -> int | None:
    """Return the size of the state of a part; None if it cannot begin at these parameters alone."""
    try:
        state = jax.eval_shape(part.init, params)
    except Exception:  # a part inside of a partition, or of the user's own
        return None
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _cropped(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
