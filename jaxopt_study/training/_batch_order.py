"""Batch orders: which examples each step sees, as a pure function of a key and the step.

An order gives only the numbers of the examples; `batch_at` in `_step` reads the examples themselves.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Integer, UInt32

from jaxopt_study._checks import MAX_COUNT, check_integer, check_key, describe_argument
from jaxopt_study.training._shuffle import MAX_EXAMPLES, permute, round_words
from jaxopt_study.types import Key


@runtime_checkable
class BatchOrder(Protocol):
    """Selection of the examples that each step of a run sees.

    Any object with these methods is an order of `train`, `search`, `compare` and `ablate`. It is hashable, or a pytree
    whose arrays become arguments of the compiled program. An attribute `repeats` that is true says that an example may
    occur twice in one batch; without it a batch of all examples is taken as they are.
    """

    def init(self, key: Key, num_examples: int) -> Any:
        """Compute the state that all steps of a run share, once and outside of the loop.

        Args:
            key: The run's own key for its order.
            num_examples: N.

        Returns:
            Any pytree of arrays.
        """
        ...

    def indices(
        self, state: Any, step: Integer[ArrayLike, ""], batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return the examples of one batch.

        Args:
            state: What `init` returned.
            step: t, traced; 0 for the first step.
            batch_size: B.
            num_examples: N.

        Returns:
            B integers in 0 … N − 1.
        """
        ...


OrderName = Literal["reshuffle", "shuffle_once", "with_replacement"]
Order = OrderName | BatchOrder


@dataclass(frozen=True)
class Reshuffle:
    """Every epoch a new permutation of the examples; "reshuffle" for short.

    Batches straddle the ends of epochs: example t·B + j of the run is at position (t·B + j) mod N of epoch
    ⌊(t·B + j)/N⌋, so every epoch holds every example exactly once for any B. The permutations are those of `shuffle`.
    """

    def init(self, key: Key, num_examples: int) -> UInt32[Array, " rounds"]:
        """Return the keys of the permutations."""
        check_shuffled(num_examples)
        return round_words(key)

    def indices(
        self, state: UInt32[Array, " rounds"], step: Integer[ArrayLike, ""], batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return the next B examples of the epoch, or of two."""
        return _of_epochs(state, step, batch_size, num_examples, same=False)


@dataclass(frozen=True)
class ShuffleOnce:
    """Every epoch the same permutation of the examples; "shuffle_once" for short. Batches as in `Reshuffle`."""

    def init(self, key: Key, num_examples: int) -> UInt32[Array, " rounds"]:
        """Return the keys of the permutation."""
        check_shuffled(num_examples)
        return round_words(key)

    def indices(
        self, state: UInt32[Array, " rounds"], step: Integer[ArrayLike, ""], batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return the next B examples of the epoch, or of two."""
        return _of_epochs(state, step, batch_size, num_examples, same=True)


@dataclass(frozen=True)
class WithReplacement:
    """Every batch drawn independently and uniformly, with replacement; "with_replacement" for short."""

    repeats = True

    def init(self, key: Key, num_examples: int) -> Key:
        """Return the key from which every step derives its own."""
        return key

    def indices(
        self, state: Key, step: Integer[ArrayLike, ""], batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return B independent examples."""
        return jax.random.randint(jax.random.fold_in(state, step), (batch_size,), 0, num_examples)


ORDERS: dict[str, BatchOrder] = dict(
    zip(get_args(OrderName), (Reshuffle(), ShuffleOnce(), WithReplacement()), strict=True)
)


def batch_order(order: Any) -> BatchOrder:
    """Return an order of batches by its name, or the order itself.

    Args:
        order: "reshuffle", "shuffle_once", "with_replacement", a `Curriculum`, or anything that is a `BatchOrder`.

    Returns:
        The order.

    Raises:
        ValueError: If there is no such order.

    Example:
        >>> order = batch_order("reshuffle")
        >>> state = order.init(jax.random.key(0), 6)
        >>> print(jnp.sort(jnp.concatenate([order.indices(state, t, 2, 6) for t in range(3)])))
        [0 1 2 3 4 5]
    """
    return named_order("batch_order", order)


def named_order(who: str, order: Any) -> BatchOrder:
    """Return an order by its name, or the order itself; raise ValueError in the name of a function if there is none."""
    resolved = ORDERS.get(order) if isinstance(order, str) else order
    if isinstance(resolved, type) or not isinstance(resolved, BatchOrder):
        raise ValueError(
            f"{who} needs order to be one of {', '.join(map(repr, ORDERS))}, a Curriculum, or an object with init(key, "
            f"num_examples) and indices(state, step, batch_size, num_examples); received {describe_argument(order)}."
        )
    return resolved


def batch_indices(
    order: Order, state: Any, step: Integer[ArrayLike, ""], batch_size: int, num_examples: int
) -> Integer[Array, " batch"]:
    """Return the numbers of the examples that a step sees, with all arguments checked.

    Args:
        order: A name or a `BatchOrder`.
        state: What `init` of the order returned.
        step: t, 0 for the first step.
        batch_size: B ≥ 1, at most N unless the order draws with replacement.
        num_examples: N.

    Returns:
        Shape (B,), int32.

    Raises:
        TypeError: If a size is not an integer, or the state is not that of the order.
        ValueError: If a size is out of range, or the order is unknown.
    """
    order = named_order("batch_indices", order)
    check_integer("batch_indices", "num_examples", num_examples, 1, MAX_EXAMPLES)
    check_integer("batch_indices", "batch_size", batch_size, 1, MAX_COUNT if repeats(order) else num_examples)
    _check_step(step)
    _check_state(order, state, num_examples)
    return order.indices(state, step, batch_size, num_examples)


def repeats(order: BatchOrder) -> bool:
    """Return whether an example may occur twice in a batch of an order."""
    return bool(getattr(order, "repeats", False))


def check_shuffled(num_examples: int) -> None:
    """Raise ValueError if there are more examples than can be shuffled."""
    if num_examples > MAX_EXAMPLES:
        raise ValueError(
            f"Shuffled epochs work for up to 2²⁸ examples; received {num_examples}. Use order='with_replacement'."
        )


def _check_step(step: Any) -> None:
    if not isinstance(step, Tracer):
        check_integer("batch_indices", "step", step, 0)
    elif step.shape or not jnp.issubdtype(step.dtype, jnp.integer):
        raise TypeError(f"batch_indices needs step to be one integer; received {describe_argument(step)}.")


def _check_state(order: BatchOrder, state: Any, num_examples: int) -> None:
    expected = jax.eval_shape(lambda: order.init(jax.random.key(0), num_examples))
    if isinstance(order, WithReplacement):  # keys of every kind
        check_key("batch_indices", state, name="state")
    elif jax.tree.structure(expected) != jax.tree.structure(state) or any(
        jnp.shape(a) != b.shape and not jnp.issubdtype(b.dtype, jax.dtypes.prng_key)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
    ):
        raise TypeError(
            f"batch_indices: state must be what order.init(key, {num_examples}) of this order returned; received "
            f"{describe_argument(state)}."
        )


def _of_epochs(
    words: UInt32[Array, " rounds"], step: Integer[ArrayLike, ""], batch_size: int, num_examples: int, *, same: bool
) -> Integer[Array, " batch"]:
    epoch, offset = _epoch_and_offset(jnp.asarray(step), batch_size, num_examples)
    position = offset + jnp.arange(batch_size, dtype=jnp.uint32)
    wrapped = position >= num_examples
    position = jnp.where(wrapped, position - jnp.uint32(num_examples), position)
    epoch = jnp.uint32(0) if same else epoch + wrapped.astype(jnp.uint32)
    return permute(position, epoch, words, num_examples)


def _epoch_and_offset(
    step: Integer[Array, "*steps"], batch_size: int, num_examples: int
) -> tuple[UInt32[Array, "*steps"], UInt32[Array, "*steps"]]:
    """Return quotient and remainder of step · batch_size by N, exactly, although the product may need 64 bits."""
    step = step.astype(jnp.uint32)
    epoch = offset = jnp.uint32(0)
    for shift in range(0, 32, 4):
        quotient, remainder = divmod(batch_size << shift, num_examples)
        digit = (step >> shift) & jnp.uint32(15)
        total = offset + digit * jnp.uint32(remainder)  # < 16 N ≤ 2³²
        epoch = epoch + digit * jnp.uint32(quotient % 2**32) + total // jnp.uint32(num_examples)
        offset = total % jnp.uint32(num_examples)
    return epoch, offset
