"""Options of `jaxopt-study ablate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions


@dataclass(frozen=True, kw_only=True)
class Ablate(NetworkOptions):
    """Measure the contribution of each atom of an optimizer: remove it, swap neighbours, disable hyperparameters.

    Every variant trains from the same starts on the same batches as the full chain, and is compared with it seed by
    seed. The 95% intervals hold simultaneously for all variants. At fixed settings a variant may lose merely because
    its steps became longer or shorter: --budget tunes the learning rate of each variant, including the full chain.

    Output folder: record.json (configuration, versions, hash of the data, every chain), contributions.csv (a row per
    variant), scores.csv (a row per variant and seed) and ablation.png. Finished runs are kept in journal/: after Ctrl-C
    or a kill, the same command with --resume continues from there.

    Example: jaxopt-study ablate "adam(1e-3)"
    """

    optimizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OPTIMIZER")]
    """A name, such as adam; an expression, such as "adam(1e-3)" or "chain(clip_by_global_norm(1.0), sgd(0.1))"; or
    module:function, your own function without arguments that returns a chain of this package."""
    seeds: int = 10
    """Runs of every variant, from different starts. With fewer than six, intervals assume normal differences."""
    neutral: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=NUMBER")] = ()
    """A hyperparameter and the value that disables it, such as "b1=0", by its path in the expanded chain or the end of
    the path. Default: 0 for eps, weight decay and noise."""
    metric: Literal["accuracy", "loss"] = "loss"
    """Metric to compare, on the test examples."""
    budget: int = 0
    """Tuning trials of each variant, selected by validation loss; 0 compares at the given settings."""
    tune_seeds: int = 1
    """Runs of each tuning trial."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=RANGE")] = ()
    """A dimension to tune, as in `jaxopt-study search`. Default: the learning rate, up to 100 times smaller or
    larger."""

    recorded: ClassVar[tuple[str, ...]] = ("optimizer", "seeds", "neutral", "metric", "budget", "tune_seeds", "space")
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}
