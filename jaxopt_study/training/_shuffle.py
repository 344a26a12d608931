"""Pseudo-random permutations of any length, one element at a time and without memory."""

from math import isqrt
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Int32, Integer, UInt32

from jaxopt_study._checks import check_integer, check_key, describe_argument
from jaxopt_study.types import Key

MAX_EXAMPLES = 2**28  # step · batch_size is reduced modulo N four bits at a time, in 32 bits

_ROUNDS = 8  # four suffice for a pseudo-random permutation (Luby and Rackoff 1988); eight leave a margin at small N
_GOLDEN = 0x9E3779B1  # an odd constant near 2³²/φ, to spread consecutive epochs over all bits


def shuffle(
    position: Integer[Array, "*shape"], num_examples: int, *, key: Key, epoch: Any = 0
) -> Integer[Array, "*shape"]:
    """Return the examples at some positions of a pseudo-random permutation of 0 … N − 1.

    The permutation π of an epoch is evaluated elementwise, without ever being written down: a position is written
    (l, r) in ℤ_a × ℤ_b with a = ⌈√N⌉ and ab ≥ N, and eight Feistel rounds alternate

        l ← l + F(r) mod a,    r ← r + F(l) mod b

    with F a keyed 32-bit hash. Every round is a bijection; a value that lands outside 0 … N − 1 is sent through again
    (cycle walking) until it lands inside, so π is a bijection of exactly the N examples.

    It is not cryptographic, and not uniform over all N! permutations: positions, pairs of positions and epochs are
    statistically independent, which is what training needs.

    Args:
        position: Positions in the epoch, integers in 0 … N − 1.
        num_examples: N, 1 … 2²⁸.
        key: Chooses the family of permutations.
        epoch: Chooses the permutation in the family; an integer, or an array of `position`'s shape.

    Returns:
        Example numbers, int32, of `position`'s shape. Cost: about 100 integer operations each, no memory.

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
    return permute(position, epoch, round_words(check_key("shuffle", key)), num_examples)


def _as_integers(name: str, value: Any) -> Integer[Array, "..."]:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"shuffle needs {name} to be 32-bit integers; received {describe_argument(value)}.")
    return array


def _check_count(num_examples: int) -> None:
    check_integer("shuffle", "num_examples", num_examples)
    if not 1 <= num_examples <= MAX_EXAMPLES:
        raise ValueError(
            f"Shuffling needs 1 to 2²⁸ = {MAX_EXAMPLES} examples; received {num_examples}. "
            "Use order='with_replacement' or train on shards."
        )


def round_words(key: Key) -> UInt32[Array, " rounds"]:
    return jax.random.bits(key, (_ROUNDS,), jnp.uint32)


def permute(
    position: Integer[Array, "*shape"], epoch: Integer[Array, "..."], words: UInt32[Array, " rounds"], num_examples: int
) -> Int32[Array, "*shape"]:
    a = isqrt(num_examples - 1) + 1
    return _permute_grid(position, epoch, words, num_examples, a, -(-num_examples // a))


@jax.jit  # traced once, although a run has it in several places
def _permute_grid(
    position: Integer[Array, "*shape"],
    epoch: Integer[Array, "..."],
    words: UInt32[Array, " rounds"],
    num_examples: Integer[ArrayLike, ""],
    a: Integer[ArrayLike, ""],
    b: Integer[ArrayLike, ""],
) -> Int32[Array, "*shape"]:
    num_examples, a, b = jnp.uint32(num_examples), jnp.uint32(a), jnp.uint32(b)
    epoch = epoch.astype(jnp.uint32) * jnp.uint32(_GOLDEN)
    keys = [_mix(words[i] + epoch) for i in range(_ROUNDS)]

    def rounds(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
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


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
