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
from jaxopt_study.cli import finals
from jaxopt_study.cli.compare import Compare, load_data, network_problem
from jaxopt_study.cli.expressions import UserError, import_named, read_optimizer
from jaxopt_study.problems.datasets import Dataset
from jaxopt_study.types import Batch, LossFn, Params

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


def find_target(
    path: str, optimizer: str | None, start: int, *, data_dir: Path | None = None, download: bool = False
) -> Target:
    """Find what a command line names.

    Args:
        path: The results folder of a comparison, its record, or `module:name`.
        optimizer: Of a comparison, the name of one of its optimizers, or `module:function` if it was the user's own; of
            a user's loss, an expression for `read_optimizer`, or None.
        start: Which of the starts of a comparison.
        data_dir: Where the data of a comparison are, as for `compare`.
        download: Whether to download them.

    Returns:
        The target.

    Raises:
        UserError: If there is none, or it is not what it should be.
    """
    if Path(path).exists():
        return _from_run(Path(path), optimizer, start, data_dir, download)
    if re.fullmatch(r"[\w.]+:[\w.]+", path):
        if data_dir is not None or download or start:
            raise UserError("--data-dir, --download and --start are for a results folder of `jaxopt-study compare`.")
        return _from_module(path, optimizer)
    raise UserError(
        f"{path!r} is neither a results folder of `jaxopt-study compare` nor module:name, such as mine:loss_and_params "
        "for mine.py."
    )


def content_hash(tree: Any) -> str:
    """Return the SHA-256 of the arrays of a pytree, with their paths, shapes and dtypes."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = finals.numbers(leaf)
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


def _from_run(path: Path, wanted: str | None, start: int, data_dir: Path | None, download: bool) -> Target:
    try:
        record = records.load(path)
    except records.RecordError as error:
        raise UserError(str(error)) from None
    if record.kind != "compare":
        raise UserError(f"{path} is a record of kind {record.kind!r}; expected one of `jaxopt-study compare`.")
    folder = path if path.is_dir() else path.parent
    entry, built = _runner(record, wanted)
    seeds = record.config["seeds"]
    if not 0 <= start < seeds:
        raise UserError(f"--start must be from 0 to {seeds - 1}, one of the run's {seeds} starts; received {start}.")
    if "final" not in entry:
        raise UserError(
            f"{path} does not hold where {entry['optimizer']} ended; a comparison by an earlier version. Make it again."
        )
    dataset = _data_of(record, data_dir, download)
    problem = network_problem(record.config, dataset)
    like: dict[str, Any] = {"params": jax.eval_shape(problem.init, jax.random.key(0))}
    if built is not None:
        like["opt_state"] = jax.eval_shape(built.init, like["params"])
    final = finals.load(folder / "parts", entry["final"], like, start)
    return Target(
        name=f"{record.name}-{entry['optimizer'].replace(':', '.')}-{start}",
        loss=problem.loss,
        params=final["params"],
        data=problem.data,
        data_hash=record.data_hash,
        optimizer=built,
        opt_state=final.get("opt_state"),
        expression=entry["expression"] or (wanted if built is not None else None),
        described={
            "target": f"compare of {record.created}",
            "optimizer": entry["optimizer"],
            "start": start,
            "diverged": entry["diverged"][start],
            "compare": dict(record.config),
            "file_sha256": entry["final"]["sha256"],
        },
    )


def _runner(record: records.Record, wanted: str | None) -> tuple[dict[str, Any], Any]:
    """Return what a comparison keeps of one optimizer, and the optimizer, None if it cannot be built from that."""
    entries = {
        entry["optimizer"]: entry
        for entry in record.results["entries"]
        if entry["problem"] == record.name and "error" not in entry
    }
    if not entries:
        raise UserError(f"No optimizer had finished on {record.name} in this comparison. Go on with it: --resume.")
    listed = ", ".join(entries)
    if wanted is None and len(entries) > 1:
        raise UserError(f"Several optimizers ran. Say which one with --optimizer: {listed}.")
    asked = str(next(iter(entries))) if wanted is None else wanted
    name = asked if asked in entries else asked.rpartition(":")[2]
    if name not in entries:
        raise UserError(f"--optimizer {asked}: not among those that ran, {listed}.")
    entry = entries[name]
    if entry["spec"] is not None:
        return entry, transforms.from_json(entry["spec"])
    return entry, read_optimizer(asked) if ":" in asked else None


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
