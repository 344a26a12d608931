"""Variants of a chain for an ablation: a part removed, two parts swapped, or a hyperparameter disabled."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp

from jaxopt_study import transforms
from jaxopt_study._checks import check_static_real, describe_argument
from jaxopt_study.transforms import Transform, children, construct, neutral_values, rebuild

Kind = Literal["full", "without", "neutral", "swapped"]


@dataclass(frozen=True, eq=False)
class Variant:
    """A chain that differs from the full chain in one respect.

    Attributes:
        name: Description of the difference.
        kind: Kind of the difference.
        optimizer: The chain.
        values: Numeric hyperparameters by path, kept apart so that variants which differ only in numbers share a
            program.
    """

    name: str
    kind: Kind
    optimizer: Transform
    values: Mapping[str, float] = field(default_factory=dict)


def variants_of(optimizer: Transform, *, neutral: Mapping[str, float] | None = None) -> list[Variant]:
    """Return a chain and its variants: without each atom, with neighbours swapped, with hyperparameters disabled.

    Named optimizers are expanded into atoms first. Then:

    - *without*: a part of a chain is removed. A bias correction is removed by itself and, if there are several, all
      together; a statistic is removed with its bias correction. If the branch of a `merge` holds a statistic other than
      the mean, such as the mean square, the constant 1 replaces it, so that a division by its root has no effect. The
      atom that sets the step length (`scale_by_learning_rate`) stays.
    - *swapped*: two neighbours in a chain are interchanged.
    - *neutral*: a hyperparameter has the value that its atom declares as disabling it, such as ε = 0.

    Args:
        optimizer: The chain.
        neutral: Disabled values by path, or unique suffix of a path, instead of the declared ones.

    Returns:
        The variants, the full chain first.

    Raises:
        TypeError: If `optimizer` is not a `Transform` with a specification, or `neutral` does not map paths to numbers.

    Example:
        >>> from jaxopt_study import optimizers
        >>> print(*(variant.name for variant in variants_of(optimizers.momentum(0.1))), sep=", ")
        full, without heavy_ball(0.9), heavy_ball(0.9) before scale_by_learning_rate(0.1)
    """
    if not isinstance(optimizer, Transform) or optimizer.spec is None:
        raise TypeError(
            f"Ablation needs a Transform, such as optimizers.adam(1e-3); received {optimizer!r}. Use "
            "from_optax(optax_constructor)(…) for an Optax transformation, whose hyperparameters can then be "
            "disabled."
        )
    if neutral is not None and not isinstance(neutral, Mapping):
        raise TypeError(
            'ablate needs neutral to map paths to numbers, as in {"eps": 0.0}; received '
            f"{describe_argument(neutral)}."
        )
    whole = optimizer.expand()
    parts = _parts(whole)
    numbers = {
        path: value
        for path, value in whole.hyperparams.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    disabled = _neutral_values(whole, numbers, neutral)
    current = {path: float(numbers[path]) for path in disabled}
    variants = [Variant("full", "full", whole, current)]
    removals = {path: change for path in parts if (change := _removal(path, parts, whole)) is not None}
    variants += [
        _changed(f"without {shown(path, parts)}", "without", whole, change, disabled)
        for path, change in removals.items()
    ]
    corrections = [path for path in removals if _kind_of(parts[path]) == "bias_correction"]
    if len(corrections) > 1:
        every = {path: transforms.identity() for path in corrections}
        variants.append(_changed("without every bias_correction", "without", whole, every, disabled))
    for first, second in _neighbours(parts, whole):
        swap = {first: parts[second], second: parts[first]}
        if repr(parts[first]) != repr(parts[second]):
            what = f"{shown(second, parts)} before {shown(first, parts)}"
            variants.append(_changed(what, "swapped", whole, swap, disabled))
    variants += [
        Variant(f"{path} = {value:g}", "neutral", whole, current | {path: value}) for path, value in disabled.items()
    ]
    return variants


def _changed(
    name: str, kind: Kind, whole: Transform, changes: Mapping[str, Any], disabled: Mapping[str, float]
) -> Variant:
    changed = rebuild(whole, changes, construct)
    left = {path: value for path, value in changed.hyperparams.items() if path in disabled}
    return Variant(name, kind, changed, {path: float(value) for path, value in left.items()})


def _neutral_values(
    whole: Transform, numbers: Mapping[str, Any], neutral: Mapping[str, float] | None
) -> dict[str, float]:
    if neutral is None:
        declared = neutral_values(whole)
        return {path: value for path, value in declared.items() if path in numbers and numbers[path] != value}
    values = {}
    for name, value in neutral.items():
        matches = [path for path in numbers if f".{path}".endswith(f".{name}")]
        if len(matches) != 1:
            raise ValueError(
                f"neutral={{{name!r}: …}} matches {len(matches) or 'no'} hyperparameters of {whole!r}; expected one "
                f"of {', '.join(numbers)}."
            )
        values[matches[0]] = check_static_real("neutral", name, value)
    return values


def _parts(whole: Transform, prefix: str = "") -> dict[str, Transform]:
    """Return all transformations inside another, by path."""
    parts = {}
    for name, _, value in children(whole.spec):
        if isinstance(value, Transform) and value.spec is not None:
            parts |= {prefix + name: value, **_parts(value, f"{prefix}{name}.")}
    return parts


def _removal(path: str, parts: Mapping[str, Transform], whole: Transform) -> dict[str, Any] | None:
    """Return the changes that remove a part, or None if it is not removed by itself."""
    kind = _kind_of(parts[path])
    parent = _parent(path, parts, whole)
    if kind in ("identity", "scale_by_learning_rate"):
        return None
    if kind == "merge":
        return {path: transforms.identity()}
    if _kind_of(parent) == "merge":
        return {path: _stand_in(parts[path])}
    first = next(name for name in parts if _parent(name, parts, whole) is parent)
    if kind == "chain" or (path.count(".") and _grandparent_is_merge(path, parts, whole) and path == first):
        return None  # the statistic of a branch; the branch is removed as a whole
    return {path: transforms.identity()}


def _stand_in(branch: Transform) -> Transform:
    """Return the replacement of a branch: the gradient, or 1 if the branch is another statistic than the mean."""
    inner = [value for name, value in branch.hyperparams.items() if name.rpartition(".")[2] == "of"]
    return transforms.ema(0.0, of=jnp.ones_like) if any(of is not None for of in inner) else transforms.identity()


def _neighbours(parts: Mapping[str, Transform], whole: Transform) -> list[tuple[str, str]]:
    by_parent: dict[str, list[str]] = {}
    for path in parts:
        if _kind_of(_parent(path, parts, whole)) == "chain":
            by_parent.setdefault(path.rpartition(".")[0], []).append(path)
    return [pair for paths in by_parent.values() for pair in itertools.pairwise(paths)]


def _grandparent_is_merge(path: str, parts: Mapping[str, Transform], whole: Transform) -> bool:
    return _kind_of(_parent(path.rpartition(".")[0], parts, whole)) == "merge"


def _parent(path: str, parts: Mapping[str, Transform], whole: Transform) -> Transform:
    above = path.rpartition(".")[0]
    return parts[above] if above else whole


def _kind_of(part: Transform) -> str:
    return part.spec.constructor.name if part.spec is not None else ""


def shown(path: str, parts: Mapping[str, Transform]) -> str:
    """Return the expression that builds a part, with the usual name of a moment.

    A long expression is replaced by the path; the path is appended if several parts have the same expression.
    """
    part = parts[path]
    text = " ".join(repr(part).split()).replace("( ", "(").replace(", )", ")")
    alike = sum(repr(other) == repr(part) for other in parts.values())
    text = path if len(text) > 60 else text if alike == 1 else f"{text} at {path}"
    statistics = [value for name, value in part.hyperparams.items() if f".{name}".endswith((".ema.of", ".of"))]
    if len(statistics) == 1 and _kind_of(part) in ("chain", "ema") and ("merge" in path):
        text += {None: " (first moment)", jnp.square: " (second moment)"}.get(statistics[0], "")
    return text
