"""Construction of the operator of a loss, with checked arguments, over arrays or over the batches of a loader."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from functools import partial
from typing import Any, Literal, get_args

import jax
from jax.core import Tracer

from jaxopt_study._checks import check_bool, check_choice, check_params
from jaxopt_study._display import memory
from jaxopt_study._programs import contains, contains_convolution
from jaxopt_study.curvature.operators._batch_norm_checks import check_no_statistics, refusing_batch_norm
from jaxopt_study.curvature.operators._batches import check_batches, is_divided, num_examples
from jaxopt_study.curvature.operators._empirical_risk import BatchOperator, EmpiricalRiskOperator
from jaxopt_study.curvature.operators._function_checks import check_function
from jaxopt_study.curvature.operators._memory import Need, need
from jaxopt_study.curvature.operators._operator import Operator
from jaxopt_study.curvature.operators._streamed_operator import StreamedOperator
from jaxopt_study.curvature.operators._streams import Stream, is_stream
from jaxopt_study.linalg.sharding import sharding_of
from jaxopt_study.types import Batch, Params

Precision = Literal["highest", "high", "default"]
_CHECKPOINTS = ("remat", "checkpoint")  # names of the primitive of `jax.checkpoint`


def operator_of_data(
    batch_operator: BatchOperator,
    params: Params,
    data: Any,
    *,
    batch_size: Any,
    remat: Any,
    precision: Any,
    chooses: bool = False,
) -> Operator:
    """Return the operator of an empirical risk over arrays, or over a stream of batches.

    Args:
        batch_operator: The operator that one batch defines.
        params: Parameters.
        data: Arrays, None, or batches.
        batch_size: Examples per batch of arrays, or None.
        remat: Whether each product linearises again; a stream always does.
        precision: The matmul precision.
        chooses: Whether to choose a batch size for arrays, where it takes one to leave ample free memory.

    Returns:
        The operator.

    Raises:
        TypeError: If batches cannot be read again, or an argument has the wrong type.
        ValueError: If a stream has no batches, comes with `batch_size`, an argument is out of range, or a product does
            not fit in memory.
    """
    build = partial(_empirical_risk_operator, batch_operator, params, remat=remat, precision=precision)
    name = batch_operator.name
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} reads its batches once for every product; received {type(data).__name__}, which can be read once. "
            "Pass the loader itself, a function that returns a new iterator, or list(batches)."
        )
    if not is_stream(data):
        return build(data, batch_size=batch_size, chooses=chooses)
    if batch_size is not None:
        raise ValueError(
            f"{name} takes the batches of a loader as they come; received batch_size={batch_size!r}. Omit it, and set "
            "the size in the loader."
        )
    stream = Stream(name, data)
    stream.check_starts_again()
    first = next(iter(stream), None)
    if first is None:
        raise ValueError(
            f"{name} needs at least one batch with examples; the given {type(data).__name__} yields none. Check how "
            "the data were selected."
        )
    template = build(check_batches(name, first[1], None), batch_size=None)
    return StreamedOperator(replace(template, data=None), stream)


def _empirical_risk_operator(
    batch_operator: BatchOperator,
    params: Params,
    data: Batch | None,
    *,
    batch_size: Any,
    remat: Any,
    precision: Any,
    chooses: bool = False,
) -> EmpiricalRiskOperator:
    """Check the arguments of an operator of an empirical risk and build it.

    Args:
        batch_operator: The operator that one batch defines.
        params: Parameters.
        data: Examples, or None.
        batch_size: Examples per batch, or None.
        remat: Whether each product differentiates again; None is True with `batch_size`, with checkpoints in `forward`,
            and where a product takes more than an eighth of the free memory.
        precision: The matmul precision.
        chooses: Whether to choose a batch size where none is given and a product takes more than an eighth of what is
            free.

    Returns:
        The operator. Cost: one trace of `forward`; where a product may take much of the free memory, also the
        compilation of one.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or a product does not fit in memory.
    """
    name = batch_operator.name
    for argument in (one for one in fields(batch_operator) if one.default is MISSING):
        check_function(name, argument.name, getattr(batch_operator, argument.name))
    check_choice(name, "precision", precision, get_args(Precision))
    remat = None if remat is None else check_bool(name, "remat", remat)
    check_no_statistics(name, params)
    params = check_params(name, params)
    data = check_batches(name, data, batch_size)
    batch, several = data, batch_size is not None and batch_size < num_examples(data)
    if several:
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), data)
    with jax.default_matmul_precision(precision), refusing_batch_norm(name, batch_size if several else None):
        program, result = jax.make_jaxpr(batch_operator.forward, return_shape=True)(params, batch)
    batch_operator.check(result)
    leaves = jax.tree.leaves(params)
    traced = any(isinstance(leaf, Tracer) for leaf in (*leaves, *jax.tree.leaves(data)))
    on_host = not traced and jax.default_backend() == "cpu" and contains_convolution(program)
    op = EmpiricalRiskOperator(
        params=params,
        frozen=None,
        data=data,
        batch_operator=batch_operator,
        structure=jax.tree.structure(params),
        mask=(True,) * len(leaves),
        shardings=tuple(map(sharding_of, leaves)),
        batch_size=None if batch_size is None else int(batch_size),
        shard_interleaved=is_divided(data, batch_size),
        remat=batch_size is not None or any(contains(program, one) for one in _CHECKPOINTS) if remat is None else remat,
        matmul=precision,
        loop_kind="host" if on_host else "compiled",
    )
    size, count = _batches(op)
    found = need(op, program, size, count if remat is False else 1)
    if chooses and batch_size is None and not found.is_ample and found.examples < size:
        try:
            return _empirical_risk_operator(
                batch_operator, params, data, batch_size=found.examples, remat=remat, precision=precision
            )
        except ValueError:  # a loss that is no mean over batches, such as one with batch normalisation
            pass
    if found.product > found.free or (remat is False and found.kept > found.free):
        raise ValueError(_too_large(op, found, size))
    if remat is None and not found.is_ample:
        op = replace(op, remat=True)
    return batch_operator.settled(op, program)


def _batches(op: EmpiricalRiskOperator) -> tuple[int, int]:
    """Return the number of examples of a batch, 0 where the data have no common leading axis, and that of batches."""
    leaves = jax.tree.leaves(op.data)
    if not leaves or any(x.ndim == 0 or x.shape[0] != leaves[0].shape[0] for x in leaves):
        return 0, 1
    total = leaves[0].shape[0]
    size = min(op.batch_size or total, total)
    return size, -(-total // size)


def _too_large(op: EmpiricalRiskOperator, found: Need, size: int) -> str:
    name, free = op.batch_operator.name, f"{memory(found.free)} are free"
    if found.product <= found.free:
        return (
            f"{name} with remat=False needs about {memory(found.kept)} of memory to keep its linearisation; {free}. "
            "Omit remat, which then differentiates in every product."
        )
    over = f" over {size:,} examples at once" if size else ""
    remedy = "Put jax.checkpoint around the layers of the model, or give fewer data."
    if found.examples < size:
        remedy = f"Pass batch_size={found.examples} or less, or let the loader yield batches of that size."
    return f"{name} needs about {memory(found.product)} of memory for a product{over}; {free}. {remedy}"
