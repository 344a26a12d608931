"""Results that were pickled without the functions of their trials."""

from dataclasses import dataclass
from typing import Any

from jaxopt_study.training import Trajectory


@dataclass(frozen=True)
class LostTrials:
    """The place of `Trials` in a result that was pickled without its functions, such as local ones.

    Attributes:
        num_steps: As in `Trials`.
        reason: Why pickle could not hold the functions.
    """

    num_steps: int
    reason: str

    def replay(self, *_: Any, **__: Any) -> Trajectory:
        """Raise ValueError with the reason."""
        raise ValueError(
            f"replay needs the functions of the optimizer and the problem, but this result was pickled without them: "
            f"{self.reason}. Pickle holds only functions that are defined at the top of a module. Repeat the run, or "
            "keep the result in memory."
        )
