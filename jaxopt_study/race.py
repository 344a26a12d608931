"""One optimizer from several starts at once, and the optimizers of the notes at the notes' settings."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study import optimizers
from jaxopt_study._checks import check_integer, check_key, describe_argument
from jaxopt_study._programs import RANDOM_DRAWS
from jaxopt_study.dynamics import as_transformation
from jaxopt_study.problems import Problem
from jaxopt_study.training import CurvatureProbe, Probe, Trajectory, check_probe, check_problem, evaluate, train
from jaxopt_study.transforms import Transform
from jaxopt_study.types import Key, Params


@dataclass(frozen=True)
class Result:
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


class Race:
    """The same problem, starts and batches for every optimizer.

    Seed i starts at the same parameters and meets the same batches whatever the optimizer, and however many seeds there
    are. Seeds run side by side in one program: five of them took 7 to 29% less processor time than one by one (measured
    once on two CPU cores, networks of 2,400 to 110,000 parameters). Optimizers that differ in numbers only share a
    program.

    It does not tune: with the settings given, the ranking is a ranking of those settings.

    Args:
        problem: What is minimised.
        num_steps: T ≥ 0, of every run.
        num_seeds: Number of starts, ≥ 1.
        seed: Which starts and batches.
        keys: Shape (seeds,), what decides starts and batches in place of the two above: those of
            `sweeps.report_keys` repeat the runs of a comparison.
        batch_size: As in `train`.
        evaluate_every: As in `train`; evaluates the validation examples, or the training examples if there are none.
        record_params_every: As in `train`.
        probe: As in `train`; `CurvatureProbe` for sharpness along every run.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is out of range, or `keys` are not an array of keys.

    Example:
        >>> from jaxopt_study import problems
        >>> race = Race(problems.planar.bowl(), num_steps=10, record_params_every=1)
        >>> result = race.run(optimizers.sgd(0.95))
        >>> result.trajectory.snapshots.shape  # seeds, points, coordinates
        (1, 11, 2)
        >>> race.run(optimizers.sgd(0.5)).compile_seconds  # the same program
        0.0
    """

    def __init__(
        self,
        problem: Problem,
        *,
        num_steps: int,
        num_seeds: int = 1,
        seed: int = 0,
        keys: Key | None = None,
        batch_size: int | None = None,
        evaluate_every: int | None = None,
        record_params_every: int | None = None,
        probe: CurvatureProbe | Probe | None = None,
    ):
        check_problem("Race", problem)
        check_integer("Race", "num_steps", num_steps, 0)
        check_integer("Race", "num_seeds", num_seeds, 1)
        check_integer("Race", "seed", seed, 0, 2**32 - 1)
        for name, value in {
            "batch_size": batch_size, "evaluate_every": evaluate_every, "record_params_every": record_params_every,
        }.items():  # fmt: skip
            if value is not None:
                check_integer("Race", name, value, 1)
        check_probe("Race", probe)
        if keys is not None:
            keys = _checked_keys(keys)
        self.problem = problem
        self._options: dict[str, Any] = {
            "num_steps": num_steps,
            "batch_size": batch_size,
            "evaluate_every": evaluate_every,
            "record_params_every": record_params_every,
            "probe": probe,
        }
        if keys is None:
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(num_seeds))
        pairs = jax.vmap(jax.random.split)(keys)
        init_keys, self._keys = pairs[:, 0], pairs[:, 1]
        # Once for all optimizers: drawing the parameters takes as long to compile as training.
        self.starts: Params = jax.jit(jax.vmap(problem.init), compiler_options=RANDOM_DRAWS)(init_keys)
        self._examples = jax.device_put({part: getattr(problem, part) for part in ("data", "validation", "test")})
        self._programs: dict[Any, Callable[..., Trajectory]] = {}

    def run(self, optimizer: optax.GradientTransformation) -> Result:
        """Train with one optimizer from every start.

        Args:
            optimizer: Any Optax transformation.

        Returns:
            The result. Ctrl-C interrupts the wait for it; the computation itself then ends in the background.

        Raises:
            TypeError: If it is not an Optax transformation.
        """
        as_transformation(optimizer)
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
        return Result(
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


def plane_optimizers() -> dict[str, Transform]:
    """Return the notes' optimizers at the settings of their contour figure, x²/20 + y² from (−7, 2).

    SGD, momentum, AdaGrad and Adam are the book's. Nesterov takes momentum's numbers; RMSprop Adam's learning rate and
    a decay of .9. AdaDelta has ε = 1e-2 in place of 1e-6, which sets the length of its first steps: with 1e-6 it would
    hardly leave the start in 30 points.

    Returns:
        By name, in the order of the notes.

    References:
        Saito (2016), Deep Learning from Scratch, figure 6-8 and its program.
    """
    return {
        "sgd": optimizers.sgd(0.95),
        "momentum": optimizers.momentum(0.1),
        "nesterov": optimizers.nesterov_lookahead(0.1),
        "adagrad": optimizers.adagrad(1.5, convention="saito2016"),
        "adadelta": optimizers.adadelta(eps=1e-2),
        "rmsprop": optimizers.rmsprop(0.3, decay=0.9, convention="saito2016"),
        "adam": optimizers.adam(0.3, convention="saito2016"),
    }


def network_optimizers() -> dict[str, Transform]:
    """Return the notes' optimizers at the settings of their comparison on MNIST.

    SGD, momentum, AdaGrad and RMSprop at .01, Adam at .001, all untuned; Nesterov with momentum's numbers, AdaDelta as
    in its paper.

    Returns:
        By name, in the order of the notes.

    References:
        Saito (2016), Deep Learning from Scratch, figure 6-9 and its program.
    """
    return {
        "sgd": optimizers.sgd(0.01),
        "momentum": optimizers.momentum(0.01),
        "nesterov": optimizers.nesterov_lookahead(0.01),
        "adagrad": optimizers.adagrad(0.01, convention="saito2016"),
        "adadelta": optimizers.adadelta(),
        "rmsprop": optimizers.rmsprop(0.01, convention="saito2016"),
        "adam": optimizers.adam(0.001, convention="saito2016"),
    }


def specification(optimizer: optax.GradientTransformation) -> dict[str, Any]:
    """Describe an optimizer for a record.

    Args:
        optimizer: Any Optax transformation.

    Returns:
        "expression", what builds it, and "spec", its JSON document; None where it is a bare function that does not say.

    Raises:
        TypeError: If it is no Optax transformation.
    """
    as_transformation(optimizer)
    if not isinstance(optimizer, Transform):
        return {"expression": None, "spec": None}
    try:
        return {"expression": repr(optimizer), "spec": optimizer.to_json()}
    except ValueError:  # a part of it is a bare Optax transformation or a function without a name
        return {"expression": repr(optimizer), "spec": None}


def _checked_keys(keys: Any) -> Key:
    dtype: Any = getattr(keys, "dtype", None)
    shape: Any = getattr(keys, "shape", ())
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if len(shape) != (1 if typed else 2) or not shape[0]:
        remedy = "Give jax.random.split(jax.random.key(0), num_seeds)."
        if typed or dtype == jnp.uint32:
            raise ValueError(f"Race needs keys to be one key for each seed; received shape {shape}. {remedy}")
        raise TypeError(f"Race needs keys to be random keys of JAX; received {describe_argument(keys)}. {remedy}")
    check_key("Race", keys[0], name="keys")
    return keys


def _wait(trajectory: Trajectory) -> Trajectory:
    # A PRNG key cannot be asked whether it is ready; its numbers can.
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    leaves: list[Any] = [jax.random.key_data(x) if is_key(x) else x for x in jax.tree.leaves(trajectory)]
    pause = 1e-3
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(pause)  # an interrupt gets through here, not while waiting inside XLA
        pause = min(2 * pause, 0.05)
    return jax.block_until_ready(trajectory)


__all__ = ["Race", "Result", "network_optimizers", "plane_optimizers", "specification"]
