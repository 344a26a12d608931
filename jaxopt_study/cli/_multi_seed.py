"""One optimizer from several seeds at once, with everything that a single run of `train` returns."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study._programs import RANDOM_DRAWS
from jaxopt_study.problems import Problem
from jaxopt_study.training import Trajectory, evaluate, train
from jaxopt_study.transforms import Transform
from jaxopt_study.types import Key, Params


@dataclass(frozen=True)
class SeedsResult:
    """What one optimizer did from every start.

    Attributes:
        trajectory: Every leaf with a leading axis, the seeds.
        finals: By split and metric ("test_accuracy"), shape (seeds,): at the returned parameters.
        compile_seconds: Time to compile, 0 if an earlier run's program served.
        run_seconds: Time to run all seeds.
    """

    trajectory: Trajectory
    finals: dict[str, np.ndarray]
    compile_seconds: float
    run_seconds: float

    @property
    def diverged(self) -> np.ndarray:
        """Which seeds met a loss that was not finite."""
        return np.asarray(self.trajectory.diverged)

    def windowed_losses(self) -> np.ndarray:
        """Average the batch losses over the steps between evaluations.

        Returns:
            Shape (seeds, K), for K evaluations or snapshots: the mean over the steps since the one before. The first
            is the loss of the first batch, NaN if there is none. After a divergence: NaN.
        """
        losses = np.asarray(self.trajectory.losses, dtype=float)
        steps = self.trajectory.evaluations.get("step", self.trajectory.snapshot_steps)
        bounds = np.asarray(steps)[0]
        windows = [losses[:, :1], *(losses[:, a:b] for a, b in itertools.pairwise(bounds))]
        means = [w.mean(axis=1) if w.shape[1] else np.full(len(losses), np.nan) for w in windows]
        return np.stack(means, axis=1)


class MultiSeedRun:
    """A problem with its seeds, on which optimizers are trained.

    Seed i starts at the same parameters and meets the same batches whatever the optimizer. Seeds run side by side in
    one program, which optimizers that differ in numbers only share.

    Args:
        problem: What is minimised.
        keys: Shape (seeds,), what decides starts and batches: those of `sweeps.report_keys` repeat the runs of a
            comparison.
        **options: Further arguments of `train`.

    Example:
        >>> from jaxopt_study import optimizers, problems
        >>> keys = jax.random.split(jax.random.key(0), 1)
        >>> runs = MultiSeedRun(problems.planar.bowl(), keys, num_steps=10, record_params_every=1)
        >>> runs.train(optimizers.sgd(0.95)).trajectory.snapshots.shape  # seeds, points, coordinates
        (1, 11, 2)
        >>> runs.train(optimizers.sgd(0.5)).compile_seconds  # the same program
        0.0
    """

    def __init__(self, problem: Problem, keys: Key, **options: Any):
        self.problem, self._options = problem, options
        pairs = jax.vmap(jax.random.split)(keys)
        init_keys, self._keys = pairs[:, 0], pairs[:, 1]
        # Once for all optimizers: drawing the parameters takes as long to compile as training.
        self.starts: Params = jax.jit(jax.vmap(problem.init), compiler_options=RANDOM_DRAWS)(init_keys)
        self._examples = jax.device_put({part: getattr(problem, part) for part in ("data", "validation", "test")})
        self._programs: dict[Any, Callable[..., Trajectory]] = {}

    def train(self, optimizer: optax.GradientTransformation) -> SeedsResult:
        """Train with one optimizer from every start.

        Args:
            optimizer: Any Optax transformation.

        Returns:
            The result. Ctrl-C interrupts the wait for it; the computation itself then ends in the background.
        """
        began = time.perf_counter()
        travels = isinstance(optimizer, Transform)
        leaves, structure = jax.tree.flatten(optimizer if travels else None)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        arguments = leaves, self._keys, self.starts, self._examples
        kind = (structure, tuple(leaf.aval for leaf in leaves)) if travels else optimizer
        program = self._programs.get(kind)
        compiled = program is None
        if program is None:

            def lanes(leaves: Any, keys: Any, starts: Any, examples: Any) -> Trajectory:
                tx = jax.tree.unflatten(structure, leaves) if travels else optimizer
                problem = self.problem.replace(**examples)
                one = lambda key, start: train(problem, tx, key=key, params=start, **self._options)
                return jax.vmap(one)(keys, starts)

            program = jax.jit(lanes).lower(*arguments).compile()
            self._programs[kind] = program
        middle = time.perf_counter()
        trajectory = _wait(program(*arguments))
        ended = time.perf_counter()
        return SeedsResult(
            trajectory,
            finals=self._finals(trajectory),
            compile_seconds=middle - began if compiled else 0.0,
            run_seconds=ended - middle,
        )

    def _finals(self, trajectory: Trajectory) -> dict[str, np.ndarray]:
        problem = self.problem.replace(**self._examples)
        splits = [part for part in ("validation", "test") if self._examples[part] is not None] or ["train"]
        finals = {}
        for split in splits:
            values = jax.vmap(lambda params, state, on=split: evaluate(problem, params, state, on=on))(
                trajectory.params, trajectory.model_state
            )
            finals |= {f"{split}_{name}": np.asarray(value) for name, value in values.items()}
        return finals


def _wait(trajectory: Trajectory) -> Trajectory:
    # A PRNG key cannot be asked whether it is ready; its numbers can.
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    leaves: list[Any] = [jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(trajectory)]
    pause = 1e-3
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(pause)  # an interrupt gets through here, not while waiting inside XLA
        pause = min(2 * pause, 0.05)
    return jax.block_until_ready(trajectory)
