"""`jaxopt-study ablate`: what can be asked for, and in which order it is done."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import tyro
from rich.console import Console

from jaxopt_study import records, sweeps
from jaxopt_study.cli import ablate_report
from jaxopt_study.cli.expressions import UserError, read_optimizer
from jaxopt_study.cli.folders import choose_folder, results_folder
from jaxopt_study.cli.network import OnNetwork, described, load_data, network_problem
from jaxopt_study.cli.progress import JobBar
from jaxopt_study.cli.spaces import read_space
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import Space, variants_of
from jaxopt_study.transforms import Transform

REACH = 100.0  # by which factor the tuned learning rate may be smaller or larger than the given one


@dataclass(frozen=True, kw_only=True)
class Ablate(OnNetwork):
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

    counts: ClassVar[Mapping[str, int]] = {**OnNetwork.counts, "seeds": 1, "tune_seeds": 1, "budget": 0}

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers of every run.

        Returns:
            Plain values by name.
        """
        own = ("optimizer", "seeds", "neutral", "metric", "budget", "tune_seeds", "space")
        return super().settings() | records.plain({name: getattr(self, name) for name in own})

    def run(self, console: Console) -> int:
        """Do it.

        Args:
            console: Where the table goes.

        Returns:
            The exit code.
        """
        return ablate(self, console)


def ablate(config: Ablate, console: Console) -> int:
    """Run every variant, and draw, print and save what came out.

    Args:
        config: What was asked for.
        console: Where the table goes; progress goes to standard error.

    Returns:
        The exit code.

    Raises:
        UserError: If something asked for cannot be done.
    """
    began = time.perf_counter()
    settings = config.settings()
    optimizer = read_optimizer(config.optimizer)
    if not isinstance(optimizer, Transform):
        raise UserError(f"{config.optimizer!r} is a bare Optax transformation, which cannot be taken apart.")
    neutral = _neutral(config.neutral)
    try:
        variants = variants_of(optimizer, neutral=neutral)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    if len(variants) < 2:
        raise UserError(f"Nothing can be left out of {config.optimizer!r}, which is {optimizer.expand()!r}.")
    space = _space(config, optimizer) if config.budget else None
    dataset = load_data(config)
    name = config.optimizer.partition("(")[0].rpartition(":")[2] or "optimizer"
    folder = choose_folder(config.out, "ablate", name, resume=config.resume)
    problem = network_problem(settings, dataset)
    with results_folder(folder):
        found = _run(config, settings, optimizer, problem, neutral, space, folder)
    if found is None:
        return 130
    record = records.Record(
        "ablate",
        name,
        config=settings,
        results=ablate_report.summary(found) | {"seconds": time.perf_counter() - began, "data_source": dataset.source},
        data_hash=dataset.sha256,
    )
    files = ablate_report.write(record, found, folder, title=f"{config.optimizer} on {described(settings)}")
    ablate_report.show(console, record, found, files, folder)
    return 0


def _run(
    config: Ablate,
    settings: Mapping[str, Any],
    optimizer: Transform,
    problem: Problem,
    neutral: Mapping[str, float] | None,
    space: Space | None,
    folder: Path,
) -> sweeps.Ablation | None:
    """Return what came of the variants; None after an interrupt."""
    try:
        with JobBar() as bar:
            return sweeps.ablate(
                optimizer,
                problem,
                num_steps=settings["steps"],
                key=jax.random.key(config.seed),
                num_seeds=config.seeds,
                neutral=neutral,
                space=space,
                budget=config.budget,
                tune_seeds=config.tune_seeds,
                metric=config.metric,
                select_by="loss",
                batch_size=settings["batch_size"],
                evaluate_every=settings["evaluate_every"],
                journal=folder / "journal",
                progress=bar.sweep(config.data, "validation loss", ("running", 0)),
            )
    except sweeps.ComparisonInterrupted:
        message = f"Interrupted. What had finished is kept in {folder}; go on with the same arguments and "
        Console(stderr=True).print(f"{message}--out {folder} --resume.", markup=False, highlight=False, soft_wrap=True)
        return None
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error


def _neutral(texts: tuple[str, ...]) -> dict[str, float] | None:
    found = {}
    for text in texts:
        path, _, value = text.partition("=")
        try:
            found[path.strip()] = float(value)
        except ValueError:
            raise UserError(f'--neutral "{text}": expected NAME=NUMBER, such as "eps=0".') from None
    return found or None


def _space(config: Ablate, optimizer: Transform) -> Space:
    if config.space:
        return read_space(config.space)
    paths = optimizer.expand().hyperparams
    rates = {path: value for path, value in paths.items() if path.rpartition(".")[2] == "learning_rate"}
    if len(rates) != 1 or not isinstance(next(iter(rates.values())), float | int):
        raise UserError(
            f"--budget tunes the learning rate, of which {config.optimizer!r} has {len(rates)}. Name what is to be "
            f'tuned with --space, by its path, such as "learning_rate=log(1e-4, 1)"; paths are {", ".join(paths)}.'
        )
    (rate,) = rates.values()
    return Space({"learning_rate": sweeps.log_uniform(rate / REACH, rate * REACH)})
