"""Validation of vectors, keys, tolerances and preconditioners, before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study._checks import check_key, check_real, describe_argument, in_double, is_real_scalar
from jaxopt_study._programs import is_traced, wider
from jaxopt_study.linalg.partition import leaf_paths
from jaxopt_study.linalg.sharding import sharding_of
from jaxopt_study.types import Key, Params, Vector

_LOOSEST = 0.5  # largest tolerance to recommend


def key_or_fixed(key: Any, name: str = "A solver") -> Key:
    """Return a valid key; a fixed one for None, so that results repeat."""
    return jax.random.key(0) if key is None else check_key(name, key)


def check_concrete(name: str, *values: Any) -> None:
    """Raise TypeError if a function that works from Python is called with traced arrays or inside a trace.

    Args:
        name: The function's, for the message.
        *values: Its arguments, pytrees of arrays.
    """
    if is_traced(values):
        raise TypeError(
            f"{name} cannot run on traced arrays, or inside jax.jit, jax.vmap or a probe of `train`. Record snapshots "
            "with train(…, record_params_every=…) and call it on them. Or, inside the run, use CurvatureProbe: "
            "`gain_sharpness`, `step_eigenvalues`, or `measure` with a function that can be traced."
        )


def check_tolerance(name: str, tol: Any, noise_floor: Any, *, times: int = 1, usual: float = 1e-3) -> None:
    """Check that a relative tolerance lies in (0, 1) and is not below the noise floor of the products.

    Args:
        name: The function that was called, for the messages.
        tol: Relative to the norm of the operator. The range of a traced one is not checked.
        noise_floor: Relative error of a product; may be traced.
        times: Smallest tolerance, in noise floors.
        usual: Tolerance to recommend, if the floor allows it.

    Raises:
        TypeError: If the tolerance is not a real number.
        ValueError: If it is not between 0 and 1, or below the floor.
    """
    if isinstance(noise_floor, Tracer):
        check_real(name, "tol", tol, 0.0, 1.0, closed="()")
        return
    least = times * float(noise_floor)
    remedy = (
        f"Ask for {max(2 * least, usual):.1e}, or build the operator in double precision."
        if 2 * least <= _LOOSEST
        else "Every tolerance above the noise floor is meaningless here: convert the parameters to float32 or float64. "
        "If the products are more accurate, pass the measured error: noise_floor=audit(op).noise_floor."
    )
    check_real(name, "tol", tol, 0.0, 1.0, closed="()", remedy=remedy)
    if not isinstance(tol, Tracer) and float(tol) < least:
        multiple = f"{times} times " if times > 1 else ""
        raise ValueError(
            f"{name}: tol must be at least {multiple}the operator's noise floor, {least:.1e} relative to its norm; "
            f"received {tol}. {remedy}"
        )


def describe(tree: Any, shardings: tuple[Any, ...] | None = None) -> Any:
    """Return structure, shapes, dtypes and shardings of a pytree, as `jax.ShapeDtypeStruct`s.

    Args:
        tree: A pytree of arrays or `jax.ShapeDtypeStruct`s.
        shardings: Shardings of the leaves, for traced arrays; None takes those of the arrays.

    Returns:
        The same structure.
    """
    leaves, structure = jax.tree.flatten(tree)
    shardings = tuple(map(sharding_of, leaves)) if shardings is None else shardings
    return structure.unflatten(
        [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            for leaf, sharding in zip(leaves, shardings, strict=True)
        ]
    )


def check_vector(structure: Any, v: Any, *, what: str = "vector", leading: int | None = None) -> Vector:
    """Return a vector as arrays; raise unless it fits the operator.

    Args:
        structure: Structure, shapes and dtypes of the operator's vectors.
        v: A pytree of arrays.
        what: Name of the vector in the messages.
        leading: Length of an additional leading axis of every leaf.

    Returns:
        The vector.

    Raises:
        TypeError: If a leaf is not an array, or its dtype would lose digits.
        ValueError: If structure or shapes differ.
    """
    expected, given = jax.tree.structure(structure), jax.tree.structure(v)
    if expected != given:
        raise ValueError(
            f"The {what} must have the structure of the parameters, {expected}; received {given}. "
            "For a restricted operator, give None for the leaves outside of the selection."
        )
    front = () if leading is None else (leading,)

    def check(path: str, leaf: Any, x: Any) -> Any:
        x = in_double(x)
        if not hasattr(x, "shape") and not isinstance(x, float | int):
            raise TypeError(f"The leaf {path!r} of the {what} must be an array; received a {type(x).__name__}.")
        shape = (*front, *leaf.shape)
        if np.shape(x) != shape:
            raise ValueError(f"The leaf {path!r} of the {what} must have shape {shape}; received {np.shape(x)}.")
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating) or (
            isinstance(x, jax.Array) and wider(x.dtype, leaf.dtype) != leaf.dtype
        ):
            raise TypeError(
                f"The leaf {path!r} of the {what} must be {leaf.dtype}; received {jnp.result_type(x)}. Convert it "
                "with .astype, which loses digits, or build the operator in the wider dtype."
            )
        return jnp.asarray(x, dtype=leaf.dtype)

    leaves = zip(leaf_paths(structure), jax.tree.leaves(structure), jax.tree.leaves(v), strict=True)
    return jax.tree.unflatten(expected, [check(path, leaf, x) for path, leaf, x in leaves])


def check_block(structure: Any, block: Any) -> Vector:
    """Return a block of vectors as arrays; raise unless it fits the operator."""
    leaves = jax.tree.leaves(block)
    length = np.shape(leaves[0])[0] if leaves and np.ndim(leaves[0]) else 0
    if length == 0:
        raise ValueError(
            "A block must have a leading axis of length ≥ 1 on every leaf, one entry per vector; received leaves of "
            f"shapes {[np.shape(leaf) for leaf in leaves]}."
        )
    return check_vector(structure, block, what="block", leading=length)


def check_same_space(a: Any, b: Any) -> None:
    """Check that two operators act on the same vectors."""
    same = jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.shape == y.shape and x.dtype == y.dtype for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    if not same:
        raise ValueError(
            "Operators to be added must act on vectors of the same structure, shapes and dtypes; received "
            f"{_summary(a)} and {_summary(b)}."
        )


def check_positive(structure: Any, preconditioner: Any) -> Params:
    """Return a diagonal preconditioner as arrays; raise unless it is positive and fits the operator.

    Args:
        structure: Structure, shapes and dtypes of the operator's vectors.
        preconditioner: A pytree of real arrays or numbers.

    Returns:
        The preconditioner.

    Raises:
        TypeError: If a leaf is not a real array.
        ValueError: If structure or shapes differ, or a number is not positive and finite.
    """
    if jax.tree.structure(preconditioner) != jax.tree.structure(structure):
        raise ValueError(
            f"The preconditioner must have the structure of the parameters, {jax.tree.structure(structure)}; received "
            f"{jax.tree.structure(preconditioner)}."
        )
    given = jax.tree.leaves(preconditioner)
    for path, p in zip(leaf_paths(structure), given, strict=True):
        if not (is_real_scalar(p) or isinstance(p, np.ndarray | jax.Array)) or jnp.iscomplexobj(p):
            raise TypeError(
                f"The leaf {path!r} of the preconditioner must be a real array; received {describe_argument(p)}."
            )
    leaves = [
        jnp.asarray(check_real("precondition", "the preconditioner", p) if isinstance(p, int) else in_double(p))
        for p in given
    ]
    for path, leaf, p in zip(leaf_paths(structure), jax.tree.leaves(structure), leaves, strict=True):
        if p.shape != () and p.shape != leaf.shape:
            raise ValueError(
                f"The leaf {path!r} of the preconditioner must have shape {leaf.shape} or (); received {p.shape}."
            )
        if not isinstance(p, Tracer) and not bool(jnp.all((p > 0) & jnp.isfinite(p))):
            raise ValueError(
                f"The preconditioner must be positive and finite; received other numbers in the leaf {path!r}. Add an "
                "ε > 0, as adaptive optimizers do."
            )
    return jax.tree.unflatten(jax.tree.structure(structure), leaves)


def _summary(structure: Any) -> str:
    return ", ".join(
        f"{path}: {leaf.dtype}{list(leaf.shape)}"
        for path, leaf in zip(leaf_paths(structure), jax.tree.leaves(structure), strict=True)
    )
