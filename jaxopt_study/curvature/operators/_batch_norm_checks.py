"""Batch normalisation, which couples the examples of a batch: what can be seen of it without running anything."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax


def check_no_statistics(name: str, params: Any) -> None:
    """Check that the parameters do not hold Flax's batch statistics, which no gradient trains.

    Args:
        name: Who asks, for the message.
        params: A pytree.

    Raises:
        ValueError: If it is a dictionary of Linen's with "params" and "batch_stats", or holds NNX's `BatchStat`.
    """
    if isinstance(params, Mapping) and {"params", "batch_stats"} <= set(params):
        raise ValueError(
            f"{name} needs the parameters alone; received a dictionary of collections, with 'batch_stats' beside "
            "'params'. Give variables['params'], and close over the statistics: lambda params, batch: loss({'params': "
            "params, 'batch_stats': variables['batch_stats']}, batch), with use_running_average=True."
        )

    def is_statistic(node: Any) -> bool:
        return any(kind.__name__ == "BatchStat" for kind in type(node).__mro__)

    if any(map(is_statistic, jax.tree.leaves(params, is_leaf=is_statistic))):
        raise ValueError(
            f"{name} needs the parameters alone; received a state that holds variables of the type BatchStat. Take "
            "graph, params, rest = nnx.split(model, nnx.Param, ...) and let the loss merge them again, with "
            "use_running_average=True (model.eval())."
        )


@contextmanager
def refusing_batch_norm(name: str, batch_size: int | None) -> Iterator[None]:
    """Refuse a Linen `BatchNorm` in training mode in what is traced inside, unless all data are one batch.

    Of several batches, each normalised by itself, the mean is the Hessian of no loss that anybody trains. What has been
    traced before and is cached, NNX and normalisation written by hand are not seen; `audit` sees them.

    Args:
        name: Who asks, for the message.
        batch_size: Examples per batch; None if all data are one.

    Yields:
        Nothing.

    Raises:
        ValueError: If one is called.
    """
    linen = sys.modules.get("flax.linen")  # where nobody has imported it, nobody uses it
    if linen is None or batch_size is None:
        yield
        return

    inside = True  # `python -O` drops the assertion by which Flax takes an interceptor away again

    def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if inside and context.method_name == "__call__" and isinstance(context.module, linen.BatchNorm):
            given = args[1] if len(args) > 1 else kwargs.get("use_running_average")
            if not (context.module.use_running_average if given is None else given):
                raise ValueError(
                    f"{name} with batch_size={batch_size} needs a loss that is a mean over examples; received one with "
                    f"batch normalisation in training mode, {'/'.join(context.module.path)}, which couples the "
                    "examples of a batch. Freeze its statistics with use_running_average=True, or leave batch_size "
                    "out to take all data as one batch."
                )
        return method(*args, **kwargs)

    with linen.intercept_methods(intercept):
        try:
            yield
        finally:
            inside = False
