"""Where the runs of a comparison ended: parameters and optimizer states, one file per optimizer."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import race, records
from jaxopt_study.cli.expressions import UserError


def save(result: race.Result, path: Path) -> dict[str, str]:
    """Write the last parameters and optimizer states of all seeds.

    Args:
        result: What one optimizer did.
        path: The file, NumPy's .npz: one array per leaf, "params/…" and "opt_state/…", with the seeds as leading axis.

    Returns:
        The name of the file in its folder and its SHA-256, to be kept in a record.
    """
    run = result.trajectory
    arrays = {name: numbers(leaf) for name, leaf in _leaves({"params": run.params, "opt_state": run.opt_state})}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    records.write_atomically(path, content.getvalue())
    return {"file": path.name, "sha256": hashlib.sha256(content.getvalue()).hexdigest()}


def load(folder: Path, saved: Mapping[str, str], like: Any, seed: int) -> Any:
    """Read what `save` wrote, for one seed.

    Args:
        folder: Where the file is.
        saved: What `save` returned.
        like: {"params": …} or {"params": …, "opt_state": …}, pytrees of shapes with the structure to be filled.
        seed: Which one, counted from 0.

    Returns:
        The same structure with the saved numbers.

    Raises:
        UserError: If the file is missing or changed, or was written by something else.
    """
    path = folder / saved["file"]
    try:
        content = path.read_bytes()
    except OSError:
        raise UserError(f"{path}, which holds where the run ended, is missing. Make the comparison again.") from None
    if hashlib.sha256(content).hexdigest() != saved["sha256"]:
        raise UserError(f"{path} is not as it was written: its hash differs. Make the comparison again.")
    leaves = []
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for name, leaf in _leaves(like):
            shape = jax.eval_shape(jax.random.key_data, leaf).shape if _is_key(leaf) else leaf.shape
            if name not in arrays or arrays[name].shape[1:] != shape:
                found = arrays[name].shape[1:] if name in arrays else "nothing"
                raise UserError(
                    f"{path} does not fit: {name} should have the shape {shape}; it holds {found}. "
                    "The package may have changed since; make the comparison again."
                )
            value = jnp.asarray(arrays[name][seed])
            leaves.append(jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else value)
    return jax.tree.structure(like).unflatten(leaves)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]


def numbers(leaf: Any) -> np.ndarray:
    """Return a leaf as numbers; a key of random numbers is no number, but has some."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
