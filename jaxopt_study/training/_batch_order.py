"""Order of the training examples: the batch of a step as a pure function of key and step, without a sort or state."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Integer, UInt32

from jaxopt_study._checks import (
    MAX_COUNT,
    check_choice,
    check_integer,
    check_key,
    check_numbers,
    check_real,
    check_static,
    describe_argument,
    is_real_scalar,
)
from jaxopt_study.types import Key

Order = Literal["reshuffle", "shuffle_once", "with_replacement"]
ORDERS = ("reshuffle", "shuffle_once", "with_replacement")
MAX_EXAMPLES = 2**28  # step · batch_size is reduced modulo N four bits at a time, in 32 bits

_NO_ARRAYS = (str, bytes, int, float, complex, Mapping, Set)
_ROUNDS = 8  # four suffice for a pseudo-random permutation (Luby and Rackoff 1988); eight leave a margin at small N
_GOLDEN = 0x9E3779B1  # an odd constant near 2³²/φ, which spreads consecutive epochs over all bits


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


def shuffle(
    position: Integer[Array, "*shape"], num_examples: int, *, key: Key, epoch: Any = 0
) -> Integer[Array, "*shape"]:
    """Return the entries at given positions of a pseudo-random permutation of 0 … N − 1.

    The permutation π of an epoch is evaluated elementwise and never stored: a position is written as (l, r) in ℤ_a ×
    ℤ_b with a = ⌈√N⌉ and ab ≥ N, and eight Feistel rounds alternate

        l ← l + F(r) mod a,    r ← r + F(l) mod b

    with F a keyed 32-bit hash. Every round is a bijection; a value outside 0 … N − 1 passes through the rounds again
    (cycle walking) until it lies inside, so π is a bijection of exactly the N examples.

    It is neither cryptographic nor uniform over all N! permutations, but positions, pairs of positions and epochs are
    statistically independent, which suffices for training.

    Args:
        position: Positions in the epoch, integers in 0 … N − 1.
        num_examples: N, 1 … 2²⁸.
        key: Selects the family of permutations.
        epoch: Selects the permutation in the family; an integer, or an array of `position`'s shape.

    Returns:
        Indices of examples, int32, of `position`'s shape. Cost: about 100 integer operations each, no memory.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If N or a position is outside its range.

    Example:
        >>> first = shuffle(jnp.arange(10), 10, key=jax.random.key(0), epoch=0)
        >>> second = shuffle(jnp.arange(10), 10, key=jax.random.key(0), epoch=1)
        >>> print(jnp.sort(first), bool(jnp.any(first != second)))
        [0 1 2 3 4 5 6 7 8 9] True

    References:
        Black and Rogaway (2002), Ciphers with arbitrary finite domains: the generalised Feistel network, §5, and cycle
        walking, §4. The hash is MurmurHash3's 32-bit finaliser (Appleby 2011, public domain).
    """
    _check_count(num_examples)
    position, epoch = _as_integers("position", position), _as_integers("epoch", epoch)
    if epoch.shape not in ((), position.shape):
        raise ValueError(
            f"shuffle needs epoch to be one integer, or integers of shape {position.shape}; received shape "
            f"{epoch.shape}."
        )
    if not isinstance(position, Tracer) and position.size and not 0 <= position.min() <= position.max() < num_examples:
        raise ValueError(
            f"shuffle needs positions from 0 to {num_examples - 1}; received {position.min()} to {position.max()}."
        )
    return _permute(position, epoch, _round_words(check_key("shuffle", key)), num_examples)


def prepare(order: Order | Curriculum, key: Key) -> Any:
    """Return the data shared by all steps of a run, computed once outside the loop."""
    if isinstance(order, Curriculum):
        return key, jnp.argsort(jnp.asarray(order.difficulty), stable=True).astype(jnp.int32)
    return key if order == "with_replacement" else _round_words(key)


def batch_indices(
    order: Order | Callable[[Any], Any], prepared: Any, step: Any, batch_size: int, num_examples: int
) -> Integer[Array, " batch"]:
    """Return the indices of the examples in a step's batch.

    Args:
        order: "reshuffle", "shuffle_once", "with_replacement", or the pace of a curriculum.
        prepared: The result of `prepare`.
        step: t, 0 for the first step.
        batch_size: B ≥ 1, at most N unless the order draws with replacement.
        num_examples: N.

    Returns:
        Indices of shape (B,), int32. Batches straddle the ends of epochs: example t·B + j of the run is at position
        (t·B + j) mod N of epoch ⌊(t·B + j)/N⌋, so every epoch has every example exactly once for any B.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is out of range, or the order is unknown.
    """
    check_integer("batch_indices", "num_examples", num_examples, 1, MAX_EXAMPLES)
    if not callable(order):
        check_choice("batch_indices", "order", order, ORDERS)
    repeats = callable(order) or order == "with_replacement"  # an example may occur twice in a batch
    check_integer("batch_indices", "batch_size", batch_size, 1, MAX_COUNT if repeats else num_examples)
    _check_step(step)
    _check_prepared(order, prepared, num_examples)
    if callable(order):
        key, easiest_first = prepared
        admitted = jnp.clip(jnp.ceil(_share(order, step) * num_examples), 1, num_examples).astype(jnp.int32)
        drawn = jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, admitted)
        return easiest_first[drawn]
    if order == "with_replacement":
        return jax.random.randint(jax.random.fold_in(prepared, step), (batch_size,), 0, num_examples)
    epoch, offset = _epoch_and_offset(jnp.asarray(step), batch_size, num_examples)
    position = offset + jnp.arange(batch_size, dtype=jnp.uint32)
    wrapped = position >= num_examples
    position = jnp.where(wrapped, position - jnp.uint32(num_examples), position)
    epoch = epoch + wrapped.astype(jnp.uint32) if order == "reshuffle" else jnp.uint32(0)
    return _permute(position, epoch, prepared, num_examples)


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
        >>> state = prepare(order, jax.random.key(0))
        >>> print(set(batch_indices(order.pace, state, 0, 3, 3).tolist()))  # only the easiest example
        {1}

    References:
        Bengio, Louradour, Collobert and Weston (2009), Curriculum learning, ICML.
    """
    if difficulty is None:  # as in a pytree without its values
        raise TypeError("linear_curriculum needs difficulty to be one number per training example; received None.")
    return Curriculum(difficulty, LinearPace(start, num_steps))


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


def _as_integers(name: str, value: Any) -> Array:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"shuffle needs {name} to be 32-bit integers; received {describe_argument(value)}.")
    return array


def _check_step(step: Any) -> None:
    if not isinstance(step, Tracer):
        check_integer("batch_indices", "step", step, 0)
    elif step.shape or not jnp.issubdtype(step.dtype, jnp.integer):
        raise TypeError(f"batch_indices needs step to be one integer; received {describe_argument(step)}.")


def _check_prepared(order: Any, prepared: Any, num_examples: int) -> None:
    if callable(order):
        valid = isinstance(prepared, tuple) and len(prepared) == 2 and jnp.shape(prepared[1]) == (num_examples,)
    elif order == "with_replacement":
        valid = check_key("batch_indices", prepared, name="prepared") is not None
    else:
        valid = getattr(prepared, "shape", None) == (_ROUNDS,) and prepared.dtype == jnp.uint32
    if not valid:
        raise TypeError(
            "batch_indices needs prepared to be the result of prepare(order, key) for the same order and examples; "
            f"received {describe_argument(prepared)}."
        )


def _check_count(num_examples: int) -> None:
    check_integer("shuffle", "num_examples", num_examples)
    if not 1 <= num_examples <= MAX_EXAMPLES:
        raise ValueError(
            f"Shuffling needs 1 to 2²⁸ = {MAX_EXAMPLES} examples; received {num_examples}. Use "
            "order='with_replacement', or train on shards."
        )


def _round_words(key: Key) -> UInt32[Array, " rounds"]:
    return jax.random.bits(key, (_ROUNDS,), jnp.uint32)


def _permute(position: Array, epoch: Array, words: Array, num_examples: int) -> Array:
    a = isqrt(num_examples - 1) + 1
    return _permute_grid(position, epoch, words, num_examples, a, -(-num_examples // a))


def _permute_grid(position: Array, epoch: Array, words: Array, num_examples: Any, a: Any, b: Any) -> Array:
    num_examples, a, b = jnp.uint32(num_examples), jnp.uint32(a), jnp.uint32(b)
    epoch = epoch.astype(jnp.uint32) * jnp.uint32(_GOLDEN)
    keys = [_mix(words[i] + epoch) for i in range(_ROUNDS)]

    def rounds(x: Array) -> Array:
        left, right = x // b, x % b
        for i in range(0, _ROUNDS, 2):
            left = (left + _mix(right ^ keys[i]) % a) % a
            right = (right + _mix(left ^ keys[i + 1]) % b) % b
        return left * b + right

    inside = jax.lax.while_loop(
        lambda x: jnp.any(x >= num_examples),
        lambda x: jnp.where(x >= num_examples, rounds(x), x),
        rounds(position.astype(jnp.uint32)),
    )
    return inside.astype(jnp.int32)


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


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
