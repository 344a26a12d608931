"""Result of a search: all trials, the best one, and the uncertainty of this choice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from jaxopt_study._checks import check_integer
from jaxopt_study._display import displayed, plotted
from jaxopt_study.sweeps import _cards, _saved
from jaxopt_study.sweeps._execution._lost_trials import LostTrials
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._space._dimension import Edge
from jaxopt_study.sweeps._space._space import Space
from jaxopt_study.sweeps._statistics._expected_best_of_k import best_of_k
from jaxopt_study.sweeps._statistics._indistinguishable import indistinguishable
from jaxopt_study.sweeps._statistics._intervals import Interval
from jaxopt_study.sweeps._statistics._scores import Mode
from jaxopt_study.training import Trajectory
from jaxopt_study.types import Key

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Choice:
    """The selected trial of a search.

    Attributes:
        trial: Index of the trial.
        config: Hyperparameters of the trial.
        score: Mean over the seeds of the final metric.
        scores: The final metric of each seed, shape (seeds,).
        boundary: Hyperparameters at an end of their range, or in its outer quarter beyond those of all other trials,
            with the side: the best value may lie beyond.
    """

    trial: int
    config: Mapping[str, Any]
    score: float
    scores: Float[np.ndarray, " seeds"]
    boundary: Mapping[str, Edge]

    __repr__, _repr_html_ = displayed(_cards.choice)


@dataclass(frozen=True, eq=False)
class Search:
    """The result of a search, with all trials.

    n is the number of trials, s that of seeds, K that of evaluations. Trials that were not run, because the search was
    interrupted, have NaN and `finished` False. The later evaluations of a trial that diverged or was stopped are NaN,
    too.

    Attributes:
        space: The search space.
        configs: n dictionaries, hyperparameters by name.
        points: The trials in the unit cube, shape (n, d).
        metric: The optimised metric, one of `curves`.
        mode: Whether smaller ("min") or larger ("max") values are better.
        steps: Number of steps before each evaluation, shape (K,).
        curves: By name, shape (n, s, K): "validation_loss", …, and "batch_loss", the mean training loss since the
            previous evaluation.
        reports: Metrics evaluated only at the end, by name, shape (n, s).
        diverged_at: The step that was not finite, −1 if none, shape (n, s). The run keeps its last finite parameters.
        stalled: Whether a run stopped moving although its gradient was not 0, as in `Trajectory`, shape (n, s).
        num_steps: Number of steps taken, shape (n, s).
        finished: Whether a run was finished, shape (n, s).
        layout: Layout of the runs over the devices.
        compile_seconds: Time for tracing and compiling.
        run_seconds: Time for running.
        trials: The function that runs a trial, for `replay`.
        seed_keys: The key of each seed, as in `search_keys`, shape (s,).
    """

    space: Space
    configs: list[dict[str, Any]]
    points: Float[np.ndarray, "trials dimensions"]
    metric: str
    mode: Mode
    steps: Integer[np.ndarray, " evaluations"]
    curves: dict[str, Shaped[np.ndarray, "trials seeds evaluations"]]
    reports: dict[str, Shaped[np.ndarray, "trials seeds"]]
    diverged_at: Integer[np.ndarray, "trials seeds"]
    stalled: Bool[np.ndarray, "trials seeds"]
    num_steps: Integer[np.ndarray, "trials seeds"]
    finished: Bool[np.ndarray, "trials seeds"]
    layout: dict[str, Any] = field(default_factory=dict)
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    trials: Trials | LostTrials | None = None
    seed_keys: Shaped[Key, " seeds"] | None = None

    __repr__, _repr_html_ = displayed(_cards.search)
    plot = plotted

    @property
    def diverged(self) -> Bool[np.ndarray, "trials seeds"]:
        """Whether a run diverged, shape (n, s)."""
        return self.diverged_at >= 0

    @property
    def final(self) -> Float[np.ndarray, "trials seeds"]:
        """The metric after the last step, shape (n, s); NaN if the run diverged, was not run or is infinite."""
        last = np.searchsorted(self.steps, self.num_steps)
        values = np.take_along_axis(self.curves[self.metric], last[..., None], axis=2)[..., 0]
        values = values.astype(float)
        return np.where(self.diverged | ~self.finished | np.isinf(values), np.nan, values)

    @property
    def scores(self) -> Float[np.ndarray, " trials"]:
        """The mean of the metric over the seeds, shape (n,); NaN if it is NaN for any seed."""
        return np.sort(self.final, axis=1).mean(axis=1)  # in one order, so that equal values round alike

    @property
    def ranking(self) -> Integer[np.ndarray, " trials"]:
        """The trials from best to worst, shape (n,): trials that took more steps first, diverged ones last."""
        sign = 1.0 if self.mode == "min" else -1.0
        scores = sign * self.scores
        return np.lexsort((np.where(np.isnan(scores), np.inf, scores), -self.num_steps.min(axis=1), np.isnan(scores)))

    @property
    def best(self) -> Choice:
        """The trial with the best mean score.

        Raises:
            ValueError: If every trial diverged, none was run, or the metric is NaN or infinite for all.
        """
        trial = int(self.ranking[0])
        if np.isnan(self.scores[trial]):
            whole = self.finished.all(axis=1)
            raise ValueError(
                f"No trial has a finite score on every seed: of {len(self.configs)} trials, {whole.sum()} were run "
                f"with every seed, {(whole & self.diverged.any(axis=1)).sum()} of them diverged, and the {self.metric} "
                "of the others is NaN or infinite. Lower the learning-rate range, or resume the search; to_pandas() "
                "has all results."
            )
        return Choice(trial, self.configs[trial], float(self.scores[trial]), self.final[trial], self._edges(trial))

    def replay(self, trial: int, seed: int = 0, **options: Any) -> Trajectory:
        """Run a trial again on its own, for example with a probe or with recorded parameters.

        This is the call of `train` that `search_keys` describes. The numbers agree with those of the search up to
        rounding, because the search traced its hyperparameters in single precision and may have vectorised the runs. In
        a chaotic run, as at the edge of stability, rounding errors grow with the steps.

        Args:
            trial: Index of the trial, 0 ≤ i < n.
            seed: Index of the seed, 0 ≤ j < s.
            **options: Arguments of `train` to add to, or replace, those of the search.

        Returns:
            The trajectory, with as many steps as the trial had.

        Raises:
            TypeError: If an index is not an integer.
            ValueError: If there is no such trial or seed, the search was not made by `search` or `compare`, or it was
                pickled and its functions could not be.

        Example:
            >>> from jaxopt_study import optimizers, problems, sweeps
            >>> rates = {"learning_rate": sweeps.uniform(0.1, 0.9)}
            >>> bowl, key = problems.planar.bowl(), jax.random.key(0)
            >>> result = sweeps.search(optimizers.sgd, rates, bowl, num_trials=3, num_steps=5, key=key)
            >>> again = result.replay(1, record_params_every=1)
            >>> again.snapshots.shape, bool(np.isclose(again.evaluations["train_loss"][-1], result.final[1, 0]))
            ((6, 2), True)
        """
        if self.trials is None or self.seed_keys is None:
            raise ValueError(
                "replay: this result was not returned by sweeps.search or sweeps.compare, so its trials cannot be "
                "replayed."
            )
        trial = check_integer("replay", "trial", trial, 0, len(self.configs) - 1)
        seed = check_integer("replay", "seed", seed, 0, len(self.seed_keys) - 1)
        whole = self.diverged[trial, seed] or not self.finished[trial, seed]
        num_steps = int(self.steps[-1] if whole else self.num_steps[trial, seed])  # halving may have stopped the trial
        return self.trials.replay(self.configs[trial], self.seed_keys[seed], num_steps, **options)

    def indistinguishable(self, *, level: float = 0.95, num_examples: int | None = None) -> Bool[np.ndarray, " trials"]:
        """Return which trials are statistically indistinguishable from the best, shape (n,); False for those not run.

        Args:
            level: Probability that the truly best trial is among them.
            num_examples: For an accuracy, the number of examples it was measured on, which adds sampling noise.

        Returns:
            As in `sweeps.indistinguishable`, which states the assumptions.
        """
        tied = np.zeros(len(self.configs), bool)
        run = self.finished.all(axis=1)
        if not run.any():
            return tied
        tied[run] = indistinguishable(self.final[run], mode=self.mode, level=level, num_examples=num_examples)
        return tied

    def best_of_k(self, k: Any = None) -> Interval:
        """Return the expected best score of k trials, k = 1 … n by default, with an interval.

        Args:
            k: Numbers of trials.

        Returns:
            As in `sweeps.best_of_k`, for the trials that were run.

        Raises:
            ValueError: If no trial was run.
        """
        scores = self.scores[self.finished.all(axis=1)]
        if not scores.size:
            raise ValueError("best_of_k needs a trial that was run with every seed; there is none. Resume the search.")
        return best_of_k(scores, np.arange(1, len(scores) + 1) if k is None else k, mode=self.mode)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a tidy table with a row per trial and seed: hyperparameters, results and status.

        A hyperparameter with the name of another column, such as "seed", is renamed to "seed (setting)".
        """
        import pandas  # takes a fifth of a second, and only tables need it

        trials, seeds = np.indices(self.finished.shape)
        run = {"trial": trials.ravel(), "seed": seeds.ravel()}
        results: dict[str, Any] = {self.metric: self.final.ravel()}
        last = np.searchsorted(self.steps, self.num_steps)[..., None]
        for name, values in self.curves.items():
            results.setdefault(name, np.take_along_axis(values, last, axis=2)[..., 0].ravel())
        results |= {name: values.ravel() for name, values in self.reports.items()}
        ended = ("diverged", "diverged_at", "stalled", "num_steps", "finished")
        results |= {name: getattr(self, name).ravel() for name in ended}
        settings = {}
        for name in self.space:
            column = f"{name} (setting)" if name in run | results else name
            settings[column] = [config.get(name) for config in self.configs for _ in range(self.finished.shape[1])]
        return pandas.DataFrame(run | settings | results)

    def curves_to_pandas(self) -> "pandas.DataFrame":
        """Return a tidy table of the curves with a row per trial, seed and evaluation."""
        import pandas  # takes a fifth of a second, and only tables need it

        shape = next(iter(self.curves.values())).shape
        trials, seeds, at = np.indices(shape)
        columns = {"trial": trials.ravel(), "seed": seeds.ravel(), "step": self.steps[at.ravel()]}
        return pandas.DataFrame(columns | {name: values.ravel() for name, values in self.curves.items()})

    def save(self, path: str | Path) -> Path:
        """Write the search as a record, a JSON file of data.

        The functions of the trials are not saved.

        Args:
            path: Name of the file; ".json" is customary.

        Returns:
            The path.

        Raises:
            RecordError: If the file cannot be written, or a hyperparameter is no plain value.
        """
        return _saved.save("search", _saved.from_search(self), path)

    @classmethod
    def load(cls, path: str | Path) -> "Search":
        """Read a search that `save` has written. No code of the file runs.

        Args:
            path: The file.

        Returns:
            The search, which cannot `replay` its trials.

        Raises:
            RecordError: If the file holds something else.
        """
        return _saved.load("search", path, lambda plain: cls(**_saved.to_search(plain)))

    def _edges(self, trial: int) -> dict[str, Edge]:
        # If fewer than two trials are expected beyond it, or none was, the trials say nothing about that region. But
        # with few trials the outermost may lie in the middle of the range, which is no reason to widen it. Of n ≥ 16
        # random trials one lies in the outer quarter with probability 1 − .75ⁿ ≥ .99.
        margin = min(0.25, max(0.05, 2.0 / len(self.configs)))
        edges: dict[str, Edge] = {}
        for name, value in self.configs[trial].items():
            dimension = self.space[name]
            side = dimension.edge(value, margin)
            nearest = dimension.edge(value, 0.25)  # None for options, which have no order
            if side is None and nearest is not None:
                run = [self.configs[i] for i in np.flatnonzero(self.finished.all(axis=1))]
                rivals = [config[name] for config in run if name in config]
                outermost = max(rivals) if nearest == "high" else min(rivals)
                side = nearest if value == outermost and rivals.count(value) < len(rivals) else None
            if side is not None:
                edges[name] = side
        return edges
