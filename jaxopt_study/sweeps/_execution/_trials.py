"""`Trials`: the function from hyperparameters and a seed to a record, the same for every layout."""

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Integer, Shaped

from jaxopt_study._checks import describe_argument
from jaxopt_study._programs import RANDOM_DRAWS
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps._execution._accepted_names import TRAIN_OPTIONS, accepted_names, accepts
from jaxopt_study.sweeps._execution._keys import IMPLEMENTATION
from jaxopt_study.sweeps._execution._lost_trials import LostTrials, why_not_picklable
from jaxopt_study.training import Trajectory, evaluate, train
from jaxopt_study.transforms import Transform
from jaxopt_study.types import Key, Mode

MakeOptimizer = Callable[..., optax.GradientTransformation] | Transform
MakeProblem = Callable[..., Problem] | Problem
Lane = Callable[[Any, Any], dict[str, Any]]  # (hyperparameters and seed of one lane, shared arguments) -> record

_SPLITS = ("data", "validation", "test")


@dataclass(frozen=True, eq=False)
class Trials:
    """The function from hyperparameters and a seed to a record.

    Each hyperparameter is passed by name to the function that makes the optimizer, to the function that makes the
    problem (to both if both accept it), or to `train` ("batch_size" and "order").

    Attributes:
        make_optimizer: A function of hyperparameters that returns an Optax transformation; or a `Transform`, whose
            hyperparameters are named by their paths.
        problem: A problem, or a function of hyperparameters that returns one.
        num_steps: T, the number of steps of every trial.
        evaluate_every: As in `train`; None evaluates at the start and at the end.
        evaluate_on: As in `train`.
        report_on: Splits on which only the final parameters are evaluated, where `shared` says "report".
        static: Names of the static hyperparameters, each value of which needs its own program.
        options: Further arguments of `train`.
        keep_params: Whether a record includes the final parameters and model state.
        traced: Cache of traced programs.
        shared_by_key: Cache of what `shared` returns.
    """

    make_optimizer: MakeOptimizer
    problem: MakeProblem
    num_steps: int
    evaluate_every: int | None
    evaluate_on: str | Sequence[str] | None
    report_on: tuple[str, ...]
    static: tuple[str, ...]
    options: Mapping[str, Any]
    keep_params: bool = False
    traced: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    shared_by_key: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __copy__(self) -> "Trials":
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Trials":
        return Trials(*copy.deepcopy(self._arguments(), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        # Results are pickled for their numbers; functions that pickle cannot hold are needed only to run a trial again.
        reason = why_not_picklable(self)
        return (Trials, self._arguments()) if reason is None else (LostTrials, (self.num_steps, reason))

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self) if field.init)

    def check_names(self, names: Collection[str]) -> None:
        """Raise for unknown hyperparameters, and for arguments that do not make an optimizer or a problem."""
        if not callable(self.make_optimizer) and not isinstance(self.make_optimizer, Transform):
            raise TypeError(
                "Expected a function of hyperparameters that returns an optimizer, such as optax.sgd, or a "
                f"Transform; received {self.make_optimizer!r}. Pass an optimizer with fixed hyperparameters as "
                "lambda: optimizer."
            )
        if not callable(self.problem) and not isinstance(self.problem, Problem):
            raise TypeError(
                "Expected a Problem, or a function of hyperparameters that returns one; received "
                f"{describe_argument(self.problem)}."
            )
        takers = {
            "the optimizer": accepted_names(self.make_optimizer),
            "the problem": [] if isinstance(self.problem, Problem) else accepted_names(self.problem),
            "train": list(TRAIN_OPTIONS),
        }
        for name in names:
            if not any(self.taken_by(name).values()):
                offers = "; ".join(f"{who} accepts {', '.join(accepted) or 'none'}" for who, accepted in takers.items())
                raise ValueError(f"Unknown hyperparameter {name!r} in the space: {offers}. Rename it.")

    def optimizer(self, config: Mapping[str, Any]) -> optax.GradientTransformation:
        """Return the optimizer of a configuration, whose values may be traced."""
        accepted = {name: value for name, value in config.items() if self.taken_by(name)["optimizer"]}
        maker = self.make_optimizer
        return maker.replace(accepted) if isinstance(maker, Transform) else maker(**accepted)

    def problem_of(self, config: Mapping[str, Any]) -> Problem:
        """Return the problem of a configuration, whose values may be traced."""
        if isinstance(self.problem, Problem):
            return self.problem
        accepted = {name: value for name, value in config.items() if self.taken_by(name)["problem"]}
        made = self.problem(**accepted)
        if not isinstance(made, Problem):
            raise TypeError(f"The function that makes the problem must return a Problem; received {made!r}.")
        return made

    def evaluated(self, problem: Problem) -> dict[str, Mode | None]:
        """Return the names of a trial's evaluations with their directions, None for those without one."""
        on = self.evaluate_on if self.evaluate_on is not None else default_split(problem)
        known: dict[str, Mode | None] = {name: problem.mode_of(name) for name in ("loss", *sorted(problem.metrics))}
        splits = dict.fromkeys(((on,) if isinstance(on, str) else tuple(on)) + self.report_on)
        directions: dict[str, Mode | None] = {f"{part}_{name}": mode for part in splits for name, mode in known.items()}
        return {**directions, "batch_loss": "min"}

    def start_varies(self) -> bool:
        """Return whether the initial parameters of a trial may depend on its hyperparameters."""
        return not isinstance(self.problem, Problem)

    def lane(self, static: Mapping[str, Any], axes: tuple[str, ...] = ()) -> Lane:
        """Return the trial as a pure function, for given values of the static hyperparameters.

        Args:
            static: Values of the static hyperparameters.
            axes: Axes of the mesh over which the examples of a batch are divided.

        Returns:
            `lane(one, shared)`. `one` has "values" (the other hyperparameters) and "seed" (a row index into `shared`);
            if `start_varies`, it also has "start". `shared` has "init_keys", "run_keys", "examples" and, unless
            `start_varies`, "starts". The result has, by name, the evaluations of `train`, each of shape (K,),
            "batch_loss" of shape (K,), and the scalars "diverged_at", "stalled", "num_steps" and "test_loss", … for
            `report_on`.
        """

        def lane(one: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
            config = {**static, **one["values"]}
            problem = self.problem_of(config)
            _check_examples(problem)
            problem = _divided(problem.replace(**shared["examples"]), axes)
            seed = one["seed"]
            varies = self.start_varies()
            start = one["start"] if varies else jax.tree.map(lambda leaf: leaf[seed], shared["starts"])
            options = dict(self.options) | {name: config[name] for name in TRAIN_OPTIONS if name in config}
            run = train(
                problem,
                self.optimizer(config),
                num_steps=self.num_steps,
                key=jax.random.wrap_key_data(shared["run_keys"][seed], impl=IMPLEMENTATION),
                params=start,
                evaluate_every=self.every,
                evaluate_on=self.evaluate_on,
                **options,
            )
            return self._record(problem, run, shared["report"])

        return lane

    def start(self, static: Mapping[str, Any]) -> Lane:
        """Return the initial parameters of a trial as a pure function, like `lane`, for a separate program.

        Compiling random draws inside another program takes XLA longer than compiling the training.
        """

        def start(one: dict[str, Any], shared: dict[str, Any]) -> Any:
            key = jax.random.wrap_key_data(shared["init_keys"][one["seed"]], impl=IMPLEMENTATION)
            return self.problem_of({**static, **one["values"]}).init(key)

        return start

    def replay(self, config: Mapping[str, Any], seed_key: Key, num_steps: int, **options: Any) -> Trajectory:
        """Run a trial on its own.

        Args:
            config: Hyperparameters of the trial.
            seed_key: Key of the seed.
            num_steps: T.
            **options: Arguments of `train` to add to, or replace, those of the sweep.

        Returns:
            The trajectory.
        """
        problem, (init_key, run_key) = self.problem_of(config), jax.random.split(seed_key)
        given = dict(self.options) | {name: config[name] for name in TRAIN_OPTIONS if name in config}
        given |= {"evaluate_every": max(num_steps, 1) if self.evaluate_every is None else self.evaluate_every}
        given |= {"params": problem.init(init_key), "key": run_key, "evaluate_on": self.evaluate_on}
        return train(problem, self.optimizer(config), **{"num_steps": num_steps, **given, **options})

    def _record(self, problem: Problem, run: Trajectory, report: Bool[Array, ""]) -> dict[str, Any]:
        record = {name: values for name, values in run.evaluations.items() if name != "step"}
        record |= {"batch_loss": _windowed(run.losses, self.steps())}
        for split in self.report_on:
            values = _if(report, partial(evaluate, problem, run.params, run.model_state, on=split))
            record |= {f"{split}_{name}": value for name, value in values.items()}
        if self.keep_params:
            record |= {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(_ends(run))}
        return record | {"diverged_at": run.diverged_at, "stalled": run.stalled, "num_steps": run.num_steps}

    def end_points(self, config: Mapping[str, Any], records: dict[str, Any]) -> dict[str, Any]:
        """Take the parameters and model states at the end out of the records of a configuration.

        Args:
            config: Its hyperparameters.
            records: By name, as `lane` returns them, with any leading axes; what is taken is missing afterwards.

        Returns:
            "params" and "model_state", pytrees with those axes; nothing if they were not kept.
        """
        if not self.keep_params:
            return {}
        problem, key = self.problem_of(config), jax.random.key(0)
        like = {"params": jax.eval_shape(problem.init, key), "model_state": None}
        if problem.init_state is not None:
            like["model_state"] = jax.eval_shape(problem.init_state, key)
        return jax.tree.map_with_path(lambda path, _: records.pop(jax.tree_util.keystr(path)), like)

    @property
    def every(self) -> int:
        """The cadence of the evaluations."""
        return max(self.num_steps, 1) if self.evaluate_every is None else self.evaluate_every

    def steps(self) -> Integer[np.ndarray, " evaluations"]:
        """Return the numbers of steps after which a trial is evaluated, shape (K,)."""
        every = self.every
        return np.minimum(np.arange(-(-self.num_steps // every) + 1) * every, self.num_steps)

    def shared(
        self,
        static: Mapping[str, Any],
        values: Mapping[str, Any],
        seed_keys: Shaped[Key, " seeds"],
        *,
        report: bool = True,
    ) -> dict[str, Any]:
        """Return the arguments that all lanes of a program share.

        Args:
            static: Values of the static hyperparameters.
            values: One choice of the other hyperparameters, on which examples and shapes must not depend.
            seed_keys: Shape (seeds,), Threefry keys.
            report: Whether lanes evaluate their final parameters on `report_on`; otherwise those results are NaN.
        """
        problem = self.problem_of({**static, **values})
        keys = jax.vmap(jax.random.split)(seed_keys)
        starts = None if self.start_varies() else _starts(problem.init)(keys[:, 0])
        return {
            "init_keys": jax.random.key_data(keys[:, 0]),  # as numbers, which can be sent between processes
            "run_keys": jax.random.key_data(keys[:, 1]),
            "starts": starts,
            "examples": {part: getattr(problem, part) for part in _SPLITS},
            "report": np.array(report),
        }

    def taken_by(self, name: str) -> dict[str, bool]:
        """Return whether each of "optimizer", "problem" and "train" accepts a hyperparameter."""
        optimizer = accepts(self.make_optimizer, name)
        problem = not isinstance(self.problem, Problem) and accepts(self.problem, name)
        return {"optimizer": optimizer, "problem": problem, "train": name in TRAIN_OPTIONS}


def _if(wanted: Bool[Array, ""], evaluated: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """Return evaluations, or NaN without evaluating. All lanes of a call agree, so that this is a branch under vmap."""
    like = jax.eval_shape(evaluated)
    unknown = lambda: jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), like)
    return jax.lax.cond(wanted, evaluated, unknown)


def _ends(run: Trajectory) -> dict[str, Any]:
    return {"params": run.params, "model_state": run.model_state}


def default_split(problem: Problem) -> str:
    """Return the validation split, or the training split if there is none."""
    return "train" if problem.validation is None else "validation"


@lru_cache(maxsize=32)
def _starts(init: Callable[[Key], Any]) -> Callable[[Shaped[Key, " seeds"]], Any]:
    """Return a compiled function from keys to initial parameters, cached for every sweep of a problem."""
    return jax.jit(jax.vmap(init), compiler_options=RANDOM_DRAWS)


def _divided(problem: Problem, axes: tuple[str, ...]) -> Problem:
    """Return a problem whose losses use batches sharded over axes of the mesh, if their sizes allow."""
    if not axes:
        return problem
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    parts = math.prod(sizes[axis] for axis in axes)

    def divide(batch: Any) -> Any:
        leaves = jax.tree.leaves(batch)
        fits = all(leaf.shape[0] % parts == 0 for leaf in leaves)
        spec = jax.sharding.PartitionSpec(axes)
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), batch) if fits else batch

    loss, step_loss = problem.loss, problem.step_loss
    return problem.replace(
        loss=lambda params, batch, *state: loss(params, divide(batch), *state),
        step_loss=step_loss and (lambda params, state, batch, key: step_loss(params, state, divide(batch), key)),
    )


def _check_examples(problem: Problem) -> None:
    for part in _SPLITS:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(getattr(problem, part))):
            raise TypeError(
                f"The {part} of problem {problem.name!r} depend on a traced hyperparameter. Make it static: "
                "sweeps.choices(…, static=True)."
            )


def _windowed(
    losses: Float[Array, " steps"], steps: Integer[np.ndarray, " evaluations"]
) -> Float[Array, " evaluations"]:
    """Return the mean of the batch losses since the previous evaluation, shape (K,); first that of one batch."""
    if len(losses) == 0:
        return jnp.full((len(steps),), jnp.nan)
    whole = np.diff(steps)  # all equal except the last
    every, count = int(whole[0]), len(whole) - int(whole[-1] != whole[0])
    means = losses[: count * every].reshape(count, every).mean(axis=1)
    rest = losses[count * every :]
    return jnp.concatenate([losses[:1], means, *([rest.mean(keepdims=True)] if len(rest) else [])])
