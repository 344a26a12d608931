"""The command `jaxopt-study search`."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxopt_study import records, sweeps
from jaxopt_study.cli import _search_report
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import read_maker, short_name
from jaxopt_study.cli._folders import choose_folder, results_folder
from jaxopt_study.cli._network import described, load_data, network_problem, network_settings
from jaxopt_study.cli._options import Search
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.cli._runner import Job, interrupted
from jaxopt_study.cli._spaces import default_space, read_space
from jaxopt_study.problems import Problem
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.sweeps import Space
from jaxopt_study.transforms import Transform

OF_NETWORK = (
    "label_smoothing", "weight_decay", "width", "depth", "activation", "initialiser", "normalisation", "dropout",
)  # fmt: skip


def search(options: Search, job: Job) -> int:
    """Run every trial; print, draw and save the results.

    Returns:
        The exit code.

    Raises:
        UserError: If an option cannot be used.
    """
    settings = network_settings(options)
    maker = read_maker(options.optimizer)
    space = _space(options, maker)
    dataset = load_data(options)
    name = short_name(options.optimizer)
    folder = choose_folder(options.out, "search", name, resume=options.resume)
    network = network_problem(settings, dataset)
    problem = _problem(space, maker, settings, dataset) or network
    with results_folder(folder):
        search, status = _run(options, settings, maker, space, problem, folder)
    proportion = network.is_proportion(options.metric)
    num_examples = len(jax.tree.leaves(dataset.validation)[0]) if proportion else None
    record = job.record(
        name,
        settings | {"space": space.describe()},
        _search_report.summary(search, num_examples),
        dataset,
        status,
    )
    files = _search_report.write(record, search, folder)
    if status == "interrupted":
        done = int(search.finished.all(axis=1).sum())
        return interrupted(folder, f"{done} of {options.trials} trials have finished and are kept")
    pictures = _search_report.draw(search, folder, num_examples, title=f"{name} on {described(settings)}")
    _search_report.show(job, record, search, [*pictures, *files], folder, share=proportion)
    return 0 if record.results["best"] else 1


def _run(
    options: Search, settings: Mapping[str, Any], maker: Any, space: Space, problem: Any, folder: Path
) -> tuple[sweeps.Search, records.Status]:
    try:
        with JobBar() as bar:
            runs = ("searching", options.trials * options.seeds)
            search = sweeps.search(
                maker,
                space,
                problem,
                num_trials=options.trials,
                num_steps=settings["steps"],
                key=jax.random.key(options.seed),
                num_seeds=options.seeds,
                sampler=options.sampler,
                halving=None if options.halve_from is None else sweeps.Halving(options.halve_from),
                metric=f"validation_{options.metric}",
                batch_size=settings["batch_size"],
                evaluate_every=settings["evaluate_every"],
                journal=folder / "journal",
                progress=bar.sweep(options.data, f"validation {options.metric}", runs),
            )
    except sweeps.SearchInterrupted as interrupt:
        return interrupt.search, "interrupted"
    except (TypeError, ValueError) as error:  # of the space, or the journal
        raise UserError(str(error)) from error
    except Exception as error:
        if ":" not in options.optimizer:
            raise
        raise UserError(f"{options.optimizer} fails with {type(error).__name__}: {error}") from error
    return search, "complete"


def _space(options: Search, maker: Any) -> Space:
    if options.space:
        space = read_space(options.space)
    else:
        space = default_space(maker)
        if space is None:
            raise UserError(
                f"{options.optimizer!r} does not have exactly one learning_rate. Name the hyperparameters to "
                "search with --space."
            )
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
                f"{options.optimizer!r} needs {', '.join(missing)}: give a range with --space, or write its value, as "
                f'in "{options.optimizer}({missing[0]}=0.1)".'
            )
    return space


def _problem(space: Space, maker: Any, settings: Mapping[str, Any], dataset: Dataset) -> Callable[..., Problem] | None:
    """Return the problem as a function of the network's hyperparameters in the space; None if there are none."""
    takes = maker.hyperparams if isinstance(maker, Transform) else inspect.signature(maker).parameters
    accepted = [name for name in space if name in OF_NETWORK and name not in takes]
    if not accepted:
        return None

    def problem(**chosen: Any) -> Problem:
        return network_problem(settings, dataset, **chosen)

    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([inspect.Parameter(name, keyword, default=None) for name in accepted])
    problem.__signature__ = signature  # by which a search finds the names that it accepts
    return problem
