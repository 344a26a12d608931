"""Options of `jaxopt-study search`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions, shown


@dataclass(frozen=True, kw_only=True)
class Search(NetworkOptions):
    """Search the hyperparameters of an optimizer, with all trials and seeds in one compiled program.

    Prints the best trial with its interval, the number of trials that are statistically indistinguishable from it, a
    warning if it lies at an end of the space, and the number of trials that diverged. Trials are selected on the
    validation examples; the test examples are not used. To report the selected settings, or to compare optimizers, use
    `jaxopt-study compare`.

    Output folder: record.json (configuration, versions, hash of the data, the best trial), trials.csv (a row per trial
    and seed), curves.csv (a row per evaluation), best-of-k.png (expected results of fewer trials),
    hyperparameters.png (scores by hyperparameter, with the trials that may be the best), parallel.png (the same for all
    hyperparameters at once), top-loss.png and top-accuracy.png (the 20 best trials). Finished trials are kept in
    journal/: after Ctrl-C or a kill, the same command with --resume continues from there, and ends with the same
    numbers.

    Example: jaxopt-study search adam --space "learning_rate=log(1e-4, 1)" --space "b1=uniform(0.5, 0.99)"
    """

    optimizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OPTIMIZER")]
    """A name, such as adam or optax.adam, whose arguments can be searched; an expression, such as
    "chain(clip_by_global_norm(1.0), adam(1e-3))", whose numbers can be searched, by their paths; or module:function,
    your own function of hyperparameters."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=RANGE")] = ()
    """A dimension: "NAME=log(low, high)", "NAME=uniform(low, high)", "NAME=int(low, high)" or "NAME=choices(one,
    another)"; with " if OTHER=VALUE" it applies only to that value. NAME is a hyperparameter of the optimizer;
    batch_size or order; or, of the network, label_smoothing, weight_decay, width, depth, activation, initialiser,
    normalisation or dropout. Default: the learning rate, over the range that the optimizer declares, or 1e-5 to 10."""
    trials: int = 100
    """Number of trials."""
    seeds: int = 1
    """Runs of each trial, from different starts. With one run, the noise between seeds is unknown."""
    sampler: Literal["random", "grid", "sobol"] = "random"
    """Method that draws the trials."""
    halve_from: Annotated[int | None, shown("INT", "")] = None
    """Successive halving: give every trial this number of steps, then the best third three times as many, and so on up
    to --steps."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """Metric to optimise, on the validation examples."""

    recorded: ClassVar[tuple[str, ...]] = ("optimizer", "trials", "seeds", "sampler", "halve_from", "metric")
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "trials": 1, "seeds": 1}
