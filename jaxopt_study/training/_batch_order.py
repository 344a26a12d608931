"""Batch orders: which examples each step sees, as a pure function of a key and the step."""

from collections.abc import Callable, Hashable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Integer, UInt32

from jaxopt_study._checks import (
    MAX_COUNT,
    check_integer,
    check_key,
    check_numbers,
    check_real,
    check_static,
    describe_argument,
    is_real_scalar,
)
from jaxopt_study.training._shuffle import MAX_EXAMPLES, permute, round_words
from jaxopt_study.types import Key

_NO_ARRAYS = (str, bytes, int, float, complex, Mapping, Set)


@runtime_checkable
class BatchOrder(Protocol):
    """Which examples each step of a run sees.

    Any object with these methods is an order of `train`, `search`, `compare` and `ablate`. It is hashable, or a pytree
    whose arrays become arguments of the compiled program. An attribute `repeats` that is true says that an example may
    occur twice in one batch; without it a batch of all examples is taken as they are.
    """

    def init(self, key: Key, num_examples: int) -> Any:
        """Return what all steps of a run share, computed once and outside of the loop.

        Args:
            key: The run's own key for its order.
            num_examples: N.

        Returns:
            Any pytree of arrays.
        """
        ...

    def indices(self, state: Any, step: Any, batch_size: int, num_examples: int) -> Integer[Array, " batch"]:
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


Order = Literal["reshuffle", "shuffle_once", "with_replacement"] | BatchOrder


@dataclass(frozen=True)
class Reshuffle:
    """Every epoch a new permutation of the examples; "reshuffle" for short.

    Batches straddle the ends of epochs: example t·B + j of the run is at position (t·B + j) mod N of epoch
    ⌊(t·B + j)/N⌋, so every epoch holds every example exactly once for any B. The permutations are those of `shuffle`.
    """

    def init(self, key: Key, num_examples: int) -> UInt32[Array, " rounds"]:
        """Return the keys of the permutations."""
        _check_shuffled(num_examples)
        return round_words(key)

    def indices(
        self, state: UInt32[Array, " rounds"], step: Any, batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return the next B examples of the epoch, or of two."""
        return _of_epochs(state, step, batch_size, num_examples, same=False)


@dataclass(frozen=True)
class ShuffleOnce:
    """Every epoch the same permutation of the examples; "shuffle_once" for short. Batches as in `Reshuffle`."""

    def init(self, key: Key, num_examples: int) -> UInt32[Array, " rounds"]:
        """Return the keys of the permutation."""
        _check_shuffled(num_examples)
        return round_words(key)

    def indices(
        self, state: UInt32[Array, " rounds"], step: Any, batch_size: int, num_examples: int
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

    def indices(self, state: Key, step: Any, batch_size: int, num_examples: int) -> Integer[Array, " batch"]:
        """Return B independent examples."""
        return jax.random.randint(jax.random.fold_in(state, step), (batch_size,), 0, num_examples)


ORDERS = {"reshuffle": Reshuffle(), "shuffle_once": ShuffleOnce(), "with_replacement": WithReplacement()}


@dataclass(frozen=True)
class LinearPace:
    """The pace of a curriculum whose share of admitted examples grows linearly with the step.

    Attributes:
        start: Share admitted at the first step, in (0, 1].
        num_steps: Step from which all examples are admitted, ≥ 1.
    """

    start: float
    num_steps: int

    def __post_init__(self):
        check_static("LinearPace", "start", self.start)
        check_real("LinearPace", "start", self.start, 0, 1, closed="(]", remedy="Use 1.0 for no curriculum.")
        check_integer("LinearPace", "num_steps", self.num_steps, 1)

    def __call__(self, step: Any) -> Any:
        """Return min(1, start + (1 − start)·step/num_steps)."""
        return jnp.minimum(1.0, self.start + (1.0 - self.start) * jnp.asarray(step, float) / self.num_steps)


@partial(jax.tree_util.register_dataclass, data_fields=["difficulty"], meta_fields=["pace"])
@dataclass(frozen=True, eq=False)
class Curriculum:
    """An order that begins with easy examples.

    At step t a batch is drawn uniformly, with replacement, from the ⌈pace(t)·N⌉ easiest examples (at least one). With
    pace = 1 this is ordinary sampling with replacement.

    Attributes:
        difficulty: One score per training example, shape (N,); larger is harder. Ties keep the order of the data.
        pace: t ↦ share of the admitted examples, in (0, 1]; traced. Use `LinearPace` or any function. `train` evaluates
            it at the first, middle and last step and raises if it is not positive there. Values above 1 count as 1; a
            value that is not positive at another step admits one example.
    """

    difficulty: Any
    pace: Callable[[Any], Any]
    repeats = True

    def __post_init__(self):
        shape = getattr(self.difficulty, "shape", None)
        if shape is None and isinstance(self.difficulty, list | tuple):
            object.__setattr__(self, "difficulty", check_numbers("Curriculum", "difficulty", self.difficulty))
        elif isinstance(self.difficulty, np.ndarray | jax.Array) and not isinstance(self.difficulty, Tracer):
            check_numbers("Curriculum", "difficulty", self.difficulty)
        elif shape is None and (isinstance(self.difficulty, _NO_ARRAYS) or callable(self.difficulty)):
            raise TypeError(
                f"Curriculum needs difficulty to be one number per training example; received "
                f"{describe_argument(self.difficulty)}."
            )
        if not callable(self.pace):
            raise TypeError(
                "Curriculum needs pace to be a function of the step, such as LinearPace(0.1, 1000); received "
                f"{describe_argument(self.pace)}."
            )

    def init(self, key: Key, num_examples: int) -> tuple[Key, Integer[Array, " examples"]]:
        """Return the key from which every step derives its own, and the examples from easy to hard."""
        _check_difficulty(self.difficulty, num_examples)
        return key, jnp.argsort(jnp.asarray(self.difficulty), stable=True).astype(jnp.int32)

    def indices(
        self, state: tuple[Key, Integer[Array, " examples"]], step: Any, batch_size: int, num_examples: int
    ) -> Integer[Array, " batch"]:
        """Return B independent examples among those in play."""
        key, easiest_first = state
        admitted = jnp.clip(jnp.ceil(_share(self.pace, step) * num_examples), 1, num_examples).astype(jnp.int32)
        return easiest_first[jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, admitted)]


def linear_curriculum(difficulty: Float[Array, " examples"] | Any, *, start: float, num_steps: int) -> Curriculum:
    """Make a curriculum that admits the examples from easy to hard, linearly in the step.

    Args:
        difficulty: One score per training example, shape (N,); larger is harder.
        start: Share of the examples admitted at the first step, in (0, 1].
        num_steps: Step from which all examples are admitted.

    Returns:
        A curriculum for `train(…, order=…)`.

    Example:
        >>> order = linear_curriculum(jnp.array([3.0, 1.0, 2.0]), start=0.3, num_steps=10)
        >>> state = order.init(jax.random.key(0), 3)
        >>> print(set(order.indices(state, 0, 3, 3).tolist()))  # only the easiest
        {1}

    References:
        Bengio, Louradour, Collobert and Weston (2009), Curriculum learning, ICML.
    """
    if difficulty is None:  # as in a pytree without its values
        raise TypeError("linear_curriculum needs difficulty to be one number per training example; received None.")
    return Curriculum(difficulty, LinearPace(start, num_steps))


_KNOWN = (Reshuffle, ShuffleOnce, WithReplacement, Curriculum)


def batch_order(order: Any, *, who: str = "batch_order") -> BatchOrder:
    """Return an order of batches by its name, or the order itself.

    Args:
        order: "reshuffle", "shuffle_once", "with_replacement", a `Curriculum`, or anything that is a `BatchOrder`.
        who: The function that was called, for the message.

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
    found = ORDERS.get(order) if isinstance(order, str) else order
    if isinstance(found, type) or not isinstance(found, BatchOrder):
        raise ValueError(
            f"{who} needs order to be one of {', '.join(map(repr, ORDERS))}, a Curriculum, or an object with init(key, "
            f"num_examples) and indices(state, step, batch_size, num_examples); received {describe_argument(order)}."
        )
    return found


def batch_indices(order: Order, state: Any, step: Any, batch_size: int, num_examples: int) -> Integer[Array, " batch"]:
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
    order = batch_order(order, who="batch_indices")
    check_integer("batch_indices", "num_examples", num_examples, 1, MAX_EXAMPLES)
    check_integer("batch_indices", "batch_size", batch_size, 1, MAX_COUNT if repeats(order) else num_examples)
    _check_step(step)
    _check_state(order, state, num_examples)
    return order.indices(state, step, batch_size, num_examples)


def repeats(order: BatchOrder) -> bool:
    """Return whether an example may occur twice in a batch of an order."""
    return bool(getattr(order, "repeats", False))


def is_known(order: BatchOrder) -> bool:
    """Return whether an order is one of this module, whose indices always lie in the data."""
    return isinstance(order, _KNOWN)


def split_order(order: BatchOrder) -> tuple[Hashable, Any]:
    """Return what is static in an order, and its arrays: what the compiled program is for, and its arguments."""
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
        order: An order; those of this module are known to be right and are not run.
        num_examples: N.
        batch_size: B.
        num_steps: Of the run.

    Raises:
        TypeError: If the indices are not integers, or the pace of a curriculum is no number.
        ValueError: If their shape is not (B,), one is not in 0 … N − 1, a pace is not positive, or there are more
            examples than can be shuffled.
    """
    if isinstance(order, Reshuffle | ShuffleOnce):
        _check_shuffled(num_examples)
    if isinstance(order, Curriculum):
        _check_difficulty(order.difficulty, num_examples)
        check_pace(order.pace, num_steps)
    if is_known(order) or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(order)):
        return
    with jax.ensure_compile_time_eval():
        state: Any = order.init(jax.random.key(0), num_examples)
        for step in sorted({0, num_steps // 2, max(num_steps - 1, 0)}):
            found = order.indices(state, jnp.int32(step), batch_size, num_examples)
            if not jnp.issubdtype(jnp.result_type(found), jnp.integer):
                raise TypeError(
                    f"An order of batches needs indices to return integers; received {describe_argument(found)} at "
                    f"step {step}."
                )
            if jnp.shape(found) != (batch_size,) or (
                batch_size and not (0 <= found.min() <= found.max() < num_examples)
            ):
                raise ValueError(
                    f"An order of batches needs indices to return {batch_size} numbers from 0 to {num_examples - 1}; "
                    f"received {describe_argument(found)} at step {step}."
                )


def check_pace(pace: Callable[[Any], Any], num_steps: int) -> None:
    """Raise unless the pace of a curriculum is a number > 0 at the first, middle and last step of a run."""
    for step in sorted({0, num_steps // 2, max(num_steps - 1, 0)}):
        with jax.ensure_compile_time_eval():
            share = _share(pace, jnp.int32(step))
        check_real("Curriculum", f"pace({step})", share, 0, closed="()", remedy="It is a share, in (0, 1].")


def _share(pace: Callable[[Any], Any], step: Any) -> Any:
    share = pace(step)
    if not is_real_scalar(share):
        raise TypeError(f"Curriculum needs pace to return one real number; it returned {describe_argument(share)}.")
    return share


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
            "batch_indices needs state as order.init(key, num_examples) returns it for the same order and examples; "
            f"received {describe_argument(state)}."
        )


def _check_difficulty(difficulty: Any, num_examples: int) -> None:
    if np.shape(difficulty) != (num_examples,):
        raise ValueError(
            f"A curriculum needs one difficulty for each of the {num_examples} training examples; received shape "
            f"{np.shape(difficulty)}."
        )


def _check_shuffled(num_examples: int) -> None:
    if num_examples > MAX_EXAMPLES:
        raise ValueError(
            f"Shuffled epochs work for up to 2²⁸ examples; received {num_examples}. Use order='with_replacement'."
        )


def _of_epochs(
    words: UInt32[Array, " rounds"], step: Any, batch_size: int, num_examples: int, *, same: bool
) -> Integer[Array, " batch"]:
    epoch, offset = _epoch_and_offset(jnp.asarray(step), batch_size, num_examples)
    position = offset + jnp.arange(batch_size, dtype=jnp.uint32)
    wrapped = position >= num_examples
    position = jnp.where(wrapped, position - jnp.uint32(num_examples), position)
    epoch = jnp.uint32(0) if same else epoch + wrapped.astype(jnp.uint32)
    return permute(position, epoch, words, num_examples)


def _epoch_and_offset(step: Array, batch_size: int, num_examples: int) -> tuple[Array, Array]:
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
