"""Result of an ablation: the contribution of each change, with its interval and verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxopt_study._display import displayed, plotted
from jaxopt_study.sweeps import _cards, _saved
from jaxopt_study.sweeps._compare._ablation_variants import Variant
from jaxopt_study.sweeps._compare._comparison import Comparison
from jaxopt_study.sweeps._compare._report import Report, Settings
from jaxopt_study.sweeps._search._result import Search
from jaxopt_study.sweeps._statistics._paired_tests import Difference, paired_difference
from jaxopt_study.sweeps._statistics._scores import sign_of
from jaxopt_study.transforms import from_json

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
