"""Results that were pickled or saved without the functions of their trials."""

import pickle
from dataclasses import dataclass
from typing import Any

from jaxopt_study.problems import Problem
from jaxopt_study.training import Trajectory


@dataclass(frozen=True)
class LostTrials:
    """The place of `Trials` in a result without its functions, such as one that was pickled with local ones.

    Attributes:
        num_steps: As in `Trials`.
        reason: Why it lacks the functions, and what to do.
    """

    num_steps: int
    reason: str

    def replay(self, *_: Any, **__: Any) -> Trajectory:
        """Raise ValueError with the reason."""
        raise ValueError(f"replay needs the functions of the optimizer and the problem, but {self.reason}")


def why_not_picklable(trials: Any) -> str | None:
    """Return why trials lose their functions when they are pickled, or None if not; the examples are not tried."""
    problem = trials.problem
    if isinstance(problem, Problem):
        problem = problem.replace(data=None, validation=None, test=None)
    try:
        pickle.dumps((trials.make_optimizer, problem, trials.options))
    except Exception as error:  # of any object that the user's functions hold
        return (
            f"this result was pickled without them: {error}. Pickle holds only functions that are defined at the top "
            "of a module. Repeat the run, or keep the result in memory."
        )
    return None
