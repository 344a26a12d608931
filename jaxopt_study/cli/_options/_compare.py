"""The options of `jaxopt-study compare`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions, shown


@dataclass(frozen=True, kw_only=True)
class Compare(NetworkOptions):
    """Compare the notes' optimizers on a network on real data, untuned and tuned, and race them on x²/20 + y².

    SGD, momentum, Nesterov, AdaGrad, AdaDelta, RMSprop and Adam. On the network each runs at the notes' settings, and
    tuned: the best of --budget trials of its learning rate by validation loss, drawn log-uniformly from five decades
    (1e-4 to 10; RMSprop and Adam 1e-5 to 1; AdaDelta, which has none, a factor on its step of .01 to 1000). Reports
    come from other seeds than those that tuned, seed by seed from the same start on the same batches, and the test
    examples are seen once. Both rankings are printed with 95% intervals, with who can be told apart, and with tuned
    values at an end of their range. --budget 0 runs the notes' settings only. The contour problem is not tuned.

    Writes into a folder: record.json (configuration, versions, hash of the data, every chain), scores.csv (a row per
    optimizer, settings and seed), curves.csv (a row per step and metric), trials.csv (the trials of the tuning),
    comparison.png (both rankings), differences.png, budget.png (what fewer trials would have found), loss.png,
    accuracy.png, trajectories.png, trajectories-together.png and race.gif. What has finished is kept as it comes;
    Ctrl-C keeps it, and --resume goes on from there.
    """

    optimizer: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MODULE:FUNCTION")] = ()
    """Your own optimizer beside the others: module:function, returning any Optax transformation. If the function has an
    argument learning_rate it is tuned, from 1e-5 to 10 or as --space says; otherwise it takes none, and runs as it is.
    Without a default of that argument it is reported tuned only, and is not in the contour race."""
    only: Annotated[tuple[str, ...], shown("NAME [NAME ...]", "all")] = ()
    """Names of the notes' optimizers to run."""
    budget: int = 10
    """Trials of the tuning of each optimizer; 0 tunes nothing."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTIMIZER.NAME=RANGE")] = ()
    """What is tuned of an optimizer in place of the range above, such as "adam.learning_rate=log(1e-4, 1)" and
    "adam.b1=uniform(0.5, 0.99)"; the ranges are those of `jaxopt-study search`."""
    tune_seeds: int = 1
    """Starts of each trial."""
    seeds: int = 10
    """Starts of each report, which are others. The contour problem has one start."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """What is reported of the test examples, and ranked."""
    probe: Annotated[Literal["curvature"] | None, shown("{curvature}", "none")] = None
    """Measure sharpness, its ratio to the optimizer's stability limit, and what each step was expected to do, ten times
    along every reported run at the tuned settings (the notes' with --budget 0), on all training examples. Adds
    curvature.png."""

    recorded: ClassVar[tuple[str, ...]] = (
        "only", "optimizer", "budget", "space", "tune_seeds", "seeds", "metric", "probe",
    )  # fmt: skip
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}
