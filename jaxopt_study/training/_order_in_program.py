"""Batch orders in a compiled program: checked before the run, and split into a static part and arrays."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxopt_study._checks import describe_argument
from jaxopt_study.training._batch_order import BatchOrder, Reshuffle, ShuffleOnce, WithReplacement, check_shuffled
from jaxopt_study.training._curriculum import Curriculum, check_difficulty, check_pace

_KNOWN = (Reshuffle, ShuffleOnce, WithReplacement, Curriculum)


def is_known(order: BatchOrder) -> bool:
    """Return whether an order is one of this package, whose indices always lie in the data."""
    return isinstance(order, _KNOWN)


def split_order(order: BatchOrder) -> tuple[Hashable, Any]:
    """Return the static part of an order, which determines the compiled program, and its arrays, the arguments."""
    leaves, structure = jax.tree.flatten(order)
    if jax.tree_util.treedef_is_leaf(structure):  # no pytree of its own
        try:
            hash(order)
        except TypeError as error:
            raise TypeError(
                f"An order of batches must be hashable, or a registered pytree; received {describe_argument(order)}. "
                "Make it a frozen dataclass."
            ) from error
        return order, None
    return structure, leaves


def joined_order(static: Any, leaves: Any) -> BatchOrder:
    """Return the order that `split_order` has split."""
    return static if leaves is None else jax.tree.unflatten(static, leaves)


def check_order(order: BatchOrder, num_examples: int, batch_size: int, num_steps: int) -> None:
    """Run an order at the first, middle and last step; raise an error if it does not return examples of the data.

    Args:
        order: An order; those of this package are known to be right and are not run.
        num_examples: N.
        batch_size: B.
        num_steps: Of the run.

    Raises:
        TypeError: If the indices are not integers, or the pace of a curriculum is no number.
        ValueError: If their shape is not (B,), one is not in 0 … N − 1, a pace is not positive, or there are more
            examples than can be shuffled.
    """
    if isinstance(order, Reshuffle | ShuffleOnce):
        check_shuffled(num_examples)
    if isinstance(order, Curriculum):
        check_difficulty(order.difficulty, num_examples)
        check_pace(order.pace, num_steps)
    if is_known(order) or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(order)):
        return
    with jax.ensure_compile_time_eval():
        state: Any = order.init(jax.random.key(0), num_examples)
        for step in sorted({0, num_steps // 2, max(num_steps - 1, 0)}):
            indices = order.indices(state, jnp.int32(step), batch_size, num_examples)
            if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
                raise TypeError(
                    f"An order of batches needs indices to return integers; received {describe_argument(indices)} at "
                    f"step {step}."
                )
            if jnp.shape(indices) != (batch_size,) or (
                batch_size and not (0 <= indices.min() <= indices.max() < num_examples)
            ):
                raise ValueError(
                    f"An order of batches needs indices to return {batch_size} numbers from 0 to {num_examples - 1}; "
                    f"received {describe_argument(indices)} at step {step}."
                )
