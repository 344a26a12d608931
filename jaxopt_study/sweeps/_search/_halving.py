"""Successive halving: stop the worse trials early."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from jaxopt_study._checks import check_integer
from jaxopt_study.sweeps._execution._sweep import Outcome
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._statistics._scores import Mode, penalised, sign_of


@dataclass(frozen=True)
class Halving:
    """Successive halving: all trials get a few steps, the best of them several times as many, and so on.

    With factor η, n trials and r₀ = min_steps, rung i runs the best ⌈m/η⌉ of the m trials of the previous rung for
    r₀·ηⁱ steps, at most T; these are ⌈n/ηⁱ⌉ trials, fewer if more of them diverge. Quotients are rounded up, as in
    Karnin et al., so that one trial always survives; the papers on hyperparameters round them down. A surviving trial
    starts again from its initial parameters: only scores are kept between rungs, so that a killed search resumes at any
    trial. Rung i costs at most n·r₀ + r₀·ηⁱ steps, so for n ≥ T/r₀ the total is about (1 + log_η(T/r₀)) · n · r₀,
    compared with n · T without halving; continuing the runs would cost 1 − 1/η of that.

    The method assumes that trials which are behind early stay behind, which is false for small learning rates.

    Attributes:
        min_steps: r₀ ≥ 1, the number of steps of the first rung.
        factor: η ≥ 2.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is out of range.

    Example:
        >>> Halving(min_steps=10, factor=3).rungs(num_steps=200, every=10)
        [10, 30, 90, 200]

    References:
        Karnin, Koren and Somekh (2013), Almost optimal exploration in multi-armed bandits, ICML: ⌈n/2⌉. Jamieson and
        Talwalkar (2016), Non-stochastic best arm identification and hyperparameter optimization, AISTATS. Li,
        Jamieson, DeSalvo, Rostamizadeh and Talwalkar (2018), Hyperband, JMLR 18: any η.
    """

    min_steps: int
    factor: int = 3

    def __post_init__(self):
        for name, least in (("min_steps", 1), ("factor", 2)):
            object.__setattr__(self, name, check_integer("Halving", name, getattr(self, name), least))

    def rungs(self, num_steps: int, every: int) -> list[int]:
        """Return the number of steps of each rung.

        Args:
            num_steps: T, the number of steps of the last rung.
            every: Cadence of the evaluations; all rungs but the last end at a multiple of it.

        Raises:
            ValueError: If T is less than `min_steps`.
        """
        num_steps = check_integer("Halving.rungs", "num_steps", num_steps, 0)
        every = check_integer("Halving.rungs", "every", every, 1)
        if num_steps < self.min_steps:
            raise ValueError(
                f"Halving with min_steps={self.min_steps} needs num_steps ≥ {self.min_steps}; received {num_steps}."
            )
        steps, rungs = self.min_steps, []
        while (rounded := -(-steps // every) * every) < num_steps:
            rungs.append(rounded)
            steps *= self.factor
        return [*dict.fromkeys(rungs), num_steps]

    def survivors(self, scores: Float[np.ndarray, " trials"], mode: Mode | str) -> Integer[np.ndarray, " survivors"]:
        """Return the trials that continue to the next rung: the best 1/η, at least one, without diverged ones.

        Args:
            scores: Shape (n,); NaN for a trial that diverged.
            mode: Whether smaller or larger is better.

        Returns:
            The indices of the best ⌈n/η⌉ trials with a finite score, ascending; among equal scores the first.

        Raises:
            ValueError: If the shape is wrong or `mode` is unknown.
        """
        costs = sign_of(mode) * penalised(scores, mode)
        if costs.ndim != 1:
            raise ValueError(f"Halving needs one score per trial, shape (n,); received {costs.shape}.")
        count = -(-len(scores) // self.factor)
        best = np.argsort(costs, kind="stable")[:count]
        return np.sort(best[np.isfinite(costs[best])])


def run_halved(
    halving: Halving,
    trials: Trials,
    configs: Sequence[Mapping[str, Any]],
    run: "partial[Outcome]",
    journal: str | Path | None,
    study_config: Mapping[str, Any],
) -> Outcome:
    """Run configurations rung by rung.

    Args:
        halving: The rule.
        trials: The trials, with the full number of steps.
        configs: n configurations.
        run: `sweep` with all arguments bound that do not change between rungs.
        journal: A folder with a journal for each rung, or None.
        study_config: As in `sweep`.

    Returns:
        The result of `sweep` for the full number of steps; a stopped trial has NaN for the evaluations it did not
        reach.
    """
    metric, mode = run.keywords["metric"], run.keywords["mode"]
    every = trials.every
    left: list[int] = list(range(len(configs)))
    whole: Outcome | None = None
    for steps in halving.rungs(trials.num_steps, every):
        rung = replace(trials, num_steps=steps)
        try:
            outcome = run(
                [(rung, configs[i]) for i in left],
                journal=None if journal is None else Path(journal) / f"{steps}-steps",
                study_config={**study_config, "rung": steps, "trials": left},
            )
        except KeyboardInterrupt:  # while it was traced
            if whole is None:
                raise
            whole = replace(whole, interrupted=True)
            break
        whole = _merged(whole, outcome, left, len(configs), len(trials.steps()))
        if outcome.interrupted:
            break
        final = np.where(outcome.records["diverged_at"] >= 0, np.nan, outcome.records[metric][..., -1].astype(float))
        left = [left[i] for i in halving.survivors(final.mean(axis=1), mode)]
        if not left:
            break
    if whole is None:
        raise ValueError("Halving needs at least one rung and one configuration.")
    return whole


def _merged(whole: Outcome | None, rung: Outcome, indices: list[int], total: int, length: int) -> Outcome:
    """Return the results so far, with those of a rung inserted in the rows of its trials."""
    if whole is None:
        blank = {}
        for name, values in rung.records.items():
            shape = (total, *values.shape[1:-1], length) if values.ndim == 3 else (total, *values.shape[1:])
            blank[name] = np.full(shape, np.nan if values.dtype.kind == "f" else 0, values.dtype)
        seconds = np.zeros((total, rung.finished.shape[1]))
        whole = replace(rung, records=blank, finished=np.zeros_like(rung.finished), seconds=seconds)
    else:
        whole = replace(
            whole,
            compile_seconds=whole.compile_seconds + rung.compile_seconds,
            run_seconds=whole.run_seconds + rung.run_seconds,
            interrupted=rung.interrupted,
        )
    ran = rung.finished.all(axis=1)
    rows = np.asarray(indices)[ran]
    for name, values in rung.records.items():
        if values.ndim == 3:
            whole.records[name][rows, :, : values.shape[2]] = values[ran]
        else:
            whole.records[name][rows] = values[ran]
    whole.finished[indices] |= rung.finished
    whole.seconds[indices] += rung.seconds
    return whole
