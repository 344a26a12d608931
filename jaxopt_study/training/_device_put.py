"""Placement of data on the device, with a cache of copies."""

import weakref
from typing import Any

import jax
import numpy as np

_copies: dict[tuple[int, bool], Any] = {}


def on_device(tree: Any) -> Any:
    """Return a pytree with its arrays on the device; copies of read-only NumPy arrays are cached.

    Without the cache, training many optimizers on one data set would copy it for every run, a tenth of a second for
    MNIST. A read-only array is assumed not to change; a writable one is copied each time, because it may have changed.
    """
    return jax.tree.map(_leaf_on_device, tree)


def _leaf_on_device(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return jax.device_put(leaf)
    # On a CPU an array that is aligned to 64 bytes would be shared with the device, even where may_alias is False: it
    # could then be changed under a run, and a remembered one would never be let go.
    if leaf.flags.writeable:
        return jax.device_put(leaf.copy())
    key = id(leaf), jax.config.read("jax_enable_x64")  # which decides the dtype of the copy
    if key not in _copies:
        _copies[key] = jax.device_put(leaf.copy())
        weakref.finalize(leaf, _copies.pop, key, None)
    return _copies[key]
