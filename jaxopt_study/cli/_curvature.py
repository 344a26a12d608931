"""The command `jaxopt-study curvature`."""

import time
from dataclasses import asdict
from typing import Any

from jaxopt_study import records
from jaxopt_study.cli._curvature_report import draw, show
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._folders import choose_folder, make_folder
from jaxopt_study.cli._options import Curvature
from jaxopt_study.cli._progress import JobBar, waiting
from jaxopt_study.cli._runner import INTERRUPTED, Job, complain
from jaxopt_study.cli._target import content_hash
from jaxopt_study.cli._targets import find_target
from jaxopt_study.examination import STAGES, Choices, Subject, eigenvalue_rows


def diagnose(options: Curvature, job: Job) -> int:
    """Run every stage, save each result when it is there, print and draw them all.

    Returns:
        The exit code.

    Raises:
        UserError: If an option cannot be used.
    """
    choices = _choices(options)
    choose_folder(options.out, "curvature", "target")  # before anything takes time
    target = find_target(
        options.target, options.optimizer, options.start, settings=options.settings, data_dir=options.data_dir,
        download=options.download,
    )  # fmt: skip
    folder = choose_folder(options.out, "curvature", target.name)
    try:
        subject = Subject(target.loss, target.params, target.data, target.optimizer, target.opt_state, choices)
    except Exception as error:  # a user's loss may raise anything
        raise UserError(f"{options.target} cannot be diagnosed: {type(error).__name__}: {error}") from error
    make_folder(folder)
    stages = {name: stage for name, stage in STAGES.items() if stage.applies(subject)}
    results: dict[str, Any] = {}
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    params_hash = content_hash(target.params)

    def keep(status: records.Status) -> records.Record:
        record = records.Record(
            "curvature",
            target.name,
            config={**target.described, **asdict(subject.choices), "precision": subject.op.precision},
            results={
                **results,
                "optimizer": target.expression,
                "size": subject.op.size,
                "params_sha256": params_hash,
                "seconds": seconds,
                "errors": errors,
            },
            data_hash=target.data_hash,
            status=status,
        )
        records.save(record, folder / "record.json")
        records.write_csv(folder / "eigenvalues.csv", *eigenvalue_rows(results))
        return record

    try:
        with JobBar() as bar:
            for name, stage in stages.items():
                bar.move(stage.title, len(seconds), len(stages), f"{_products(results)} products")
                began = time.perf_counter()
                try:
                    results[name] = records.plain(waiting(lambda run=stage.run: run(subject, results)))
                except Exception as error:
                    errors[name] = f"{type(error).__name__}: {error}"
                seconds[name] = time.perf_counter() - began
                ending = "failed" if name in errors else f"{results[name]['num_matvecs']} products"
                bar.line(f"{stage.title}: {seconds[name]:.1f} s, {ending}")
                keep("interrupted")  # until all are done
                if _hopeless(results, errors):
                    break
            pictures = draw(results, target, folder)
    except KeyboardInterrupt:
        keep("interrupted")
        complain(f"Interrupted. The results of {len(seconds)} of {len(stages)} stages are kept in {folder}.")
        return INTERRUPTED
    unsound = results.get("audit", {}).get("verdict") == "unsound"
    record = keep("failed" if errors or unsound else "complete")
    show(job, record, target, [*pictures, "eigenvalues.csv", "record.json"], folder)
    if target.note:
        complain(target.note, "yellow")
    _complain_of(results, errors)
    return 1 if errors or unsound else 0


def _choices(options: Curvature) -> Choices:
    """Return the cost and accuracy options, checked."""
    least = {"num_eigenpairs": 2, "num_probes": 2, "num_steps": 1, "trace_probes": 2, "batch_size": 1}
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise UserError(f"--{name.replace('_', '-')} must be at least {smallest}; received {value}.")
    if not 0 < options.tolerance < 1:
        raise UserError(f"--tolerance must be between 0 and 1; received {options.tolerance}.")
    return Choices(**{name: getattr(options, name) for name in Choices.__dataclass_fields__ if hasattr(options, name)})


def _hopeless(results: dict[str, Any], errors: dict[str, str]) -> bool:
    """Return whether the audit failed, so that the products are not those of a symmetric matrix."""
    return "audit" in errors or results["audit"]["verdict"] == "unsound"


def _products(results: dict[str, Any]) -> int:
    return sum(result["num_matvecs"] for result in results.values())


def _complain_of(results: dict[str, Any], errors: dict[str, str]) -> None:
    if "audit" in results:
        audit = results["audit"]
        for message in audit["messages"]:
            complain(f"audit: {message}", "red" if audit["verdict"] == "unsound" else "yellow")
        if audit["verdict"] == "unsound":
            complain("The products are not those of a Hessian. Nothing else was computed.", "red")
    for name, error in errors.items():
        complain(f"{STAGES[name].title} failed: {error}", "red")
