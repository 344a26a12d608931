"""Static detection of batch normalisation in training mode, which couples the examples of a batch."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax


def check_no_statistics(name: str, params: Any) -> None:
    """Raise ValueError if the parameters contain Flax's batch statistics, which no gradient trains.

    Args:
        name: The function that was called, for the message.
        params: A pytree.

    Raises:
        ValueError: If the tree is a Linen dictionary with "params" and "batch_stats", or holds NNX's `BatchStat`.
    """
    if isinstance(params, Mapping) and {"params", "batch_stats"} <= set(params):
        raise ValueError(
            f"{name} needs only the parameters; received a dictionary of collections with 'batch_stats' and "
            "'params'. Give variables['params'], and close over the statistics: lambda params, batch: loss({'params': "
            "params, 'batch_stats': variables['batch_stats']}, batch), with use_running_average=True."
        )

    def is_statistic(node: Any) -> bool:
        return any(kind.__name__ == "BatchStat" for kind in type(node).__mro__)

    if any(map(is_statistic, jax.tree.leaves(params, is_leaf=is_statistic))):
        raise ValueError(
            f"{name} needs only the parameters; received a state with variables of the type BatchStat. Use "
            "graph, params, rest = nnx.split(model, nnx.Param, ...) and merge them inside the loss, with "
            "use_running_average=True (model.eval())."
        )


@contextmanager
def refusing_batch_norm(name: str, batch_size: int | None) -> Iterator[None]:
    """Raise if code traced in this context calls a Linen `BatchNorm` in training mode, unless all data are one batch.

    The mean over several batches, each normalised by itself, is not the Hessian of any loss. The context does not
    detect functions that JAX has traced and cached before, NNX, or hand-written normalisation; `audit` does.

    Args:
        name: The function that was called, for the message.
        batch_size: Examples per batch; None if all data are one batch.

    Yields:
        Nothing.

    Raises:
        ValueError: If such a layer is called.
    """
    linen = sys.modules.get("flax.linen")  # a loss cannot use Linen before it is imported
    if linen is None or batch_size is None:
        yield
        return

    inside = True  # with `python -O`, Flax does not remove its interceptors

    def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if inside and context.method_name == "__call__" and isinstance(context.module, linen.BatchNorm):
            given = args[1] if len(args) > 1 else kwargs.get("use_running_average")
            if not (context.module.use_running_average if given is None else given):
                raise ValueError(
                    f"{name} with batch_size={batch_size} needs a loss that is a mean over examples; received one with "
                    f"batch normalisation in training mode, {'/'.join(context.module.path)}, which couples the "
                    "examples of a batch. Freeze its statistics with use_running_average=True, or omit batch_size "
                    "to take all data as one batch."
                )
        return method(*args, **kwargs)

    with linen.intercept_methods(intercept):
        try:
            yield
        finally:
            inside = False
