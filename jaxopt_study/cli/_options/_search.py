"""The options of `jaxopt-study search`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from jaxopt_study.cli._options._network import NetworkOptions, shown


@dataclass(frozen=True, kw_only=True)
class Search(NetworkOptions):
    """Search the hyperparameters of an optimizer: trials from a space, every trial and seed in one compiled program.

    Prints the best trial with its interval, how many others cannot be told from it, whether it lies at an end of the
    space, and how many diverged. It chooses by the validation examples and never looks at those for testing: to report
    the chosen settings, or to compare optimizers, use `jaxopt-study compare`.

    Writes into a folder: record.json (configuration, versions, hash of the data, the best), trials.csv (a row per trial
    and seed), curves.csv (a row per evaluation), best-of-k.png (what fewer trials would have found),
    hyperparameters.png (the region in which the best may lie), parallel.png (the same for all hyperparameters at once),
    top-loss.png and top-accuracy.png (the 20 best trials). What has finished is kept in journal/: after Ctrl-C or a
    kill the same command with --resume goes on there, and ends with the same numbers.

    Example: jaxopt-study search adam --space "learning_rate=log(1e-4, 1)" --space "b1=uniform(0.5, 0.99)"
    """

    optimizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OPTIMIZER")]
    """A name, such as adam or optax.adam, of which any argument may be searched; an expression, such as
    "chain(clip_by_global_norm(1.0), adam(1e-3))", of which numbers may, by their paths; or a function of yours,
    module:function."""
    space: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=RANGE")] = ()
    """A dimension: "NAME=log(low, high)", "NAME=uniform(low, high)", "NAME=int(low, high)" or "NAME=choices(one,
    another)"; with " if OTHER=VALUE" it exists only there. NAME is an argument of the optimizer; batch_size or order;
    or, of the network, label_smoothing, weight_decay, width, depth, activation, initialiser, normalisation or dropout.
    Without any, the learning rate over five decades."""
    trials: int = 100
    """Number of configurations."""
    seeds: int = 1
    """Starts of each. With one, differences of chance between trials remain unseen."""
    sampler: Literal["random", "grid", "sobol"] = "random"
    """How configurations are drawn."""
    halve_from: Annotated[int | None, shown("INT", "")] = None
    """Give every trial so many steps, the best third of them three times as many, and so on up to --steps."""
    metric: Literal["accuracy", "loss"] = "accuracy"
    """What is optimised, on the validation examples."""

    recorded: ClassVar[tuple[str, ...]] = ("optimizer", "trials", "seeds", "sampler", "halve_from", "metric")
    counts: ClassVar[Mapping[str, int]] = {**NetworkOptions.counts, "trials": 1, "seeds": 1}
