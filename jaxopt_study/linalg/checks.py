"""What an operator is given, checked before anything is compiled."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxopt_study._checks import check_key, check_real, describe_argument, in_double, is_real_scalar
from jaxopt_study._programs import is_traced, wider
from jaxopt_study.linalg.partition import leaf_paths
from jaxopt_study.linalg.vectors import spread
from jaxopt_study.types import Key, Params, Vector

_LOOSEST = 0.5  # a tolerance above it is no advice


def key_or_fixed(key: Any, name: str = "A solver") -> Key:
    """Return the key, or where none is given the same one every time: the answer then repeats."""
    return jax.random.key(0) if key is None else check_key(name, key)


def check_concrete(name: str, *values: Any) -> None:
    """Raise TypeError inside a trace, where a function works from Python.

    Args:
        name: The function's, for the message.
        *values: Its arguments, pytrees of arrays.
    """
    if is_traced(values):
        raise TypeError(
            f"{name} works from Python and takes concrete arrays; received traced ones, or was called inside jax.jit, "
            "jax.vmap or a probe of `train`. Record the run with train(…, record_params_every=…) and call it on the "
            "snapshots; inside the run use CurvatureProbe, which has `gain_sharpness`, `step_eigenvalues` and, by "
            "`measure`, what can be traced."
        )


def check_tolerance(name: str, tol: Any, noise_floor: Any, *, times: int = 1, usual: float = 1e-3) -> None:
    """Check that a tolerance is a share of the norm, and not below what the noise of the products lets anybody reach.

    Args:
        name: Who asks, for the messages.
        tol: Relative to the norm of the operator. The range of a traced one is not checked.
        noise_floor: Relative error of a product; may be traced.
        times: How many noise floors are the least.
        usual: What to ask for instead, if the floor allows.

    Raises:
        TypeError: If the tolerance is no real number.
        ValueError: If it is not between 0 and 1, or below the floor.
    """
    if isinstance(noise_floor, Tracer):
        check_real(name, "tol", tol, 0.0, 1.0, closed="()")
        return
    least = times * float(noise_floor)
    remedy = (
        f"Ask for {max(2 * least, usual):.1e}, or build the operator in double precision."
        if 2 * least <= _LOOSEST
        else "No tolerance that could be met says anything: convert the parameters to float32 or float64. If the "
        "products are better than that, pass what was measured: noise_floor=audit(op).noise_floor."
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
        shardings: The shardings of the leaves, where the arrays are traced and do not know; None takes the arrays'.

    Returns:
        The same structure.
    """
    leaves, structure = jax.tree.flatten(tree)
    shardings = tuple(map(spread, leaves)) if shardings is None else shardings
    return structure.unflatten(
        [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            for leaf, sharding in zip(leaves, shardings, strict=True)
        ]
    )


def check_vector(like: Any, v: Any, *, what: str = "vector", leading: int | None = None) -> Vector:
    """Return a vector as arrays, if it fits the operator.

    Args:
        like: What the operator takes.
        v: A pytree of arrays.
        what: The word for it in the message.
        leading: Length of a leading axis that every leaf has in addition.

    Returns:
        The vector.

    Raises:
        TypeError: If it is not made of arrays, or another dtype would be lost.
        ValueError: If structure or shapes differ.
    """
    expected, given = jax.tree.structure(like), jax.tree.structure(v)
    if expected != given:
        raise ValueError(
            f"The {what} must have the structure of the parameters, {expected}; received {given}. "
            "A restricted operator takes None for the leaves that it left out."
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
                "with .astype if the loss of digits is meant, or make the operator in the wider dtype."
            )
        return jnp.asarray(x, dtype=leaf.dtype)

    leaves = zip(leaf_paths(like), jax.tree.leaves(like), jax.tree.leaves(v), strict=True)
    return jax.tree.unflatten(expected, [check(path, leaf, x) for path, leaf, x in leaves])


def check_block(like: Any, block: Any) -> Vector:
    """Return a block of vectors as arrays, if it fits the operator."""
    leaves = jax.tree.leaves(block)
    length = np.shape(leaves[0])[0] if leaves and np.ndim(leaves[0]) else 0
    if length == 0:
        raise ValueError(
            "A block must have a leading axis of length ≥ 1 on every leaf, one entry per vector; received leaves of "
            f"shapes {[np.shape(leaf) for leaf in leaves]}."
        )
    return check_vector(like, block, what="block", leading=length)


def check_same_space(a: Any, b: Any) -> None:
    """Check that two operators act on the same vectors."""
    same = jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.shape == y.shape and x.dtype == y.dtype for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    if not same:
        raise ValueError(
            "Operators can be added if they act on the same vectors, structure, shapes and dtypes alike; received "
            f"{_summary(a)} and {_summary(b)}."
        )


def check_positive(like: Any, preconditioner: Any) -> Params:
    """Return a diagonal preconditioner as arrays, if it is positive and fits the operator.

    Args:
        like: What the operator takes.
        preconditioner: A pytree of real arrays or numbers.

    Returns:
        The preconditioner.

    Raises:
        TypeError: If a leaf is no real array.
        ValueError: If structure or shapes differ, or a number is not positive and finite.
    """
    if jax.tree.structure(preconditioner) != jax.tree.structure(like):
        raise ValueError(
            f"The preconditioner must have the structure of the parameters, {jax.tree.structure(like)}; received "
            f"{jax.tree.structure(preconditioner)}."
        )
    given = jax.tree.leaves(preconditioner)
    for path, p in zip(leaf_paths(like), given, strict=True):
        if not (is_real_scalar(p) or isinstance(p, np.ndarray | jax.Array)) or jnp.iscomplexobj(p):
            raise TypeError(
                f"The leaf {path!r} of the preconditioner must be a real array; received {describe_argument(p)}."
            )
    leaves = [
        jnp.asarray(check_real("precondition", "the preconditioner", p) if isinstance(p, int) else in_double(p))
        for p in given
    ]
    for path, leaf, p in zip(leaf_paths(like), jax.tree.leaves(like), leaves, strict=True):
        if p.shape != () and p.shape != leaf.shape:
            raise ValueError(
                f"The leaf {path!r} of the preconditioner must have shape {leaf.shape} or (); received {p.shape}."
            )
        if not isinstance(p, Tracer) and not bool(jnp.all((p > 0) & jnp.isfinite(p))):
            raise ValueError(
                f"The preconditioner must be positive and finite; the leaf {path!r} is not. Add an ε > 0 to it, as "
                "adaptive optimizers do."
            )
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _summary(like: Any) -> str:
    return ", ".join(
        f"{path}: {leaf.dtype}{list(leaf.shape)}"
        for path, leaf in zip(leaf_paths(like), jax.tree.leaves(like), strict=True)
    )
