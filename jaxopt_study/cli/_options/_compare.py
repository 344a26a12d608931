"""Options of `jaxopt-study compare`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions, shown


@dataclass(frozen=True, kw_only=True)
class Compare(NetworkOptions):
    """Compare the optimizers of Saito (2016) on a network, with default and tuned settings, and on x²/20 + y².

    The optimizers are SGD, momentum, Nesterov, AdaGrad, AdaDelta, RMSprop and Adam. On the network each runs with the
    settings of Saito (2016), and tuned: with the best of --budget learning rates by validation loss, drawn
    log-uniformly from five decades (1e-4 to 10; RMSprop and Adam 1e-5 to 1; for AdaDelta, which has no learning rate, a
    factor of .01 to 1000 on its step). The reported runs use other seeds than the tuning, and seed by seed the same
    start and batches for every optimizer; the test examples are evaluated once, at the end. Both rankings are printed
    with 95% intervals, the statistically distinguishable optimizers, and warnings about tuned values at an end of their
    range. --budget 0 runs the settings of Saito (2016) only. On x²/20 + y² nothing is tuned.

    Output folder: record.json (configuration, versions, hash of the data, every chain), scores.csv (a row per
    optimizer, settings and seed), curves.csv (a row per step and metric), trials.csv (the tuning trials),
    comparison.png (both rankings), differences.png, budget.png (expected results of fewer trials), loss.png,
    accuracy.png, trajectories.png, trajectories-together.png and race.gif. Finished runs are kept: after Ctrl-C or a
    kill, the same command with --resume continues from there.

    Example: jaxopt-study compare --budget 16 --out results/digits
    """

    optimizer: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODULE:FUNCTION")] = ()
    """Your own optimizer: module:function, where the function returns any Optax transformation. If it has an argument
    learning_rate, that is tuned, from 1e-5 to 10 or as --space says; otherwise it must need no arguments, and is not
    tuned. If the argument has no default, only the tuned optimizer is reported, and nothing on x²/20 + y²."""
    only: Annotated[tuple[str, ...], shown("NAME [NAME ...]", "all")] = ()
    """Names of the optimizers of Saito (2016) to run."""
    budget: int = 10
    """Tuning trials of each optimizer; 0 tunes nothing."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTIMIZER.NAME=RANGE")] = ()
    """A dimension to tune of an optimizer, instead of the range above, such as "adam.learning_rate=log(1e-4, 1)" or
    "adam.b1=uniform(0.5, 0.99)"; written as in `jaxopt-study search`."""
    tune_seeds: int = 1
    """Runs of each tuning trial."""
    seeds: int = 10
    """Reported runs of each optimizer and settings, from other starts. x²/20 + y² has one start."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """Metric to report and rank, on the test examples."""
    probe: Annotated[Literal["curvature"] | None, shown("{curvature}", "none")] = None
    """Measure the sharpness, its ratio to the optimizer's stability limit, and the predicted and actual decrease of the
    loss, ten times along every reported run with tuned settings (with --budget 0, those of Saito, 2016), on all
    training examples. Adds curvature.png."""

    recorded: ClassVar[tuple[str, ...]] = (
        "only", "optimizer", "budget", "space", "tune_seeds", "seeds", "metric", "probe",
    )  # fmt: skip
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}
