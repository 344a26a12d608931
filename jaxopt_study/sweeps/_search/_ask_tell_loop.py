"""A search whose trials depend on the scores of those before: ask for a few, run them, tell."""

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
    """Run trials that a sampler suggests until its study has enough.

    A few trials are asked for at a time, four for each device: more would keep more devices busy, fewer would let the
    sampler learn more between them.

    Args:
        sampler: The sampler; others may share its study.
        space: What is searched.
        trials: How a configuration and a seed become a record.
        num_trials: Finished trials of the whole study.
        metric: The record whose last value is the score.
        run: `sweep`, with everything given that does not change.

    Returns:
        The configurations this process has run, and what came of them.

    Raises:
        ValueError: If the study had enough trials before, so that there is nothing to run, or if a constructor refuses
            a value; what was told before stays in the study.
    """
    configs, parts = [], []
    while batch := sampler.ask(space, _ASKED_PER_DEVICE * jax.device_count(), num_trials=num_trials):
        chosen = [dict(config) for _, config in batch]
        _check_in_space(space, chosen)
        check_values(trials, chosen, space, "After those that were told and kept, a trial asked for, number")
        try:
            outcome = run([(trials, config) for config in chosen], journal=None, asked={})
        except KeyboardInterrupt:  # while it was traced
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
        configs += chosen
        parts.append(outcome)
        if outcome.interrupted:
            break
    if not parts:
        raise ValueError(
            f"The sampler asks for no trial: its study has its {num_trials} trials already. Ask for more trials, or "
            "choose another study_name."
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
