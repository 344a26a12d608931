"""What is diagnosed: where a run of a comparison ended, or a user's own loss and parameters."""

import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import records, transforms
from jaxopt_study.cli.compare import Compare
from jaxopt_study.cli.expressions import UserError, call_maker, import_maker, import_named, read_optimizer
from jaxopt_study.cli.heats import repeated
from jaxopt_study.cli.network import load_data, network_problem
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.types import Batch, LossFn, Params

DRIFT = 1e-3  # of the test loss, relative, between a run and its repetition, without a word
FORMS = "(loss, params) or (loss, params, data) with a scalar loss(params, data), or a function that returns one"


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
    if Path(path).exists():
        return _from_run(Path(path), optimizer, settings, start, data_dir, download)
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
    if not isinstance(found, tuple) or len(found) not in {2, 3} or not callable(found[0]):
        raise UserError(f"{path!r} gives {_shortened(found)}; expected {FORMS}.")
    loss, params, *rest = found
    try:
        params, data = (jax.tree.map(jnp.asarray, part) for part in (params, rest[0] if rest else None))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path!r}: parameters and data must be pytrees of arrays: {error}") from None
    built, state = None, None
    if optimizer is not None:
        built = read_optimizer(optimizer)
        try:
            state = built.init(params)
        except Exception as error:
            raise UserError(
                f"{optimizer!r} cannot start from these parameters: {type(error).__name__}: {error}"
            ) from error
    return Target(
        name=path.rpartition(":")[2],
        loss=_of_two(loss),
        params=params,
        data=data,
        data_hash=None if data is None else content_hash(data),
        optimizer=built,
        opt_state=state,
        expression=optimizer,
        described={"target": path, "optimizer": optimizer},
    )


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
    seeds = record.config["seeds"]
    if not 0 <= start < seeds:
        raise UserError(f"--start must be from 0 to {seeds - 1}, one of the run's {seeds} starts; received {start}.")
    dataset = _data_of(record, data_dir, download)
    problem = network_problem(record.config, dataset)
    optimizer = _optimizer(entry)
    ended = repeated(problem, record.config, slice(start, start + 1)).run(optimizer)
    of_one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
    before, now = entry["finals"]["test_loss"][start], float(ended.finals["test_loss"][0])
    return Target(
        name=f"{record.name}-{entry['optimizer'].replace(':', '.')}-{start}",
        loss=problem.loss,
        params=of_one(ended.trajectory.params),
        data=problem.data,
        data_hash=record.data_hash,
        optimizer=optimizer,
        opt_state=of_one(ended.trajectory.opt_state),
        expression=entry["expression"] or entry["module"],
        described={
            "target": f"compare of {record.created}",
            "optimizer": entry["optimizer"],
            "settings": entry["settings"],
            "start": start,
            "diverged": entry["diverged"][start],
            "compare": dict(record.config),
            "test_loss": {"compared": before, "repeated": now},
        },
        note=_drift(before, now),
    )


def _entry(record: records.Record, wanted: str | None, settings: str | None) -> dict[str, Any]:
    """Return what a comparison keeps of one optimizer, tuned if it was and nothing else is asked for."""
    ran = [e for e in record.results["entries"] if e["problem"] == record.name and "error" not in e]
    names = list(dict.fromkeys(entry["optimizer"] for entry in ran))
    if not ran:
        raise UserError(f"No optimizer had finished on {record.name} in this comparison. Go on with it: --resume.")
    if any("config" not in entry for entry in ran):
        raise UserError("It is a comparison by an earlier version. Make it again.")
    if wanted is None and len(names) > 1:
        raise UserError(f"Several optimizers ran. Say which one with --optimizer: {', '.join(names)}.")
    asked = names[0] if wanted is None else wanted
    name = asked if asked in names else asked.rpartition(":")[2]
    found = {entry["settings"]: entry for entry in ran if entry["optimizer"] == name}
    if not found:
        raise UserError(f"--optimizer {asked}: not among those that ran, {', '.join(names)}.")
    if settings is not None and settings not in found:
        raise UserError(f"--settings {settings}: {name} ran at these settings only: {', '.join(found)}.")
    return found[settings or ("tuned" if "tuned" in found else "default")]


def _optimizer(entry: dict[str, Any]) -> Any:
    if entry["spec"] is not None:
        return transforms.from_json(entry["spec"])
    return call_maker(entry["module"], import_maker(entry["module"]), **entry["config"])


def _drift(before: float, now: float) -> str | None:
    """Return what to say if the repeated run ended elsewhere; training amplifies the rounding of another machine."""
    if np.isnan([before, now]).all() or abs(now - before) <= DRIFT * abs(before):
        return None
    return (
        f"The run was repeated, and ended at a test loss of {now:.6g} where the comparison had {before:.6g}: another "
        "machine or version rounds otherwise. What follows is about the repeated run."
    )


def _data_of(record: records.Record, data_dir: Path | None, download: bool) -> Dataset:
    asked = Compare(data=record.config["data"], seed=record.config["seed"], data_dir=data_dir, download=download)
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
