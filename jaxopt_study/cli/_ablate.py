"""The command `jaxopt-study ablate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxopt_study import sweeps
from jaxopt_study.cli import _ablate_report
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import read_optimizer, short_name
from jaxopt_study.cli._folders import choose_folder, results_folder
from jaxopt_study.cli._network import described, load_data, network_problem, network_settings
from jaxopt_study.cli._options import Ablate
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.cli._runner import Job, interrupted, user_errors
from jaxopt_study.cli._spaces import read_space
from jaxopt_study.problems import Problem
from jaxopt_study.sweeps import Space, variants_of
from jaxopt_study.transforms import Transform

REACH = 100.0  # largest ratio of the tuned to the given learning rate, and of the given to the tuned one


def ablate(options: Ablate, job: Job) -> int:
    """Run every variant; print, draw and save the results.

    Returns:
        The exit code.

    Raises:
        UserError: If an option cannot be used.
    """
    settings = network_settings(options)
    optimizer = read_optimizer(options.optimizer)
    if not isinstance(optimizer, Transform):
        raise UserError(
            f"{options.optimizer!r} is a bare Optax transformation, whose atoms are unknown. Give a named optimizer or "
            "a chain of atoms of this package."
        )
    neutral = _neutral(options.neutral)
    try:
        variants = variants_of(optimizer, neutral=neutral)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    if len(variants) < 2:
        raise UserError(
            f"{options.optimizer!r} is {optimizer.expand()!r}, from which nothing can be removed. Give an optimizer "
            "with more atoms, such as momentum(0.1)."
        )
    space = _space(options, optimizer) if options.budget else None
    dataset = load_data(options)
    name = short_name(options.optimizer)
    folder = choose_folder(options.out, "ablate", name, resume=options.resume)
    problem = network_problem(settings, dataset)
    with results_folder(folder):
        ablation = _run(options, settings, optimizer, problem, neutral, space, folder)
    if ablation is None:
        return interrupted(folder)
    record = job.record(name, settings, _ablate_report.summary(ablation), dataset)
    files = _ablate_report.write(record, ablation, folder, title=f"{options.optimizer} on {described(settings)}")
    _ablate_report.show(job, record, ablation, files, folder, share=problem.is_proportion(options.metric))
    return 0


def _run(
    options: Ablate,
    settings: Mapping[str, Any],
    optimizer: Transform,
    problem: Problem,
    neutral: Mapping[str, float] | None,
    space: Space | None,
    folder: Path,
) -> sweeps.Ablation | None:
    """Return the ablation; None after an interrupt."""
    try:
        with user_errors(), JobBar() as bar:
            return sweeps.ablate(
                optimizer,
                problem,
                num_steps=settings["steps"],
                key=jax.random.key(options.seed),
                num_seeds=options.seeds,
                neutral=neutral,
                space=space,
                budget=options.budget,
                tune_seeds=options.tune_seeds,
                metric=options.metric,
                select_by="loss",
                batch_size=settings["batch_size"],
                evaluate_every=settings["evaluate_every"],
                journal=folder / "journal",
                progress=bar.sweep(options.data, "validation loss", ("running", 0)),
            )
    except sweeps.ComparisonInterrupted:
        return None


def _neutral(texts: tuple[str, ...]) -> dict[str, float] | None:
    values = {}
    for text in texts:
        path, _, value = text.partition("=")
        try:
            values[path.strip()] = float(value)
        except ValueError:
            raise UserError(f'--neutral "{text}": expected NAME=NUMBER, such as "eps=0".') from None
    return values or None


def _space(options: Ablate, optimizer: Transform) -> Space:
    if options.space:
        return read_space(options.space)
    paths = optimizer.expand().hyperparams
    rates = {path: value for path, value in paths.items() if path.rpartition(".")[2] == "learning_rate"}
    if len(rates) != 1 or not isinstance(next(iter(rates.values())), float | int):
        raise UserError(
            f"--budget tunes one learning rate, but {options.optimizer!r} has {len(rates)}. Name the "
            f'hyperparameter to tune by its path, such as --space "learning_rate=log(1e-4, 1)"; the paths are '
            f"{', '.join(paths)}."
        )
    (rate,) = rates.values()
    return Space({"learning_rate": sweeps.log_uniform(rate / REACH, rate * REACH)})
