"""Keys: from the one key of a study to those of its trials and seeds.

Every seed of a study has a key of its own. Lanes are vectorised, and the hardware's generators ("rbg") draw other
numbers in a vectorised program than alone, so that neither would two trials meet the same batches nor could a lane be
run again. A key of another implementation is therefore the seed of a Threefry key, of which all others are made.
"""

import jax
import jax.numpy as jnp

from jaxopt_study._checks import check_integer, check_key
from jaxopt_study.types import Key

IMPLEMENTATION = "threefry2x32"  # the same numbers on every device, alone and vectorised


def study_key(who: str, key: Key) -> Key:
    """Return the Threefry key that stands for a key of any implementation.

    Args:
        who: The function that was called, for the message.
        key: From `jax.random.key` of any implementation, or from the older `jax.random.PRNGKey`.

    Returns:
        The key itself if it is a Threefry key, else one made of 64 bits that are drawn with it.
    """
    key = check_key(who, key)
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) == IMPLEMENTATION:
        return key
    return jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl=IMPLEMENTATION)


def search_keys(key: Key, num_seeds: int) -> Key:
    """Return what decides the seeds of a search, so that any of its runs can be repeated.

        keys = split(split(key)[1], num_seeds)

    Trial i with seed j is the run

        init_key, run_key = jax.random.split(keys[j])
        train(problem, optimizer, params=problem.init(init_key), key=run_key, …)

    with the problem and the optimizer of `configs[i]`; `Search.replay` makes this call. The first half of `split(key)`
    draws the trials. With more seeds a longer search begins with the same ones.

    Args:
        key: Of the search. One that is not a Threefry key is the seed of one: the split is of a key of 64 random bits.
        num_seeds: Of the search, ≥ 1.

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


def report_keys(key: Key, number: int, num_seeds: int) -> Key:
    """Return what decides the reporting seeds of a comparison, so that a run can be repeated.

    Args:
        key: Of the comparison, as in `search_keys`.
        number: Position of the problem among its problems, ≥ 0.
        num_seeds: Its `report_seeds`, ≥ 1.

    Returns:
        Shape (num_seeds,). Seed j starts at `problem.init` of, and trains with, the first and second of
        `jax.random.split(keys[j])`; `Report.replay` does so.

    Raises:
        TypeError: If it is no key, or a number no integer.
        ValueError: If there are several keys, or a number is out of range.
    """
    number = check_integer("report_keys", "number", number, 0)
    num_seeds = check_integer("report_keys", "num_seeds", num_seeds, 1)
    report = jax.random.split(study_key("report_keys", key))[1]
    return jax.random.split(jax.random.fold_in(report, number), num_seeds)
