"""Batches that are written out in advance: runs that differ only in their order then share one compiled program."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_study import training


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Written:
    """A batch order given by the examples of every step.

    Attributes:
        rows: Numbers of the examples, shape (steps, B).
    """

    rows: Any
    repeats = True

    def init(self, key: jax.Array, num_examples: int) -> Any:
        """Return the rows."""
        del key, num_examples
        return jnp.asarray(self.rows)

    def indices(self, state: Any, step: Any, batch_size: int, num_examples: int) -> Any:
        """Return the row of a step."""
        del batch_size, num_examples
        return state[step]


def written(order: Any, key: jax.Array, num_steps: int, batch_size: int, num_examples: int) -> jax.Array:
    """Return the examples that an order gives to every step of a run, shape (num_steps, batch_size)."""
    chosen = training.batch_order(order)
    state = chosen.init(key, num_examples)
    return jax.vmap(lambda step: chosen.indices(state, step, batch_size, num_examples))(jnp.arange(num_steps))
