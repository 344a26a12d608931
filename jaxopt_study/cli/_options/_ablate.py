"""The options of `jaxopt-study ablate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions


@dataclass(frozen=True, kw_only=True)
class Ablate(NetworkOptions):
    """Measure what each atom of an optimizer contributes: leave it out, swap neighbours, make hyperparameters neutral.

    Every variant trains from the same starts on the same batches as the full chain, and is compared with it seed by
    seed. The intervals of all variants hold together. At fixed settings a variant may lose because its steps became
    longer or shorter, not because of what the atom is for: --budget tunes the learning rate of each variant, the full
    chain included.

    Writes into a folder: record.json (configuration, versions, hash of the data, every chain), contributions.csv (a row
    per variant), scores.csv (a row per variant and seed) and ablation.png. What has finished is kept in journal/: after
    Ctrl-C or a kill the same command with --resume goes on there.

    Example: jaxopt-study ablate "adam(1e-3)"
    """

    optimizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OPTIMIZER")]
    """A name, such as adam; an expression, such as "adam(1e-3)" or "chain(clip_by_global_norm(1.0), sgd(0.1))"; or a
    function of yours without arguments, module:function, that returns a chain of this package."""
    seeds: int = 10
    """Starts of every variant. Of few, intervals assume normal differences."""
    neutral: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=NUMBER")] = ()
    """A hyperparameter and the value at which it does nothing, such as "b1=0", by its path in the expanded chain or the
    end of it. Without any, eps, weight decay and noise at 0."""
    metric: Literal["accuracy", "loss"] = "loss"
    """What is compared, on the test examples."""
    budget: int = 0
    """Trials of the tuning of each variant, chosen by validation loss; 0 compares them at the given settings."""
    tune_seeds: int = 1
    """Starts of each trial."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=RANGE")] = ()
    """What is tuned, as in `jaxopt-study search`. Without any, the learning rate up to 100 times smaller and larger."""

    recorded: ClassVar[tuple[str, ...]] = ("optimizer", "seeds", "neutral", "metric", "budget", "tune_seeds", "space")
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}
