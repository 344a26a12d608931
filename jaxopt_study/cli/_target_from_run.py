"""The target that is the end point of a run of `jaxopt-study compare`, read from its record and trained again."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_study import records, transforms
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._network import load_data, network_problem
from jaxopt_study.cli._options import DEFAULTS, NetworkOptions
from jaxopt_study.cli._progress import waiting
from jaxopt_study.cli._single_runs import repeat
from jaxopt_study.cli._target import Target
from jaxopt_study.cli._user_modules import call_maker, import_maker
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.training import evaluate

DRIFT = 1e-3  # relative difference of test losses, between a run and its repetition, above which a note says so


def target_from_run(
    path: Path, requested: str | None, settings: str | None, start: int, data_dir: Path | None, download: bool
) -> Target:
    """Return the end point of a run of a comparison, by repeating the run: its record has only scores."""
    try:
        record = records.load(path)
    except records.RecordError as error:
        raise UserError(str(error)) from None
    if record.kind != "compare":
        raise UserError(f"{path} is a record of kind {record.kind!r}; expected a record of `jaxopt-study compare`.")
    entry = _entry(record, requested, settings)
    config = _settings(record)
    seeds = config["seeds"]
    if not 0 <= start < seeds:
        raise UserError(f"--start must be from 0 to {seeds - 1}, one of the run's {seeds} starts; received {start}.")
    for part in (entry["diverged"], entry["finals"].get("test_loss")):
        if isinstance(part, list) and len(part) == seeds and all(isinstance(one, bool | int | float) for one in part):
            continue
        raise UserError(f"{path} does not have the results of {seeds} seeds of `jaxopt-study compare`. Repeat it.")
    optimizer = _optimizer(entry, requested)
    dataset = _data_of(record, config, data_dir, download)
    problem = network_problem(config, dataset)
    run = waiting(lambda: repeat(problem, config, optimizer, start))
    before, now = entry["finals"]["test_loss"][start], float(evaluate(problem, run.params, on="test")["loss"])
    return Target(
        name=f"{record.name}-{entry['optimizer'].replace(':', '.')}-{start}",
        loss=problem.loss,
        params=run.params,
        data=problem.data,
        data_hash=record.data_hash,
        optimizer=optimizer,
        opt_state=run.opt_state,
        expression=entry["expression"] or entry["module"],
        described={
            "target": f"compare of {record.created}",
            "optimizer": entry["optimizer"],
            "settings": entry["settings"],
            "start": start,
            "diverged": entry["diverged"][start],
            "compare": config,
            "test_loss": {"compared": before, "repeated": now},
        },
        note=_drift(before, now),
    )


def _entry(record: records.Record, requested: str | None, settings: str | None) -> dict[str, Any]:
    """Return the entry of one optimizer in the record of a comparison, by default the tuned one."""
    entries = record.results.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError("The record has no entries of `jaxopt-study compare`. Repeat the comparison.")
    ran = [entry for entry in entries if entry.get("problem") == record.name and "error" not in entry]
    if not ran:
        raise UserError(f"No optimizer has finished on {record.name} in this comparison. Resume it with --resume.")
    if any("config" not in entry for entry in ran):
        raise UserError("The comparison was made by an earlier version. Repeat it.")
    for entry in ran:
        if wrong := [name for name, kind in _KINDS.items() if not isinstance(entry.get(name), kind)]:
            raise UserError(
                f"The record's entries differ from those of `jaxopt-study compare` in {', '.join(wrong)}. Repeat it."
            )
    names = list(dict.fromkeys(entry["optimizer"] for entry in ran))
    if requested is None and len(names) > 1:
        raise UserError(f"Several optimizers ran. Choose one with --optimizer: {', '.join(names)}.")
    requested = names[0] if requested is None else requested
    name = requested if requested in names else requested.rpartition(":")[2]
    entries = {entry["settings"]: entry for entry in ran if entry["optimizer"] == name}
    if not entries:
        raise UserError(f"--optimizer {requested}: not among those that ran, {', '.join(names)}.")
    if settings is not None and settings not in entries:
        raise UserError(f"--settings {settings}: {name} ran at these settings only: {', '.join(entries)}.")
    return entries[settings or ("tuned" if "tuned" in entries else next(iter(entries)))]


_MOST_WEIGHTS = 2**28  # between hidden layers; Adam keeps three numbers for each

_KINDS = {
    "optimizer": str, "settings": str, "expression": str | None, "spec": str | None, "module": str | None,
    "config": dict, "diverged": list, "finals": dict,
}  # fmt: skip


def _settings(record: records.Record) -> dict[str, Any]:
    """Return the settings of a comparison, checked like arguments of the command line.

    A record may come from anyone, so its contents are not trusted.
    """
    settings = record.config
    whole = ("seed", "steps", "batch_size", "evaluate_every", "seeds")
    known = settings.get("data") in list(DEFAULTS) and isinstance(settings.get("widths"), list)
    counts: list[Any] = [settings.get(name) for name in whole] + (settings["widths"] if known else [])
    if not known or not all(type(count) is int and abs(count) < 2**31 for count in counts):
        raise UserError("The record's settings are not those of `jaxopt-study compare`. Repeat the comparison.")
    weights = sum(before * after for before, after in pairwise([1, *settings["widths"], 1]))
    weights *= 12 if settings["data"] == "text" else 1  # of a transformer's block, times the squared width
    if any(count < 1 for count in counts[1:]) or weights > _MOST_WEIGHTS:
        raise UserError("The record's settings are out of range. Repeat the comparison.")
    return dict(settings)


def _optimizer(entry: dict[str, Any], requested: str | None) -> Any:
    """Return the optimizer of an entry; a user's function is called only if the user names it now."""
    module = entry["module"]
    if entry["spec"] is not None:
        try:
            return transforms.from_json(entry["spec"])
        except ValueError as error:
            if module is None:
                raise UserError(f"The record's optimizer cannot be built: {error}") from None
    elif module is None:
        raise UserError(f"The record has no expression of {entry['optimizer']}. Repeat the comparison.")
    if requested is None or requested != module:
        raise UserError(
            f"{entry['optimizer']} was built by the function {module!r}, and code named in a record is never run "
            f"without your consent. To run it, add --optimizer {module}."
        )
    return call_maker(requested, import_maker(requested), **entry["config"])


def _drift(before: float, now: float) -> str | None:
    """Return a note if the repeated run ended elsewhere, because training amplifies differences in rounding."""
    if np.isnan([before, now]).all() or abs(now - before) <= DRIFT * abs(before):
        return None
    return (
        f"The repeated run ended at a test loss of {now:.6g}, that of the comparison at {before:.6g}: another machine "
        "or version rounds differently. The results are those of the repeated run."
    )


def _data_of(record: records.Record, config: dict[str, Any], data_dir: Path | None, download: bool) -> Dataset:
    options = NetworkOptions(data=config["data"], seed=config["seed"], data_dir=data_dir, download=download)
    dataset = load_data(options)
    if dataset.sha256 != record.data_hash:
        raise UserError(
            f"The data differ from those of the run: SHA-256 {dataset.sha256[:12]}…, in the record "
            f"{str(record.data_hash)[:12]}…. Name the folder of the run's data with --data-dir."
        )
    return dataset
