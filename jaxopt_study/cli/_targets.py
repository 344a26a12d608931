"""What is diagnosed: where a run of a comparison ended, or a user's own loss and parameters."""

import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import files, records, transforms
from jaxopt_study._checks import check_structure
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import call_maker, import_maker, import_named, read_optimizer
from jaxopt_study.cli._network import load_data, network_problem
from jaxopt_study.cli._options import DEFAULTS, NetworkOptions
from jaxopt_study.cli._progress import waiting
from jaxopt_study.cli._single_runs import repeat
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.training import evaluate
from jaxopt_study.types import Batch, LossFn, Params

DRIFT = 1e-3  # of the test loss, relative, between a run and its repetition, without a word
FORMS = (
    "(loss, params), (loss, params, data) or (loss, params, data, opt_state) with a scalar loss(params, data), or a "
    "function that returns one"
)
FRESH = (
    "The optimizer's state is the fresh one before its first step, so that the threshold, the preconditioned sharpness "
    "and the stability are those of a first step from here. For a run's own state let {path} return (loss, params, "
    "data, opt_state), where data may be None."
)


@dataclass(frozen=True)
class Target:
    """A point of a landscape, and perhaps the optimizer that stands there.

    Attributes:
        name: A short identifier, for folders and titles.
        loss: loss(params, data), a scalar.
        params: Where.
        data: All examples, or None.
        data_hash: SHA-256 of the data, None without data.
        optimizer: An Optax transformation, or None.
        opt_state: Its state there.
        expression: What the optimizer is called.
        described: What a record keeps of where it comes from.
        note: What the user should know of it, or None.
    """

    name: str
    loss: LossFn
    params: Params
    data: Batch | None
    data_hash: str | None
    optimizer: Any
    opt_state: Any
    expression: str | None
    described: dict[str, Any]
    note: str | None = None


def find_target(
    path: str,
    optimizer: str | None,
    start: int,
    *,
    settings: str | None = None,
    data_dir: Path | None = None,
    download: bool = False,
) -> Target:
    """Find what a command line names.

    Args:
        path: The results folder of a comparison, its record, or `module:name`.
        optimizer: Of a comparison, the name of one of its optimizers; of a user's loss, an expression for
            `read_optimizer`, or None.
        start: Which of the starts of a comparison.
        settings: Of a comparison, "default" or "tuned"; None takes "tuned" if there is that.
        data_dir: Where the data of a comparison are, as for `compare`.
        download: Whether to download them.

    Returns:
        The target.

    Raises:
        UserError: If there is none, or it is not what it should be.
    """
    try:
        found = files.as_path(path)
        exists = found.exists()
    except (OSError, ValueError) as error:
        raise UserError(f"{path!r} cannot be used: {error}.") from None
    if exists:
        return _from_run(found, optimizer, settings, start, data_dir, download)
    if re.fullmatch(r"[\w.]+:[\w.]+", path):
        if data_dir is not None or download or start or settings:
            raise UserError(
                "--data-dir, --download, --settings and --start are for a results folder of `jaxopt-study compare`."
            )
        return _from_module(path, optimizer)
    raise UserError(
        f"{path!r} is neither a results folder of `jaxopt-study compare` nor module:name, such as mine:loss_and_params "
        "for mine.py."
    )


def content_hash(tree: Any) -> str:
    """Return the SHA-256 of the arrays of a pytree, with their paths, shapes and dtypes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)  # a key is no number, but has some
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _from_module(path: str, optimizer: str | None) -> Target:
    found = import_named(path, what="a loss and parameters")
    if callable(found):
        try:
            found = found()
        except Exception as error:
            raise UserError(
                f"{path!r}: calling it without arguments fails with {type(error).__name__}: {error}"
            ) from error
    if not isinstance(found, tuple) or len(found) not in {2, 3, 4} or not callable(found[0]):
        raise UserError(f"{path!r} gives {_shortened(found)}; expected {FORMS}.")
    loss: Any = found[0]
    params, data, given = (*found[1:], None, None)[:3]
    try:
        params, data, given = (jax.tree.map(jnp.asarray, part) for part in (params, data, given))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path!r}: parameters and data must be pytrees of arrays: {error}") from None
    if given is not None and optimizer is None:
        raise UserError(f"{path!r} gives the state of an optimizer: name the optimizer with --optimizer.")
    built = None if optimizer is None else read_optimizer(optimizer)
    fresh = built is not None and given is None
    return Target(
        name=path.rpartition(":")[2],
        loss=_of_two(loss),
        params=params,
        data=data,
        data_hash=None if data is None else content_hash(data),
        optimizer=built,
        opt_state=None if built is None else _state(built, optimizer, params, given, path),
        expression=optimizer,
        described={
            "target": path,
            "optimizer": optimizer,
            "opt_state": None if built is None else "fresh" if fresh else "given",
        },
        note=FRESH.format(path=path) if fresh else None,
    )


def _state(built: Any, optimizer: str | None, params: Params, given: Any, path: str) -> Any:
    """Return the given state, if it is one of this optimizer's; if none is given, the one before a first step."""
    try:
        state = built.init(params)
    except Exception as error:
        raise UserError(f"{optimizer!r} cannot start from these parameters: {type(error).__name__}: {error}") from error
    if given is None:
        return state
    try:
        return check_structure(repr(path), "opt_state", given, state, of=f"the state of {optimizer}")
    except ValueError as error:
        raise UserError(f"{error} Give the state that this optimizer had, or leave it out.") from None


def _from_run(
    path: Path, wanted: str | None, settings: str | None, start: int, data_dir: Path | None, download: bool
) -> Target:
    """Return where a run of a comparison ended, by running it again: it kept its scores only."""
    try:
        record = records.load(path)
    except records.RecordError as error:
        raise UserError(str(error)) from None
    if record.kind != "compare":
        raise UserError(f"{path} is a record of kind {record.kind!r}; expected one of `jaxopt-study compare`.")
    entry = _entry(record, wanted, settings)
    config = _settings(record)
    seeds = config["seeds"]
    if not 0 <= start < seeds:
        raise UserError(f"--start must be from 0 to {seeds - 1}, one of the run's {seeds} starts; received {start}.")
    for part in (entry["diverged"], entry["finals"].get("test_loss")):
        if isinstance(part, list) and len(part) == seeds and all(isinstance(one, bool | int | float) for one in part):
            continue
        raise UserError(f"{path} does not have what `jaxopt-study compare` writes of {seeds} starts. Make it again.")
    optimizer = _optimizer(entry, wanted)
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


def _entry(record: records.Record, wanted: str | None, settings: str | None) -> dict[str, Any]:
    """Return what a comparison keeps of one optimizer, tuned if it was and nothing else is asked for."""
    entries = record.results.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError("The record has no entries as `jaxopt-study compare` writes them. Make the comparison again.")
    ran = [entry for entry in entries if entry.get("problem") == record.name and "error" not in entry]
    if not ran:
        raise UserError(f"No optimizer had finished on {record.name} in this comparison. Go on with it: --resume.")
    if any("config" not in entry for entry in ran):
        raise UserError("It is a comparison by an earlier version. Make it again.")
    for entry in ran:
        if wrong := [name for name, kind in _KINDS.items() if not isinstance(entry.get(name), kind)]:
            raise UserError(
                f"The record's entries are not as `jaxopt-study compare` writes them: {', '.join(wrong)}. Make it anew."
            )
    names = list(dict.fromkeys(entry["optimizer"] for entry in ran))
    if wanted is None and len(names) > 1:
        raise UserError(f"Several optimizers ran. Say which one with --optimizer: {', '.join(names)}.")
    asked = names[0] if wanted is None else wanted
    name = asked if asked in names else asked.rpartition(":")[2]
    found = {entry["settings"]: entry for entry in ran if entry["optimizer"] == name}
    if not found:
        raise UserError(f"--optimizer {asked}: not among those that ran, {', '.join(names)}.")
    if settings is not None and settings not in found:
        raise UserError(f"--settings {settings}: {name} ran at these settings only: {', '.join(found)}.")
    return found[settings or ("tuned" if "tuned" in found else next(iter(found)))]


_MOST_WEIGHTS = 2**28  # between hidden layers; Adam keeps three numbers for each

_KINDS = {
    "optimizer": str, "settings": str, "expression": str | None, "spec": str | None, "module": str | None,
    "config": dict, "diverged": list, "finals": dict,
}  # fmt: skip


def _settings(record: records.Record) -> dict[str, Any]:
    """Return the settings of a comparison's network, if they are such as the command line takes.

    A record is data that may come from anyone: what it says is checked as if somebody had typed it.
    """
    asked = record.config
    whole = ("seed", "steps", "batch_size", "evaluate_every", "seeds")
    known = asked.get("data") in list(DEFAULTS) and isinstance(asked.get("widths"), list)
    counts: list[Any] = [asked.get(name) for name in whole] + (asked["widths"] if known else [])
    if not known or not all(type(count) is int and abs(count) < 2**31 for count in counts):
        raise UserError("The record's settings are not those of `jaxopt-study compare`. Make the comparison again.")
    weights = sum(before * after for before, after in pairwise([1, *asked["widths"], 1]))
    if any(count < 1 for count in counts[1:]) or weights > _MOST_WEIGHTS:
        raise UserError("The record's settings are out of range. Make the comparison again.")
    return dict(asked)


def _optimizer(entry: dict[str, Any], wanted: str | None) -> Any:
    """Return the optimizer of an entry; code of the user's only where the user names it, for a record is data."""
    module = entry["module"]
    if entry["spec"] is not None:
        try:
            return transforms.from_json(entry["spec"])
        except ValueError as error:
            if module is None:
                raise UserError(f"The record's optimizer cannot be built: {error}") from None
    elif module is None:
        raise UserError(f"The record does not say how {entry['optimizer']} is built. Make the comparison again.")
    if wanted is None or wanted != module:
        raise UserError(
            f"{entry['optimizer']} was built by a function, which the record calls {module!r}. A record runs no code: "
            f"if that function is yours and is to be called, name it yourself, with --optimizer {module}."
        )
    return call_maker(wanted, import_maker(wanted), **entry["config"])


def _drift(before: float, now: float) -> str | None:
    """Return what to say if the repeated run ended elsewhere; training amplifies the rounding of another machine."""
    if np.isnan([before, now]).all() or abs(now - before) <= DRIFT * abs(before):
        return None
    return (
        f"The run was repeated, and ended at a test loss of {now:.6g} where the comparison had {before:.6g}: another "
        "machine or version rounds otherwise. What follows is about the repeated run."
    )


def _data_of(record: records.Record, config: dict[str, Any], data_dir: Path | None, download: bool) -> Dataset:
    asked = NetworkOptions(data=config["data"], seed=config["seed"], data_dir=data_dir, download=download)
    dataset = load_data(asked)
    if dataset.sha256 != record.data_hash:
        raise UserError(
            f"The data differ from those of the run: SHA-256 {dataset.sha256[:12]}…, where the record says "
            f"{str(record.data_hash)[:12]}…. Name the folder of the run's data with --data-dir."
        )
    return dataset


def _of_two(loss: Callable[..., Any]) -> LossFn:
    """Return the loss as a function of parameters and data, whether or not it takes data."""
    try:
        inspect.signature(loss).bind(None, None)
    except TypeError:
        return lambda params, _: loss(params)
    except ValueError:  # built-in functions do not say
        pass
    return loss


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
