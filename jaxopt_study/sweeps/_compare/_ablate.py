"""Ablation: the contribution of each atom of a chain, measured by removing it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jax.sharding import Mesh

from jaxopt_study._checks import describe_argument
from jaxopt_study._display import displayed, plotted
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import _cards, _saved
from jaxopt_study.sweeps._compare._ablation_variants import Variant, variants_of
from jaxopt_study.sweeps._compare._comparison import Comparison, Report, Settings
from jaxopt_study.sweeps._compare._tune_and_report import CandidateTrials, splits, tune_and_report
from jaxopt_study.sweeps._execution._accepted_names import TRAIN_OPTIONS
from jaxopt_study.sweeps._execution._trials import Trials
from jaxopt_study.sweeps._search._arguments import check_run, common_direction, selection
from jaxopt_study.sweeps._search._result import Search
from jaxopt_study.sweeps._search._samplers import SamplerName
from jaxopt_study.sweeps._search._search import static_names
from jaxopt_study.sweeps._space._space import Space, as_space
from jaxopt_study.sweeps._statistics._intervals import check_level
from jaxopt_study.sweeps._statistics._paired_tests import Difference, paired_difference
from jaxopt_study.sweeps._statistics._scores import sign_of
from jaxopt_study.training import Order
from jaxopt_study.transforms import Transform, from_json, match
from jaxopt_study.types import Key, Mode

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Contribution:
    """The effect of one change to a chain on its score.

    Attributes:
        variant: The changed chain.
        difference: The variant's scores minus those of the full chain, paired over seeds.
        loss: How much worse the variant's score is, in units of the metric, as an estimate with its interval; positive
            if the removed part helps.
        p_value: p-value times the number of variants, at most 1.
        verdict: "helps" or "harms" if the interval excludes 0, otherwise "no detectable difference".
        diverged: Number of seeds of the variant that diverged.
    """

    variant: Variant
    difference: Difference
    loss: tuple[float, float, float]
    p_value: float
    verdict: Literal["helps", "harms", "no detectable difference"]
    diverged: int

    __repr__, _repr_html_ = displayed(_cards.contribution)


@dataclass(frozen=True, eq=False)
class Ablation:
    """The result of an ablation: a chain compared with its variants.

    Attributes:
        variants: The variants, the full chain first.
        comparison: Scores of all variants.
        level: Simultaneous confidence level of all intervals and verdicts (Bonferroni).
    """

    variants: list[Variant]
    comparison: Comparison
    level: float

    __repr__, _repr_html_ = displayed(_cards.ablation)
    plot = plotted

    def contributions(self, settings: Settings | None = None) -> list[Contribution]:
        """Return the effect of each change, in the order of the variants.

        Args:
            settings: "tuned" compares the tuned chains, "default" the chains with their original settings; None takes
                "tuned" if they were tuned.
        """
        chosen: Settings = ("tuned" if self.comparison.budget else "default") if settings is None else settings
        reports = self.comparison.of(None, chosen)
        full = reports[self.variants[0].name]
        sign, mode = sign_of(self.comparison.mode), self.comparison.mode
        each = 1 - (1 - self.level) / max(len(self.variants) - 1, 1)
        pairs = {
            variant: paired_difference(reports[variant.name].scores, full.scores, mode=mode, level=each)
            for variant in self.variants[1:]
        }
        rows = []
        for variant, pair in pairs.items():
            low, high = sorted((sign * pair.lower, sign * pair.upper))
            rows.append(
                Contribution(
                    variant,
                    pair,
                    (sign * pair.estimate, low, high),
                    min(len(pairs) * pair.p_value, 1.0),
                    "helps" if low > 0 else "harms" if high < 0 else "no detectable difference",
                    int(reports[variant.name].diverged.sum()),
                )
            )
        return rows

    def save(self, path: str | Path) -> Path:
        """Write the ablation as a record, a JSON file of data.

        Parameters and the functions of the trials are not saved.

        Args:
            path: Name of the file; ".json" is customary.

        Returns:
            The path.

        Raises:
            RecordError: If the file cannot be written, or a hyperparameter is no plain value.
        """
        return _saved.save("ablation", _written(self), path)

    @classmethod
    def load(cls, path: str | Path) -> "Ablation":
        """Read an ablation that `save` has written. No code of the file runs.

        Args:
            path: The file.

        Returns:
            The ablation, which cannot `replay` its trials.

        Raises:
            RecordError: If the file holds something else.
        """
        return _saved.load("ablation", path, _read)

    def to_pandas(self, settings: Settings | None = None) -> "pandas.DataFrame":
        """Return a table with a row per variant: the change, its effect with interval, and the verdict.

        Args:
            settings: As in `contributions`.
        """
        import pandas  # takes a fifth of a second, and only tables need it

        chosen: Settings = ("tuned" if self.comparison.budget else "default") if settings is None else settings
        medians = self.comparison.median(None, chosen)
        full = self.variants[0].name
        rows: list[dict[str, Any]] = [{"variant": full, "kind": "full", "median": medians[full].estimate}]
        for part in self.contributions(chosen):
            estimate, low, high = part.loss
            rows.append({
                "variant": part.variant.name, "kind": part.variant.kind, "median": medians[part.variant.name].estimate,
                "loss": estimate, "loss_low": low, "loss_high": high, "p_value": part.p_value,
                "verdict": part.verdict, "diverged": part.diverged,
            })  # fmt: skip
        return pandas.DataFrame(rows)


def ablate(
    optimizer: Transform,
    problem: Problem,
    *,
    num_steps: int,
    key: Key,
    num_seeds: int = 10,
    neutral: Mapping[str, float] | None = None,
    space: Space | Mapping[str, Any] | None = None,
    budget: int = 0,
    tune_seeds: int = 1,
    sampler: SamplerName = "random",
    metric: str = "loss",
    select_by: str | None = None,
    mode: Mode | str | None = None,
    select_mode: Mode | str | None = None,
    level: float = 0.95,
    batch_size: int | None = None,
    order: Order = "reshuffle",
    evaluate_every: int | None = None,
    evaluate_batch_size: int | None = None,
    journal: str | Path | None = None,
    mesh: Mesh | None = None,
    width: int | Literal["auto"] = "auto",
    progress: bool | Callable[[int, int, float], None] | None = None,
) -> Ablation:
    """Measure the contribution of each atom by removing it, swapping neighbours or disabling hyperparameters.

    For every seed, each variant of `variants_of` trains from the same start on the same batches as the full chain, and
    the scores are compared in pairs. Variants that differ only in numbers share a compiled program. At fixed settings a
    variant may lose merely because its steps became longer or shorter. With a `space` over the learning rate and a
    `budget`, every variant, including the full chain, is tuned first.

    Args:
        optimizer: A chain of this package, or a named optimizer, which is expanded into its atoms.
        problem: The problem to train on.
        num_steps: T, the number of steps of every run.
        key: Random key of seeds and trials.
        num_seeds: Number of runs of every variant, ≥ 1.
        neutral: Disabled values of hyperparameters, by path or unique suffix of a path in the expanded chain; None
            takes 0 for ε, weight decay and noise.
        space: The space to tune, over paths of the expanded chain that all variants have; None tunes nothing.
        budget: Number of tuning trials per variant, ≥ 0.
        tune_seeds: Number of runs per tuning trial.
        sampler: As in `search`.
        metric: The reported metric, as in `compare`.
        select_by: The metric that selects settings, as in `compare`.
        mode: As in `compare`.
        select_mode: As in `compare`.
        level: Confidence level of the intervals and verdicts.
        batch_size: As in `train`.
        order: As in `train`.
        evaluate_every: As in `train`.
        evaluate_batch_size: As in `train`.
        journal: A folder for finished results, as in `search`.
        mesh: As in `search`.
        width: As in `search`.
        progress: As in `search`.

    Returns:
        The variants and their effects. Cost: (number of variants) · num_seeds · T gradients, and one program to compile
        per structure of the chain; with a budget, also the tuning trials.

    Raises:
        TypeError: If the optimizer is not a `Transform`, or as in `compare`.
        ValueError: If a path matches nothing, there is a budget but no space, or as in `compare`.
        JournalError: As in `search`.
        ComparisonInterrupted: On Ctrl-C.

    Example:
        >>> from jaxopt_study import optimizers, problems, sweeps
        >>> result = sweeps.ablate(
        ...     optimizers.momentum(0.02),
        ...     problems.planar.bowl(),
        ...     num_steps=40,
        ...     key=jax.random.key(0),
        ...     num_seeds=1,
        ... )
        >>> result.contributions()[0].loss[0] > 0.5  # without momentum, progress along the valley is slow
        True

    References:
        Meyes et al. (2019), Ablation studies in artificial neural networks, for the idea and its name.
    """
    check_level("ablate", level)
    check_run(
        "ablate", key=key, mesh=mesh, width=width, journal=journal, progress=progress, sampler=sampler,
        budget=(budget, 0), num_steps=(num_steps, 0),
        evaluate_every=(1 if evaluate_every is None else evaluate_every, 1),
        tune_seeds=(tune_seeds, 1), num_seeds=(num_seeds, 1),
    )  # fmt: skip
    if not isinstance(problem, Problem):
        raise TypeError(f"ablate needs a Problem; received {describe_argument(problem)}.")
    select_by, mode, select_mode = selection("ablate", metric, select_by, mode, select_mode)
    mode = common_direction("ablate", metric, mode, [problem])
    select_mode = common_direction("ablate", select_by, select_mode, [problem])
    variants = variants_of(optimizer, neutral=neutral)
    if space is None and budget:
        raise ValueError(f"ablate needs a space for its budget of {budget} trials; received space=None.")
    space = space if space is None else as_space(space)
    _check_tuned(space, variants[0])
    examples = splits([problem])
    options = {"batch_size": batch_size, "order": order, "evaluate_batch_size": evaluate_batch_size}
    static = () if space is None else static_names(space)
    shared: dict[int, Trials] = {}
    candidates = {}
    for variant in variants:
        trials = shared.setdefault(
            id(variant.optimizer),
            Trials(variant.optimizer, problem, num_steps, evaluate_every, examples.select, (), static, options),
        )
        trials.check_names(space or ())
        candidates[variant.name] = CandidateTrials(trials, space, {}, variant.values)
    comparison = tune_and_report(
        {problem.name: candidates},
        budget=budget,
        key=key,
        tune_seeds=tune_seeds,
        report_seeds=num_seeds,
        sampler=sampler,
        metric=f"{examples.report}_{metric}",
        select_by=f"{examples.select}_{select_by}",
        mode=mode,
        select_mode=select_mode,
        journal=journal,
        mesh=mesh,
        width=width,
        progress=progress,
    )
    return Ablation(variants, comparison, level)


def _check_tuned(space: Space | None, full: Variant) -> None:
    """Raise ValueError if a hyperparameter is both tuned and disabled."""
    paths = list(full.optimizer.hyperparams)
    for name in space or ():
        both = [] if name in TRAIN_OPTIONS else [p for p in match(name, paths, full.optimizer) if p in full.values]
        if both:
            raise ValueError(
                f"{', '.join(both)} cannot be both tuned and disabled. Leave {name!r} out of the space, or list in "
                f"neutral={{…}} only the hyperparameters to disable."
            )


def _written(found: Ablation) -> dict[str, Any]:
    variants = [
        {"name": v.name, "kind": v.kind, "optimizer": v.optimizer.to_json(), "values": v.values} for v in found.variants
    ]
    comparison = _saved.from_comparison(found.comparison)
    return {"variants": variants, "comparison": comparison, "level": found.level}


def _read(plain: Mapping[str, Any]) -> Ablation:
    variants = [
        Variant(
            str(v["name"]), v["kind"], from_json(v["optimizer"]), {str(k): float(x) for k, x in v["values"].items()}
        )
        for v in plain["variants"]
    ]
    comparison = Comparison(**_saved.to_comparison(plain["comparison"], Report, Search))
    return Ablation(variants, comparison, float(plain["level"]))
