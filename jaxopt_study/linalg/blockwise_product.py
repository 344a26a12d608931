"""Product with the diagonal blocks of a linear map, from its traced program.

The product of a block with its part of a vector is a run of the program with zeros for all other parts. All blocks run
together: each intermediate value is stacked over those blocks on whose part of the vector it depends, and whose part of
the result depends on it. For the layers of a network that is one half of the tangents and one half of the derivatives,
and none of the products that couple layers: L² + L products of matrices, where L whole products take 6 L².
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxopt_study._programs import called_program, evaluate
from jaxopt_study.types import Matvec

_LARGEST = 2**26  # bytes of a stacked value

# Primitives that are linear in some of their operands, the others being constant.
_ALL, _ONE_OF = "all", "any one"
_LINEAR: dict[str, Any] = {
    **dict.fromkeys(
        ("add", "add_any", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "cumsum",
         "expand_dims", "imag", "neg", "pad", "real", "reduce_precision", "reduce_sum",
         "reduce_window_sum", "reshape", "rev", "slice", "split", "squeeze", "sub", "transpose"), _ALL),
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _ONE_OF),
    **dict.fromkeys(("div", "gather", "dynamic_slice"), (0,)),
    "select_n": range(1, 99),
    "dynamic_update_slice": (0, 1),
    "scatter-add": (0, 2),
}  # fmt: skip

Blocks = tuple[int, ...]


def blockwise_product(product: Matvec, like: Any, owners: Blocks) -> Matvec | None:
    """Return v ↦ Σ_b P_b A P_b v for the blocks of a linear map, for use in the same trace.

    Args:
        product: v ↦ A v on pytrees of one structure, from `jax.linearize`: constants that it adds are 0.
        like: Shapes and dtypes of a vector.
        owners: For each leaf, the index of its block.

    Returns:
        The product; None if the program has an operation that is not known to be linear, such as a loop, if a stacked
        value would take more than 64 MiB, or if values are spread over the explicit axes of a mesh.
    """
    leaves, structure = jax.tree.flatten(like)
    traced = jax.make_jaxpr(lambda *x: jax.tree.leaves(product(structure.unflatten(x))))(*leaves)
    program = jax.make_jaxpr(lambda *x: evaluate(traced.jaxpr, traced.consts, x, _inlined))(*leaves)
    equations = program.jaxpr.eqns
    before = _dependence(program.jaxpr, owners)
    if not all(_is_linear(equation, before) for equation in equations):
        return None
    after = _influence(program.jaxpr, owners)
    rank = _order(program.jaxpr, owners)
    held = {var: tuple(sorted(before[var] & after.get(var, frozenset()), key=rank.__getitem__)) for var in before}
    if any(_is_spread(var) or len(blocks) * _bytes(var) > _LARGEST for var, blocks in held.items()):
        return None
    return lambda v: structure.unflatten(_run(program, owners, held, jax.tree.leaves(v)))


def _inlined(equation: core.JaxprEqn, values: list[Any]) -> list[Any]:
    if inner := called_program(equation, with_rules=True):  # nothing is differentiated from here on
        return evaluate(inner.jaxpr, inner.consts, values, _inlined)
    return _bound(equation, values)


def _bound(equation: core.JaxprEqn, values: Any) -> list[Any]:
    results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]


def _variables(atoms: Any) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _dependence(jaxpr: Any, owners: Blocks) -> dict[Any, frozenset[int]]:
    """Return the blocks on whose part of v each value depends; constants are not listed."""
    found = {var: frozenset((owner,)) for var, owner in zip(jaxpr.invars, owners, strict=True)}
    for equation in jaxpr.eqns:
        blocks = frozenset().union(*(found.get(var, ()) for var in _variables(equation.invars)))
        if blocks:
            found |= dict.fromkeys(equation.outvars, blocks)
    return found


def _influence(jaxpr: Any, owners: Blocks) -> dict[Any, frozenset[int]]:
    """Return the blocks whose part of the result depends on each value."""
    found: dict[Any, frozenset[int]] = {}
    for atom, owner in zip(jaxpr.outvars, owners, strict=True):
        if not isinstance(atom, core.Literal):
            found[atom] = found.get(atom, frozenset()) | {owner}
    for equation in reversed(jaxpr.eqns):
        blocks = frozenset().union(*(found.get(var, ()) for var in equation.outvars))
        for var in _variables(equation.invars):
            found[var] = found.get(var, frozenset()) | blocks
    return found


def _order(jaxpr: Any, owners: Blocks) -> dict[int, int]:
    """Return the place of each block by its first use: neighbouring layers are then neighbours in a stack."""
    owner_of, first = dict(zip(jaxpr.invars, owners, strict=True)), {}
    for equation in jaxpr.eqns:
        for var in _variables(equation.invars):
            if var in owner_of:
                first.setdefault(owner_of[var], len(first))
    return {block: first.get(block, len(first) + block) for block in owners}


def _is_linear(equation: core.JaxprEqn, dependent: Any) -> bool:
    """Return whether an operation is linear in its operands that depend on v."""
    places = {i for i, atom in enumerate(equation.invars) if not isinstance(atom, core.Literal) and atom in dependent}
    if not places:
        return True
    allowed = _LINEAR.get(equation.primitive.name, ())
    if allowed is _ALL:
        return True
    return len(places) == 1 if allowed == _ONE_OF else places <= set(allowed)


def _is_spread(var: Any) -> bool:
    return any(getattr(getattr(var.aval, "sharding", None), "spec", None) or ())


def _bytes(var: Any) -> int:
    return math.prod(var.aval.shape) * var.aval.dtype.itemsize


def _run(program: core.ClosedJaxpr, owners: Blocks, held: dict[Any, Blocks], v: list[Any]) -> list[Any]:
    """Return the leaves of Σ_b P_b A P_b v."""
    jaxpr = program.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= {var: leaf[None] for var, leaf in zip(jaxpr.invars, v, strict=True)}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        stacks = [held.get(atom) if not isinstance(atom, core.Literal) else None for atom in equation.invars]
        if all(stack is None for stack in stacks):
            values |= zip(equation.outvars, _bound(equation, map(read, equation.invars)), strict=True)
            continue
        blocks = held[equation.outvars[0]]
        if not blocks:
            continue
        operands = [
            read(atom) if stack is None else _aligned(values.get(atom), atom.aval, stack, blocks)
            for atom, stack in zip(equation.invars, stacks, strict=True)
        ]
        axes = [None if stack is None else 0 for stack in stacks]
        values |= zip(equation.outvars, _stacked(equation, operands, axes, len(blocks)), strict=True)
    results = []
    for atom, leaf, owner in zip(jaxpr.outvars, v, owners, strict=True):
        at = held.get(atom, ()) if not isinstance(atom, core.Literal) else ()
        results.append(values[atom][at.index(owner)] if owner in at else jnp.zeros_like(leaf))
    return results


def _stacked(equation: core.JaxprEqn, operands: list[Any], axes: list[Any], count: int) -> list[Any]:
    """Return the results for every block of a stack."""
    if count == 1:  # without a batch axis, which some operations are slower with
        single = [x if axis is None else x[0] for x, axis in zip(operands, axes, strict=True)]
        return [result[None] for result in _bound(equation, single)]
    return jax.vmap(lambda *x: _bound(equation, x), in_axes=axes)(*operands)


def _aligned(value: Any, aval: Any, have: Blocks, want: Blocks) -> Any:
    """Return a stack over other blocks, with zeros for those on which the value does not depend."""
    if have == want:
        return value
    pieces = []
    for present, group in itertools.groupby(want, lambda block: block in have):
        run = tuple(group)
        if not present:
            pieces.append(jnp.zeros((len(run), *aval.shape), aval.dtype))
            continue
        places = [have.index(block) for block in run]
        for _, part in itertools.groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
            start, *rest = [place for _, place in part]
            pieces.append(lax.slice_in_dim(value, start, start + 1 + len(rest)))
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)
