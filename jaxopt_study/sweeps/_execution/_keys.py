"""Random keys of the trials and seeds of a study, derived from a single key.

Every seed of a study has its own key. Lanes are vectorised, and hardware generators ("rbg") draw different numbers in a
vectorised program: with them, two trials would not see the same batches, and a lane could not be reproduced alone. A
key of another implementation therefore seeds a Threefry key, from which all others are derived.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from jaxopt_study._checks import check_integer, check_key
from jaxopt_study._programs import is_traced
from jaxopt_study.types import Key

IMPLEMENTATION = "threefry2x32"  # the same numbers on every device, vectorised or not


def refuse_traced(who: str, key: Any) -> None:
    """Raise TypeError if a key is traced, or the function that takes it is called inside a trace."""
    if is_traced(key):
        raise TypeError(
            f"{who} runs from Python, where trials are drawn, compiled and recorded; received a traced key, or a call "
            "inside jax.jit or jax.vmap. Call it outside; it vectorises its trials itself."
        )


def study_key(who: str, key: Key) -> Key:
    """Return the Threefry key derived from a key of any implementation.

    Args:
        who: The function that was called, for the message.
        key: From `jax.random.key` of any implementation, or from the older `jax.random.PRNGKey`.

    Returns:
        The key itself if it is a Threefry key, otherwise one made of 64 bits drawn with it.
    """
    key = check_key(who, key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) == IMPLEMENTATION:
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl=IMPLEMENTATION)


def search_keys(key: Key, num_seeds: int) -> Shaped[Key, " seeds"]:
    """Return the keys of the seeds of a search, with which any of its runs can be reproduced.

        keys = split(split(key)[1], num_seeds)

    Trial i with seed j is the run

        init_key, run_key = jax.random.split(keys[j])
        train(problem, optimizer, params=problem.init(init_key), key=run_key, …)

    with the problem and the optimizer of `configs[i]`; `Search.replay` makes this call. The first half of `split(key)`
    draws the trials. A search with more seeds begins with the same seeds.

    Args:
        key: The key of the search. If it is not a Threefry key, it is first replaced by one made of 64 bits drawn
            with it.
        num_seeds: The number of seeds of the search, ≥ 1.

    Returns:
        Shape (num_seeds,), Threefry keys.

    Raises:
        TypeError: If it is no key, or the number no integer.
        ValueError: If there are several keys, or no seed.

    Example:
        >>> keys = search_keys(jax.random.key(0), 3)
        >>> bool((keys[:2] == search_keys(jax.random.key(0), 2)).all())
        True
    """
    num_seeds = check_integer("search_keys", "num_seeds", num_seeds, 1)
    return jax.random.split(jax.random.split(study_key("search_keys", key))[1], num_seeds)


def report_keys(key: Key, number: int, num_seeds: int) -> Shaped[Key, " seeds"]:
    """Return the keys of the reporting seeds of a comparison, with which any of its runs can be reproduced.

        keys = split(fold_in(split(key)[1], number), num_seeds)

    Args:
        key: The key of the comparison, as in `search_keys`.
        number: Index of the problem in the comparison, ≥ 0.
        num_seeds: The `report_seeds` of the comparison, ≥ 1.

    Returns:
        Shape (num_seeds,). With the two keys of `jax.random.split(keys[j])`, seed j starts at `problem.init` of the
        first and trains with the second; `Report.replay` does so.

    Raises:
        TypeError: If it is no key, or a number no integer.
        ValueError: If there are several keys, or a number is out of range.
    """
    number = check_integer("report_keys", "number", number, 0)
    num_seeds = check_integer("report_keys", "num_seeds", num_seeds, 1)
    report = jax.random.split(study_key("report_keys", key))[1]
    return jax.random.split(jax.random.fold_in(report, number), num_seeds)
