"""Result of one candidate with one choice of hyperparameters on one problem, over the reporting seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from jaxopt_study._checks import check_integer
from jaxopt_study._display import displayed, plotted
from jaxopt_study.sweeps import _cards
from jaxopt_study.sweeps._execution._lost_trials import LostTrials
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.training import Trajectory
from jaxopt_study.types import Key, ModelState, Params

if TYPE_CHECKING:
    pass

Settings = Literal["default", "tuned"]


@dataclass(frozen=True, eq=False)
class Report:
    """Results of one candidate with one choice of hyperparameters on one problem, over the reporting seeds.

    Attributes:
        problem: Name of the problem.
        candidate: Name of the candidate.
        settings: "default" or "tuned".
        config: Hyperparameters, by the names of the space.
        scores: The reported metric at the end, shape (seeds,); NaN if a seed diverged.
        finals: All final evaluations by name, shape (seeds,).
        curves: By name, shape (seeds, K).
        steps: Shape (K,).
        diverged: Shape (seeds,).
        stalled: Whether a seed stopped moving although the gradient was not 0, as in `Trajectory`, shape (seeds,).
        seconds_per_step: Device time per step, including evaluations; NaN if read from a journal.
        params: The final parameters of each seed, a pytree with a leading axis (seeds,): the last finite ones of a seed
            that diverged. None unless `compare` was called with keep_params=True.
        model_state: The model state at the end, such as running means of batch normalisation, if there is one.
        trials: The function that runs a seed, for `replay`.
        fixed: Further hyperparameters of the runs.
        seed_keys: The key of each seed, as in `report_keys`, shape (seeds,).
    """

    problem: str
    candidate: str
    settings: Settings
    config: Mapping[str, Any]
    scores: Float[np.ndarray, " seeds"]
    finals: Mapping[str, Float[np.ndarray, " seeds"]]
    curves: Mapping[str, Shaped[np.ndarray, "seeds evaluations"]]
    steps: Integer[np.ndarray, " evaluations"]
    diverged: Bool[np.ndarray, " seeds"]
    stalled: Bool[np.ndarray, " seeds"]
    seconds_per_step: float
    params: Params | None = None
    model_state: ModelState | None = None
    trials: Trials | LostTrials | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    seed_keys: Shaped[Key, " seeds"] | None = None

    __repr__, _repr_html_ = displayed(_cards.report)
    plot = plotted

    def replay(self, seed: int = 0, **options: Any) -> Trajectory:
        """Run one seed of the report again on its own, as `Search.replay` does.

        Args:
            seed: Index of the seed.
            **options: Arguments of `train` to add to, or replace, those of the comparison.

        Returns:
            The trajectory; its numbers are those of the report up to rounding.

        Raises:
            TypeError: If the seed is not an integer.
            ValueError: If there is no such seed, the report was not made by `compare` or `ablate`, or it was pickled
                and its functions could not be.
        """
        if self.trials is None or self.seed_keys is None:
            raise ValueError(
                "replay: this report was not returned by sweeps.compare or sweeps.ablate, so its trials cannot be "
                "replayed."
            )
        seed = check_integer("replay", "seed", seed, 0, len(self.seed_keys) - 1)
        config = {**self.fixed, **self.config}
        return self.trials.replay(config, self.seed_keys[seed], self.trials.num_steps, **options)
