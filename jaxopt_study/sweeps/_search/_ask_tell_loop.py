"""Ask-and-tell loop of an adaptive search: ask for a few trials, run them, tell their scores."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxopt_study.sweeps._execution._sweep import Outcome
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._execution._values import check_values
from jaxopt_study.sweeps._search._samplers import Sampler
from jaxopt_study.sweeps._space._space import Space

_ASKED_PER_DEVICE = 4


def ask_and_tell(
    sampler: Sampler,
    space: Space,
    trials: Trials,
    num_trials: int,
    metric: str,
    run: Callable[..., Outcome],
) -> tuple[list[dict[str, Any]], Outcome]:
    """Run trials that an adaptive sampler suggests, until the study has enough.

    Four trials per device are requested at a time: more would use the devices better, fewer would let the sampler learn
    more between them.

    Args:
        sampler: The sampler; others may share its study.
        space: The search space.
        trials: The function from a configuration and a seed to a record.
        num_trials: Number of finished trials of the whole study.
        metric: The record whose last value is the score.
        run: `sweep` with all constant arguments bound.

    Returns:
        The configurations that this process has run, and their results.

    Raises:
        ValueError: If the study already has enough trials, or if a constructor rejects a value; earlier scores stay in
            the study.
    """
    configs, parts = [], []
    while batch := sampler.ask(space, _ASKED_PER_DEVICE * jax.device_count(), num_trials=num_trials):
        suggested = [dict(config) for _, config in batch]
        _check_in_space(space, suggested)
        check_values(trials, suggested, space, "After the trials that were told and kept, a suggested trial, number")
        try:
            outcome = run([(trials, config) for config in suggested], journal=None, study_config={})
        except KeyboardInterrupt:  # during tracing
            if not parts:
                raise
            parts[-1] = replace(parts[-1], interrupted=True)
            break
        diverged = outcome.records["diverged_at"] >= 0
        scores = np.where(diverged, np.nan, outcome.records[metric][..., -1].astype(float)).mean(axis=1)
        complete: np.ndarray = np.all(outcome.finished, axis=1)
        for i, (handle, _) in enumerate(batch):
            if complete[i]:
                sampler.tell(handle, float(scores[i]))
        configs += suggested
        parts.append(outcome)
        if outcome.interrupted:
            break
    if not parts:
        raise ValueError(
            f"The study already has its {num_trials} trials. Give a larger num_trials, or choose another study_name."
        )
    return configs, _joined(parts)


def _check_in_space(space: Space, configs: list[dict[str, Any]]) -> None:
    """Raise ValueError if a sampler has chosen what is not in the space."""
    for config in configs:
        active = {name for name in space if space.active(name, config)}
        if config.keys() != active:
            raise ValueError(
                f"The sampler's ask must return configurations in the space, with the names {sorted(active)}; received "
                f"{config}."
            )


def _joined(parts: list[Outcome]) -> Outcome:
    return replace(
        parts[-1],
        records={name: np.concatenate([part.records[name] for part in parts]) for name in parts[0].records},
        finished=np.concatenate([part.finished for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        compile_seconds=sum(part.compile_seconds for part in parts),
        run_seconds=sum(part.run_seconds for part in parts),
    )
