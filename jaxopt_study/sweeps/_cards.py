"""Cards of the results of sweeps: what each shows in a terminal and in a notebook."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_study._display import (
    Card,
    array,
    bounds,
    count,
    curves,
    intervals,
    number,
    percent,
    scalar,
    scatter,
    seconds,
    several,
    with_error,
)

SHOWN = 5  # best trials of a search


def config_text(config: Mapping[str, Any]) -> str:
    """Return hyperparameters as text, such as "learning_rate 0.1, decay 0.9"."""
    return ", ".join(f"{name} {setting_text(value)}" for name, value in config.items()) or "nothing to set"


def setting_text(value: Any) -> str:
    """Return the value of one hyperparameter as text."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool)
    return number(value.item() if isinstance(value, np.generic) else value, 3) if is_number else str(value)


def interval(found: Any) -> Card:
    """Return the card of an `Interval`: one line."""
    level = percent(found.level)
    if np.ndim(found.estimate):
        return Card(f"Interval({len(np.ravel(found.estimate))} estimates with {level} intervals)")
    low, high = scalar(found.lower), scalar(found.upper)
    return Card(f"Interval({number(scalar(found.estimate), 5)}, {level}: {bounds(low, high)})")


def difference(found: Any) -> Card:
    """Return the card of a `Difference`: one line."""
    ends = bounds(scalar(found.lower), scalar(found.upper))
    return Card(
        f"Difference({number(scalar(found.estimate))}, {percent(found.level)}: {ends}, p = {found.p_value:.2g})"
    )


def differences(found: Any) -> Card:
    """Return the card of `Differences`."""
    verdicts = {1: "first is better", -1: "second is better", 0: "no detectable difference"}
    rows = [
        (
            f"{found.names[i]} − {found.names[j]}",
            number(found.estimate[i, j].item()),
            bounds(found.lower[i, j].item(), found.upper[i, j].item(), 3),
            f"{found.p_value[i, j]:.2g}",
            verdicts[int(found.better[i, j])],
        )
        for i in range(len(found.names))
        for j in range(i + 1, len(found.names))
    ]
    head = ("pair", "difference", "interval", "p", "")
    return Card(f"Differences: all pairs, {percent(found.level)} for all together", rows, head)


def profile(found: Any) -> Card:
    """Return the card of a `Profile`."""
    rows = [
        (f"solver {i}", percent(np.mean(of == 1).item()), percent(np.isfinite(of).mean().item()))
        for i, of in enumerate(found.ratios.T)
    ]
    return Card(f"Profile: {len(found.ratios)} problems", rows, ("", "best on", "reaches the target on"))


def contribution(found: Any) -> Card:
    """Return the card of a `Contribution`: one line."""
    estimate, low, high = (scalar(x) for x in found.loss)
    worse = f"{number(estimate)} worse without it ({bounds(low, high)})"
    return Card(f"Contribution({found.variant.name}: {found.verdict}, {worse}, p = {found.p_value:.2g})")


def choice(found: Any) -> Card:
    """Return the card of a `Choice`."""
    rows = [
        (name, setting_text(value), f"at the {found.boundary[name]} end of its range" if name in found.boundary else "")
        for name, value in found.config.items()
    ]
    scores = array(found.scores)
    error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    rows.append(("score", with_error(scalar(found.score), float(error)), several(len(scores), "seed")))
    return Card(f"Choice: trial {found.trial}", rows)


def report(found: Any) -> Card:
    """Return the card of a `Report`."""
    scores = array(found.scores)
    alive = scores[np.isfinite(scores)]
    lost = int(np.sum(found.diverged))
    rows = [(name, setting_text(value), "") for name, value in found.config.items()]
    middle = number(float(np.median(alive)), 5) if alive.size else "none finite"
    ends = f"{number(alive.min().item())} to {number(alive.max().item())}, " if alive.size else ""
    rows.append(("median score", middle, f"{ends}{several(len(scores), 'seed')}{f', {lost} diverged' if lost else ''}"))
    rows.append(("time of a step", seconds(found.seconds_per_step), ""))
    name, curve = next(iter(found.curves.items()), ("", None))
    picture = lambda: _learning_curve(found.steps, curve, name)
    title = f"Report: {found.candidate} with {found.settings} settings on {found.problem}"
    return Card(title, rows, picture=None if curve is None else picture)


def search(found: Any) -> Card:
    """Return the card of a `Search`."""
    scores, final = found.scores, found.final
    num_trials, num_seeds = found.finished.shape
    done, lost = int(found.finished.all(axis=1).sum()), int(found.diverged.any(axis=1).sum())
    order = [i for i in found.ranking.tolist() if np.isfinite(scores[i])][:SHOWN]
    errors = final.std(axis=1, ddof=1) / num_seeds**0.5 if num_seeds > 1 else np.zeros(num_trials)
    rows = [
        (str(place), str(i), with_error(scores[i].item(), errors[i].item()), config_text(found.configs[i]))
        for place, i in enumerate(order, 1)
    ]
    notes = []
    if order:
        tied = int(found.indistinguishable().sum())
        told = f"{count(tied)} of {several(done, 'trial')} cannot be told from the best (95%)."
        notes.append(told if num_seeds > 1 else "One seed shows no noise, so no trial can be told from the best.")
        edges = found.best.boundary
        notes += [f"The best {name} lies at the {side} end of its range: widen it." for name, side in edges.items()]
    if lost:
        notes.append(f"{several(lost, 'trial')} diverged.")
    if found.run_seconds:
        notes.append(f"Compiled in {seconds(found.compile_seconds)}, ran in {seconds(found.run_seconds)}.")
    better = "smaller" if found.mode == "min" else "larger"
    runs = f"{count(done)} of {count(num_trials)} trials × {several(num_seeds, 'seed')}"
    title = f"Search: {runs}, {found.metric} ({better} is better)"
    error = " ± standard error" if num_seeds > 1 else ""
    head = ("rank", "trial", f"score{error}", "hyperparameters")
    return Card(title, rows, head if rows else (), notes, _search_picture(found, order))


def comparison(found: Any) -> Card:
    """Return the card of a `Comparison`."""
    apart = len(found.problems) > 1
    rows, notes = [], []
    for problem in found.problems:
        tuned, default = found.median(problem), found.median(problem, "default")
        ranks = found.ranks(problem)
        for name in found.ranking(problem):
            config = found.of(problem)[name].config
            before = number(scalar(default[name].estimate), 4) if name in default else ""
            row = (str(ranks[name]), name, _interval_text(tuned[name]), before, config_text(config))
            rows.append((problem, *row) if apart else row)
        notes.append(f"{f'{problem}: ' if apart else ''}{found.verdict(problem)}.")
    if not found.complete:
        notes.append("The comparison was interrupted.")
    better = "smaller" if found.mode == "min" else "larger"
    names = several(len(found.candidates), "candidate") + (f" × {len(found.problems)} problems" if apart else "")
    title = f"Comparison: {names}, {several(found.budget, 'tuning trial')} each, {found.metric} ({better} is better)"
    head = ("rank", "candidate", "tuned median (95%)", "default", "tuned hyperparameters")
    notes.append("A rank is 1 + the number of candidates that are shown to be better.")
    picture = None
    if rows:
        problem = found.problems[0]
        medians = found.median(problem)
        shown = [(name, *_ends(medians[name])) for name in found.ranking(problem)]
        where = f" on {problem}" if apart else ""
        picture = lambda: intervals(shown, label=f"tuned medians with 95% intervals{where}")
    return Card(title, rows, ("problem", *head) if apart else head, notes, picture)


def ablation(found: Any) -> Card:
    """Return the card of an `Ablation`."""
    parts = found.contributions()
    rows = [
        (
            part.variant.name,
            f"{number(scalar(part.loss[0]))} ({bounds(scalar(part.loss[1]), scalar(part.loss[2]), 3)})",
            f"{part.p_value:.2g}",
            part.verdict + (f", {part.diverged} diverged" if part.diverged else ""),
        )
        for part in parts
    ]
    full = " ".join(repr(found.variants[0].optimizer).split())
    title = f"Ablation: {several(len(parts), 'change')} of {full}"
    notes = [f"How much worse {found.comparison.metric} is with the change, {percent(found.level)} for all together."]
    picture = lambda: intervals(
        [(part.variant.name, *(scalar(x) for x in part.loss)) for part in parts],
        label="how much worse the score is with each change",
        marks=[0.0],
    )
    head = ("change", "worse by", "p", "the part")
    return Card(title, rows, head if rows else (), notes, picture if parts else None)


def columns_of_differences(found: Any) -> dict[str, Any]:
    """Return the columns of the table of `Differences`: a row for each ordered pair."""
    first, second = np.nonzero(~np.eye(len(found.names), dtype=bool))
    columns: dict[str, Any] = {side: [found.names[i] for i in of] for side, of in (("a", first), ("b", second))}
    for name in ("estimate", "lower", "upper", "p_value", "better"):
        columns[name] = getattr(found, name)[first, second]
    return columns


def _ends(found: Any) -> tuple[float, float, float]:
    return scalar(found.estimate), scalar(found.lower), scalar(found.upper)


def _interval_text(found: Any) -> str:
    estimate, low, high = _ends(found)
    return f"{number(estimate)} ({bounds(low, high, 3)})"


def _learning_curve(steps: Any, curve: Any, name: str) -> str:
    curve = np.where(np.isfinite(curve).all(axis=0), curve, np.nan).astype(float)
    return curves(
        steps,
        [np.median(curve, axis=0)],
        band=(curve.min(axis=0), curve.max(axis=0)),
        label=f"{name} by step: median and range of seeds",
        xlabel=f"{name.replace('_', ' ')} by step",
    )


def _search_picture(found: Any, order: list[int]) -> Any:
    """Return the picture of the scores over the first numeric hyperparameter, if there is one."""
    for name in found.space:
        values = [config.get(name) for config in found.configs]
        if all(value is None or isinstance(value, int | float | np.number) for value in values) and order:
            x = np.array([np.nan if value is None else float(value) for value in values])
            y, best = found.scores, np.arange(len(x)) == order[0]
            seen = x[np.isfinite(x)]
            log_x = bool(seen.size and seen.min() > 0 and seen.max() > 20 * seen.min())
            tall = y[np.isfinite(y)]
            log_y = bool(tall.size and tall.min() > 0 and tall.max() > 20 * tall.min())
            return lambda: scatter(
                x, y, chosen=best, log_x=log_x, log_y=log_y, xlabel=name,
                label=f"{found.metric} of every trial over {name}; the best in the second colour",
            )  # fmt: skip
    return None
