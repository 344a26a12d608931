"""A point to diagnose: a loss, parameters, data and perhaps an optimizer with its state."""

import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxopt_study.types import Batch, LossFn, Params


@dataclass(frozen=True)
class Target:
    """A point to diagnose, perhaps with an optimizer.

    Attributes:
        name: A short identifier, for folders and titles.
        loss: loss(params, data), a scalar.
        params: The parameters.
        data: All examples, or None.
        data_hash: SHA-256 of the data; None without data.
        optimizer: An Optax transformation, or None.
        opt_state: Its state at the point.
        expression: Expression or name of the optimizer.
        described: Origin of the point, for the record.
        note: A remark for the user, or None.
    """

    name: str
    loss: LossFn
    params: Params
    data: Batch | None
    data_hash: str | None
    optimizer: Any
    opt_state: Any
    expression: str | None
    described: dict[str, Any]
    note: str | None = None


def content_hash(tree: Any) -> str:
    """Return the SHA-256 of the arrays of a pytree, with their paths, shapes and dtypes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)  # a key is no number, but has some
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
