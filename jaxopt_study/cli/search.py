"""`jaxopt-study search`: what can be asked for, and in which order it is done."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import tyro
from rich.console import Console

from jaxopt_study import records, sweeps
from jaxopt_study.cli import search_report
from jaxopt_study.cli.contestants import default_space
from jaxopt_study.cli.expressions import UserError, read_maker
from jaxopt_study.cli.folders import choose_folder, results_folder
from jaxopt_study.cli.network import OnNetwork, described, load_data, network_problem, shown
from jaxopt_study.cli.progress import JobBar
from jaxopt_study.cli.spaces import read_space
from jaxopt_study.problems import Problem
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.sweeps import Space
from jaxopt_study.transforms import Transform

OF_NETWORK = (
    "label_smoothing", "weight_decay", "width", "depth", "activation", "initialiser", "normalisation", "dropout",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Search(OnNetwork):
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

    counts: ClassVar[Mapping[str, int]] = {**OnNetwork.counts, "trials": 1, "seeds": 1}

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers of every run.

        Returns:
            Plain values by name.
        """
        own = ("optimizer", "trials", "seeds", "sampler", "halve_from", "metric")
        return super().settings() | {name: getattr(self, name) for name in own}

    def run(self, console: Console) -> int:
        """Do it.

        Args:
            console: Where the table goes.

        Returns:
            The exit code.
        """
        return search(self, console)


def search(config: Search, console: Console) -> int:
    """Run every trial, and draw, print and save what came out.

    Args:
        config: What was asked for.
        console: Where the result goes; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
    """
    began = time.perf_counter()
    settings = config.settings()
    maker = read_maker(config.optimizer)
    space = _space(config, maker)
    dataset = load_data(config)
    name = config.optimizer.partition("(")[0].rpartition(":")[2] or "optimizer"
    folder = choose_folder(config.out, "search", name, resume=config.resume)
    problem = _problem(space, maker, settings, dataset)
    with results_folder(folder):
        found, status = _run(config, settings, maker, space, problem, folder)
    num_examples = len(jax.tree.leaves(dataset.validation)[0]) if config.metric == "accuracy" else None
    record = records.Record(
        "search",
        name,
        config=settings | {"space": space.describe()},
        results=search_report.summary(found, num_examples)
        | {"seconds": time.perf_counter() - began, "data_source": dataset.source},
        data_hash=dataset.sha256,
        status=status,
    )
    files = search_report.write(record, found, folder)
    if status == "interrupted":
        done = int(found.finished.all(axis=1).sum())
        message = (
            f"Interrupted. {done} of {config.trials} trials had finished and are kept in {folder}; go on with the same "
            f"arguments and --out {folder} --resume."
        )
        Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        return 130
    pictures = search_report.draw(found, folder, num_examples, title=f"{name} on {described(settings)}")
    search_report.show(console, record, found, [*pictures, *files], folder)
    return 0 if record.results["best"] else 1


def _run(
    config: Search, settings: Mapping[str, Any], maker: Any, space: Space, problem: Any, folder: Path
) -> tuple[sweeps.Search, records.Status]:
    try:
        with JobBar() as bar:
            runs = ("searching", config.trials * config.seeds)
            found = sweeps.search(
                maker,
                space,
                problem,
                num_trials=config.trials,
                num_steps=settings["steps"],
                key=jax.random.key(config.seed),
                num_seeds=config.seeds,
                sampler=config.sampler,
                halving=None if config.halve_from is None else sweeps.Halving(config.halve_from),
                metric=f"validation_{config.metric}",
                batch_size=settings["batch_size"],
                evaluate_every=settings["evaluate_every"],
                journal=folder / "journal",
                progress=bar.sweep(config.data, f"validation {config.metric}", runs),
            )
    except sweeps.SearchInterrupted as interrupt:
        return interrupt.search, "interrupted"
    except (TypeError, ValueError) as error:  # of the space, or the journal
        raise UserError(str(error)) from error
    except Exception as error:
        if ":" not in config.optimizer:
            raise
        raise UserError(f"{config.optimizer} fails with {type(error).__name__}: {error}") from error
    return found, "complete"


def _space(config: Search, maker: Any) -> Space:
    if config.space:
        space = read_space(config.space)
    else:
        space = default_space(config.optimizer, maker)
        if space is None:
            raise UserError(f"{config.optimizer!r} has not one learning_rate: name what to search with --space.")
    if not isinstance(maker, Transform):
        parameters = inspect.signature(maker).parameters.values()
        needed = [
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        if missing := [name for name in needed if name not in space]:
            raise UserError(
                f"{config.optimizer!r} needs {', '.join(missing)}: give a range with --space, or write its value, as "
                f'in "{config.optimizer}({missing[0]}=0.1)".'
            )
    return space


def _problem(
    space: Space, maker: Any, settings: Mapping[str, Any], dataset: Dataset
) -> Problem | Callable[..., Problem]:
    """Return the problem, as a function of those hyperparameters in the space that are the network's."""
    takes = maker.hyperparams if isinstance(maker, Transform) else inspect.signature(maker).parameters
    wanted = [name for name in space if name in OF_NETWORK and name not in takes]
    fixed = network_problem(settings, dataset)
    if not wanted:
        return fixed

    def problem(**chosen: Any) -> Problem:
        return network_problem(settings, dataset, **chosen)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([inspect.Parameter(name, keyword, default=None) for name in wanted])
    problem.__signature__ = signature  # by which a search knows whose a name is
    return problem
