"""Curricula: batch orders that begin with easy examples."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer

from jaxopt_study._checks import (
    check_integer,
    check_numbers,
    check_real,
    check_static,
    describe_argument,
    is_real_scalar,
)
from jaxopt_study.types import Key

_NO_ARRAYS = (str, bytes, int, float, complex, Mapping, Set)


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

    def __call__(self, step: Integer[ArrayLike, ""]) -> Any:
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

    def __repr__(self):
        if not isinstance(self.difficulty, np.ndarray | jax.Array) or isinstance(self.difficulty, Tracer):
            return f"Curriculum({describe_argument(self.difficulty)}, pace={self.pace})"
        scores = np.asarray(self.difficulty)
        between = f", difficulty {scores.min():.3g} to {scores.max():.3g}" if scores.size else ""
        return f"Curriculum({scores.size:,} examples{between}, pace={self.pace})"

    def init(self, key: Key, num_examples: int) -> tuple[Key, Integer[Array, " examples"]]:
        """Return the key from which every step derives its own, and the examples from easy to hard."""
        check_difficulty(self.difficulty, num_examples)
        return key, jnp.argsort(jnp.asarray(self.difficulty), stable=True).astype(jnp.int32)

    def indices(
        self,
        state: tuple[Key, Integer[Array, " examples"]],
        step: Integer[ArrayLike, ""],
        batch_size: int,
        num_examples: int,
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


def check_difficulty(difficulty: Any, num_examples: int) -> None:
    """Raise ValueError unless there is one difficulty per example."""
    if np.shape(difficulty) != (num_examples,):
        raise ValueError(
            f"A curriculum needs one difficulty for each of the {num_examples} training examples; received shape "
            f"{np.shape(difficulty)}."
        )


def check_pace(pace: Callable[[Any], Any], num_steps: int) -> None:
    """Raise unless the pace of a curriculum is a number > 0 at the first, middle and last step of a run."""
    for step in sorted({0, num_steps // 2, max(num_steps - 1, 0)}):
        with jax.ensure_compile_time_eval():
            share = _share(pace, jnp.int32(step))
        check_real("Curriculum", f"pace({step})", share, 0, closed="()", remedy="It is a share, in (0, 1].")


def _share(pace: Callable[[Any], Any], step: Integer[ArrayLike, ""]) -> Any:
    share = pace(step)
    if not is_real_scalar(share):
        raise TypeError(f"Curriculum needs pace to return one real number; it returned {describe_argument(share)}.")
    return share
