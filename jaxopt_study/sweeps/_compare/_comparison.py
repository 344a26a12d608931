"""Result of a comparison: scores of all candidates with default and tuned settings, rankings and differences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import Float, Integer

from jaxopt_study._checks import check_choice, describe_argument
from jaxopt_study._display import displayed, plotted
from jaxopt_study.sweeps import _cards, _saved
from jaxopt_study.sweeps._compare._report import Report, Settings
from jaxopt_study.sweeps._search._result import Search
from jaxopt_study.sweeps._statistics._expected_best_of_k import best_of_k
from jaxopt_study.sweeps._statistics._intervals import Interval, median_interval
from jaxopt_study.sweeps._statistics._paired_tests import Differences, paired_differences
from jaxopt_study.sweeps._statistics._performance_profiles import Profile, performance_profile
from jaxopt_study.sweeps._statistics._scores import Mode, penalised, sign_of, steps_to_target

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results of all candidates on all problems, with default and tuned settings.

    Attributes:
        reports: One report per existing combination of problem, candidate and settings.
        searches: By problem and candidate, the search that found the tuned settings.
        budget: Number of tuning trials per candidate and problem.
        metric: The reported metric: "test_loss", …
        selected_by: The metric that selected the tuned settings, on other examples and seeds.
        mode: Direction of `metric`.
        select_mode: Direction of `selected_by`.
        complete: False if the comparison was interrupted.
    """

    reports: list[Report]
    searches: dict[tuple[str, str], Search]
    budget: int
    metric: str
    selected_by: str
    mode: Mode
    select_mode: Mode
    complete: bool = field(default=True)

    __repr__, _repr_html_ = displayed(_cards.comparison)
    plot = plotted

    @property
    def problems(self) -> list[str]:
        """Names of the problems, in order."""
        return list(dict.fromkeys(report.problem for report in self.reports))

    @property
    def candidates(self) -> list[str]:
        """Names of the candidates, in order."""
        return list(dict.fromkeys(report.candidate for report in self.reports))

    def of(self, problem: str | None = None, settings: Settings = "tuned") -> dict[str, Report]:
        """Return the reports of a problem, by candidate.

        Args:
            problem: Name of the problem; None takes the only one.
            settings: "default" or "tuned". A candidate with nothing to tune has the same report for both.

        Raises:
            ValueError: If there is no such problem, or None was given and there are several.
        """
        problem = self._known(problem)
        check_choice("A comparison", "settings", settings, get_args(Settings))
        reports = [report for report in self.reports if report.problem == problem]
        at_settings = {report.candidate: report for report in reports if report.settings == settings}
        fixed = {report.candidate: report for report in reports if (problem, report.candidate) not in self.searches}
        both = at_settings | fixed
        return {name: both[name] for name in self.candidates if name in both}

    def median(self, problem: str | None = None, settings: Settings = "tuned") -> dict[str, Interval]:
        """Return every candidate's median score with its confidence interval; diverged seeds score worst."""
        reports = self.of(problem, settings)
        return {name: median_interval(penalised(report.scores, self.mode)) for name, report in reports.items()}

    def ranking(self, problem: str | None = None, settings: Settings = "tuned") -> list[str]:
        """Return the candidates from best to worst median score. For significance see `differences`."""
        medians = {name: float(interval.estimate) for name, interval in self.median(problem, settings).items()}
        return sorted(medians, key=lambda name: sign_of(self.mode) * medians[name])

    def ranks(self, problem: str | None = None, settings: Settings = "tuned", *, level: float = 0.95) -> dict[str, int]:
        """Return every candidate's rank: 1 + the number of candidates that are shown to be better.

        Candidates that cannot be told apart from the best share rank 1, so a rank says no more than the seeds do.

        Args:
            problem: Name of the problem; None takes the only one.
            settings: "default" or "tuned".
            level: Simultaneous level of the paired differences that decide.
        """
        names = list(self.of(problem, settings))
        if len(names) < 2:
            return dict.fromkeys(names, 1)
        better = self.differences(problem, settings, level=level).better
        return {name: 1 + int((better[:, i] > 0).sum()) for i, name in enumerate(names)}

    def differences(
        self, problem: str | None = None, settings: Settings = "tuned", *, level: float = 0.95
    ) -> Differences:
        """Return all differences between candidates, paired over seeds, with a simultaneous level for all verdicts."""
        scores = {name: report.scores for name, report in self.of(problem, settings).items()}
        return paired_differences(scores, mode=self.mode, level=level)

    def verdict(self, problem: str | None = None, settings: Settings = "tuned", *, level: float = 0.95) -> str:
        """Return a sentence that names the best candidate.

        Returns:
            The best candidate and those statistically indistinguishable from it, or "no detectable difference". The
            ranking by median and the paired differences need not agree; the sentence says so if they do not.
        """
        best, *others = self.ranking(problem, settings)
        if not others:
            return f"only {best} was run"
        differences = self.differences(problem, settings, level=level)
        against = dict(zip(differences.names, differences.better[differences.names.index(best)], strict=True))
        beaten, tied, ahead = ([name for name in others if against[name] == sign] for sign in (1, 0, -1))
        if not differences.better.any():
            return "no detectable difference"
        if len(beaten) == len(others):
            return f"{best} is better than all others"
        text = f"{best} has the best median"
        text += f" and is statistically indistinguishable from {', '.join(tied)}" if tied else ""
        text += f"; seed by seed {', '.join(ahead)} is better" if ahead else ""
        return text + (f"; it is better than {', '.join(beaten)}" if beaten else "")

    def steps_to_target(
        self, target: float | None = None, problem: str | None = None, settings: Settings = "tuned"
    ) -> dict[str, Float[np.ndarray, " seeds"]]:
        """Return the number of steps of each seed until the selecting metric reaches a target.

        Args:
            target: In units of the selecting metric. None takes the median of the candidates' final values.
            problem: Name of the problem; None takes the only one.
            settings: "default" or "tuned".

        Returns:
            Steps by candidate, shape (seeds,); ∞ if the target is not reached. Multiply by the report's
            `seconds_per_step` for device seconds.
        """
        reports = self.of(problem, settings)
        curves = {name: report.curves[self.selected_by] for name, report in reports.items()}
        if target is None:
            target = self.target(problem, settings)
        return {
            name: steps_to_target(curve, reports[name].steps, target, mode=self.select_mode)
            for name, curve in curves.items()
        }

    def target(self, problem: str | None = None, settings: Settings = "tuned") -> float:
        """Return the value of the selecting metric that half of the candidates reach: the median of their medians.

        A candidate with half of its seeds diverged has no such value; if this holds for all candidates, none reaches
        the target.
        """
        lasts = [report.curves[self.selected_by][:, -1] for report in self.of(problem, settings).values()]
        middles = np.array([np.median(penalised(last, self.select_mode)) for last in lasts])
        reached = middles[np.isfinite(middles)]
        return float(np.median(reached)) if reached.size else -sign_of(self.select_mode) * float("inf")

    def profile(self, settings: Settings = "tuned") -> Profile:
        """Return the performance profile of the candidates' steps to the target.

        Every pair of problem and seed is a problem of the profile, and the candidates are its solvers; the target is
        that of `target`. A candidate without reports for these settings fails everywhere.
        """
        rows = []
        for problem in self.problems:
            steps = self.steps_to_target(None, problem, settings)
            failed = np.full(len(next(iter(steps.values()))), np.inf)
            rows.append(np.stack([np.maximum(steps.get(name, failed), 1.0) for name in self.candidates], axis=1))
        return performance_profile(np.concatenate(rows))

    def budget_curves(self, problem: str | None = None) -> dict[str, tuple[Integer[np.ndarray, " budgets"], Interval]]:
        """Return the expected result of tuning with fewer trials.

        Returns:
            By candidate, k = 1 … n and the median, over choices of k of the n trials, of the best selecting metric,
            with an interval if the trials allow one. These scores were used for selection, so they are optimistic, more
            so for larger k.
        """
        problem, curves = self._known(problem), {}
        for (where, name), search in self.searches.items():
            if where == problem:
                k = np.arange(1, len(search.configs) + 1)
                curves[name] = k, best_of_k(search.scores, k, mode=search.mode)
        return curves

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a tidy table with a row per problem, candidate, settings and reporting seed."""
        import pandas  # takes a fifth of a second, and only tables need it

        tables = []
        for report in self.reports:
            columns: dict[str, Any] = {
                "problem": report.problem, "candidate": report.candidate, "settings": report.settings,
                "seed": np.arange(len(report.scores)), "score": report.scores, "diverged": report.diverged,
                "stalled": report.stalled,
            }  # fmt: skip
            tables.append(pandas.DataFrame(columns | dict(report.finals)))
        return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()

    def table(self, problem: str | None = None) -> "pandas.DataFrame":
        """Return a row per candidate: medians, intervals and ranks for both settings, and the tuned settings."""
        import pandas  # takes a fifth of a second, and only tables need it

        rows: dict[str, dict[str, Any]] = {name: {"candidate": name} for name in self.of(problem)}
        for settings in ("default", "tuned"):
            medians = self.median(problem, settings)
            ranks = self.ranks(problem, settings)
            for name, interval in medians.items():
                rows[name] |= {
                    settings: interval.estimate,
                    f"{settings}_low": interval.lower,
                    f"{settings}_high": interval.upper,
                    f"{settings}_rank": ranks[name],
                }
        for name, report in self.of(problem, "tuned").items():
            rows[name]["config"] = dict(report.config)
            search = self.searches.get((report.problem, name))
            lost = search is None or np.isnan(search.scores).all()  # all of its trials diverged
            rows[name]["boundary"] = {} if search is None or lost else dict(search.best.boundary)
        return pandas.DataFrame(list(rows.values()))

    def save(self, path: str | Path) -> Path:
        """Write the comparison as a record, a JSON file of data.

        Parameters (`keep_params`) and the functions of the trials are not saved.

        Args:
            path: Name of the file; ".json" is customary.

        Returns:
            The path.

        Raises:
            RecordError: If the file cannot be written, or a hyperparameter is no plain value.
        """
        return _saved.save("comparison", _saved.from_comparison(self), path)

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read a comparison that `save` has written. No code of the file runs.

        Args:
            path: The file.

        Returns:
            The comparison, which cannot `replay` its trials.

        Raises:
            RecordError: If the file holds something else.
        """
        return _saved.load("comparison", path, lambda plain: cls(**_saved.to_comparison(plain, Report, Search)))

    def _known(self, problem: str | None) -> str:
        if problem is None and len(self.problems) == 1:
            return self.problems[0]
        if not isinstance(problem, str) or problem not in self.problems:
            raise ValueError(f"The comparison has the problems {self.problems}; received {describe_argument(problem)}.")
        return problem
