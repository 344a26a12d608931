"""One valid call of every public function: small, quick, and complete in its arguments."""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_study import curvature, dynamics, optimizers, problems, records, sweeps, training, transforms

KEY = jax.random.key(0)
MATRIX = np.diag(np.array([3.0, 1.0, -0.5], dtype=np.float32))
PARAMS = {"w": jnp.array([0.5, -1.0, 2.0])}
GRADS = {"w": jnp.array([1.0, 0.25, -1.0])}
BATCH = {"x": np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3), "y": np.arange(4, dtype=np.float32)}
LABELLED = {"x": np.linspace(0.0, 1.0, 24, dtype=np.float32).reshape(8, 3), "y": np.arange(8, dtype=np.int32) % 2}


def loss(params: Any, batch: Any = None) -> Any:
    """Return a quadratic loss, of data where there are any."""
    if batch is None:
        return 0.5 * jnp.sum(jnp.array([3.0, 1.0, 0.5]) * params["w"] ** 2)
    return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)


def losses(params: Any, batch: Any) -> Any:
    """Return the loss of each example."""
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def linear_model(params: Any, batch: Any) -> Any:
    """Return predictions."""
    return batch["x"] @ params["w"]


def squared_error(outputs: Any, batch: Any) -> Any:
    """Return the mean squared error."""
    return jnp.mean((outputs - batch["y"]) ** 2)


@cache
def operator() -> Any:
    """Return an operator with a known spectrum."""
    return curvature.from_matrix(MATRIX)


@cache
def problem() -> Any:
    """Return a problem with data and validation examples."""
    return problems.from_pytree(PARAMS, loss, data=BATCH).replace(validation=BATCH)


@cache
def dataset() -> Any:
    """Return a set of eight labelled examples."""
    return problems.datasets.Dataset("eight", LABELLED, validation=LABELLED, num_classes=2)


@cache
def optimizer() -> Any:
    """Return an optimizer."""
    return optimizers.momentum(0.01)


@cache
def opt_state() -> Any:
    """Return its state."""
    return optimizer().init(PARAMS)


@cache
def scratch() -> Path:
    """Return a folder for files."""
    return Path(tempfile.mkdtemp())


# The arguments of a valid call, by stage and function. A function that is not listed is called with its defaults and
# with a small value for each argument that needs one (_SMALL).
RATES = {"learning_rate": sweeps.log_uniform(1e-3, 1e-1)}
_TWO = {"a": optimizers.sgd(0.1), "b": optimizers.sgd(0.2), "params": PARAMS, "num_steps": 2}
RUN: Mapping[str, Any] = {"num_steps": 2, "key": KEY, "batch_size": 2}

CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    # transforms
    "transforms.chain": lambda: {"parts": transforms.ema(0.9)},
    "transforms.merge": lambda: {"fn": transforms.divide_by_root(), "branches": transforms.ema(0.9)},
    "transforms.elementwise": lambda: {"fn": jnp.sign},
    "transforms.add_gradient_noise": lambda: {"eta": 0.1, "gamma": 0.55, "key": KEY},
    "transforms.ema": lambda: {"decay": 0.9, "of": jnp.square, "initial": 0.0, "dtype": jnp.float32, "lagged": False},
    "transforms.total": lambda: {"of": jnp.square, "initial": 0.0, "dtype": jnp.float32},
    "transforms.running_max": lambda: {"decay": 0.9, "of": jnp.abs, "initial": 0.0, "dtype": jnp.float32},
    "transforms.explain_difference": lambda: _TWO,
    "optimizers.explain_difference": lambda: _TWO,
    "transforms.from_json": lambda: {"text": transforms.ema(0.9).to_json()},
    "transforms.gradient_point": lambda: {"params": PARAMS, "state": opt_state()},
    "transforms.readout": lambda: {"params": PARAMS, "state": opt_state()},
    "transforms.lift": lambda: {"constructor": transforms.lift},
    "transforms.named_function": lambda: {"function": jnp.sign},
    "transforms.read_taps": lambda: {"state": transforms.tap("t").init(PARAMS)},
    "transforms.tap": lambda: {"name": "t", "inner": transforms.ema(0.9), "enabled": True},
    "transforms.project_to_max_norm": lambda: {"max_norm": 1.0, "axis": 0},
    "transforms.add_decayed_weights": lambda: {"weight_decay": 0.1, "mask": {"w": True}, "flip_sign": False},
    # problems
    "problems.from_pytree": lambda: {"params": PARAMS, "loss": loss, "data": BATCH, "name": "x"},
    "problems.least_squares": lambda: {"inputs": BATCH["x"], "targets": BATCH["y"], "start": np.zeros(3)},
    "problems.linear_network": lambda: {"singular_values": (2.0, 1.0), "sizes": (2, 3), "hidden": 2, "key": KEY},
    "problems.linear_regression": lambda: {"num_examples": 6, "num_features": 2, "key": KEY},
    "problems.noisy_quadratic": lambda: {"dim": 3, "batch_size": 1},
    "problems.quadratic": lambda: {"spectrum": (1.0, 2.0), "center": (0.0, 0.0), "start": (1.0, 1.0)},
    "problems.random_rotation": lambda: {"dim": 3, "key": KEY},
    "problems.networks.accuracy": lambda: {"logits": jnp.zeros((4, 2)), "labels": jnp.array([0, 1, 0, 1])},
    "problems.networks.cross_entropy": lambda: {
        "logits": jnp.zeros((4, 2)),
        "labels": jnp.array([0, 1, 0, 1]),
        "label_smoothing": 0.1,
    },
    "problems.networks.mse": lambda: {"predictions": jnp.zeros((4, 1)), "targets": jnp.zeros((4, 1))},
    "problems.networks.weight_penalty": lambda: {"params": {"kernel": jnp.ones((2, 2))}},
    "problems.networks.mlp_classifier": lambda: {"dataset": dataset(), "widths": (2,), "dropout": 0.1},
    "problems.networks.classifier": lambda: {"model": problems.networks.MLP(2, widths=(2,)), "dataset": dataset()},
    "problems.networks.max_pool": lambda: {"x": jnp.zeros((1, 4, 4, 1)), "size": 2},
    "problems.networks.convolve": lambda: {"x": jnp.zeros((1, 4, 4, 1)), "kernel": jnp.zeros((3, 3, 1, 2))},
    "problems.datasets.from_arrays": lambda: {
        "x": LABELLED["x"],
        "y": LABELLED["y"],
        "num_validation": 2,
        "num_test": 2,
        "split": "first",
        "seed": 0,
    },
    "problems.datasets.adding": lambda: {"num_steps": 3, "num_train": 4, "num_validation": 2, "num_test": 2},
    "problems.datasets.temporal_order": lambda: {"num_steps": 11, "num_train": 4, "num_validation": 2, "num_test": 2},
    "problems.datasets.damped_cosine": lambda: {"num_train": 4, "num_validation": 2, "num_test": 2, "noise": 0.1},
    "problems.datasets.digits": lambda: {"num_train": 10, "num_validation": 10, "num_test": 10},
    # training
    "training.train": lambda: {"problem": problem(), "optimizer": optimizer(), **RUN, "evaluate_every": 1},
    "training.evaluate": lambda: {"problem": problem(), "params": PARAMS, "on": "train", "batch_size": 2},
    "training.linear_curriculum": lambda: {"difficulty": np.arange(4.0), "start": 0.5, "num_steps": 4},
    "training.shuffle": lambda: {"position": 1, "num_examples": 4, "key": KEY, "epoch": 0},
    "training.EarlyStopping": lambda: {"patience": 2, "min_delta": 0.0, "mode": "min"},
    "training.CurvatureProbe": lambda: {"every": 1, "num_eigenvalues": 1, "batch_size": 2, "tol": 0.01, "seed": 0},
    "training.LinearPace": lambda: {"start": 0.5, "num_steps": 4},
    "training.Curriculum": lambda: {"difficulty": np.arange(4.0), "pace": training.LinearPace(0.5, 4)},
    "training.Probe": lambda: {"fn": lambda *a, **k: jnp.zeros(()), "every": 1},
    # curvature
    "curvature.from_matvec": lambda: {"matvec": lambda v: v, "like": PARAMS},
    "curvature.from_matrix": lambda: {"matrix": MATRIX},
    "curvature.hessian": lambda: {"loss": loss, "params": PARAMS, "data": BATCH, "batch_size": 2},
    "curvature.ggn": lambda: {
        "model": linear_model,
        "output_loss": squared_error,
        "params": PARAMS,
        "data": BATCH,
        "batch_size": 2,
    },
    "curvature.empirical_fisher": lambda: {"losses": losses, "params": PARAMS, "data": BATCH, "batch_size": 2},
    "curvature.eigenpairs": lambda: {"op": operator(), "k": 1, "which": "LA", "tol": 1e-3, "key": KEY},
    "curvature.sharpness": lambda: {"op": operator(), "key": KEY, "confidence": 0.9, "tol": 0.01, "max_matvecs": 8},
    "curvature.spectral_density": lambda: {"op": operator(), "key": KEY, "num_probes": 2, "num_steps": 3},
    "curvature.trace": lambda: {"op": operator(), "key": KEY, "num_probes": 2, "rank": 1},
    "curvature.diagonal": lambda: {"op": operator(), "key": KEY, "num_probes": 2, "rank": 1},
    "curvature.log_det": lambda: {"op": operator(), "key": KEY, "shift": 1.0, "num_probes": 2, "num_steps": 3},
    "curvature.condition_number": lambda: {"op": operator(), "key": KEY},
    "curvature.ill_conditioning": lambda: {"op": operator(), "grads": jnp.ones(3), "k": 1, "key": KEY},
    "curvature.morse_index": lambda: {
        "op": operator(),
        "tau": 1e-3,
        "key": KEY,
        "num_basis": 3,
        "block_size": 1,
        "num_probes": 2,
        "num_steps": 3,
    },
    "curvature.classify_point": lambda: {"loss": loss, "params": PARAMS, "data": BATCH, "key": KEY},
    "curvature.find_critical_point": lambda: {"loss": loss, "params": PARAMS, "key": KEY},
    "curvature.audit": lambda: {"op": operator(), "key": KEY},
    # dynamics
    "dynamics.stability": lambda: {
        "optimizer": optimizer(),
        "opt_state": opt_state(),
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
        "key": KEY,
    },
    "dynamics.stability_threshold": lambda: {"optimizer": optimizer()},
    "dynamics.stability_limit": lambda: {"optimizer": optimizer()},
    "dynamics.state_roles": lambda: {"optimizer": optimizer(), "params": PARAMS},
    "dynamics.preconditioner": lambda: {
        "optimizer": optimizer(),
        "opt_state": opt_state(),
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
    },
    "dynamics.preconditioned_sharpness": lambda: {
        "optimizer": optimizer(),
        "opt_state": opt_state(),
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
        "key": KEY,
    },
    "dynamics.account_step": lambda: {"loss": loss, "params": PARAMS, "updates": GRADS, "data": BATCH},
    # sweeps
    "sweeps.search": lambda: {
        "make_optimizer": optimizers.sgd,
        "space": RATES,
        "problem": problem(),
        "num_trials": 2,
        "num_seeds": 1,
        **RUN,
    },
    "sweeps.compare": lambda: {
        "candidates": {"sgd": sweeps.Candidate(optimizers.sgd(0.01), RATES), "adam": optimizers.adam(0.01)},
        "problem": problem(),
        "budget": 1,
        "tune_seeds": 1,
        "report_seeds": 2,
        **RUN,
    },
    "sweeps.ablate": lambda: {"optimizer": optimizers.momentum(0.01), "problem": problem(), "num_seeds": 2, **RUN},
    "sweeps.sample": lambda: {"space": sweeps.Space(RATES), "num_trials": 2, "sampler": "random", "key": KEY},
    "sweeps.Candidate": lambda: {"make_optimizer": optimizers.sgd(0.01), "space": RATES},
    "sweeps.Space": lambda: {"dimensions": RATES},
    "sweeps.Halving": lambda: {"min_steps": 2, "factor": 2},
    "sweeps.choices": lambda: {"options": 0.1, "static": False},
    "sweeps.conditional": lambda: {"dimension": sweeps.uniform(0.0, 1.0), "on": "name", "equals": 1},
    "sweeps.integers": lambda: {"low": 1, "high": 4, "log": True, "static": True},
    "sweeps.log_uniform": lambda: {"low": 0.1, "high": 1.0},
    "sweeps.uniform": lambda: {"low": 0.1, "high": 1.0},
    "sweeps.search_keys": lambda: {"key": KEY, "num_seeds": 2},
    "sweeps.report_keys": lambda: {"key": KEY, "number": 0, "num_seeds": 2},
    # records
    "records.save": lambda: {"record": records.Record("k", "n", {"a": 1}, {"b": 2.0}), "path": scratch() / "r.json"},
    "records.load": lambda: {"path": records.save(records.Record("k", "n", {}, {}), scratch() / "l.json")},
    "records.Record": lambda: {"kind": "k", "name": "n", "config": {"a": 1}, "results": {"b": 2.0}},
}

_SMALL: dict[str, Any] = {
    "learning_rate": 0.1, "dampening": 0.5, "schedule": 0.5, "rate": 0.1, "strength": 0.1, "first": 0.1, "second": 0.2,
    "decay": 0.9, "max_norm": 1.0, "max_value": 1.0, "weight_decay": 0.01, "weight": 0.5,
}  # fmt: skip

# Not called: result types, types of errors, modules' own decorators, what reads a large archive or sets up a process.
NOT_CALLED = {
    "transforms": {"Difference", "Function", "TapMetrics", "Transform", "atom", "composite"},
    "optimizers": {"Difference", "Convention", "named"},
    "problems": {"CriticalPoint", "Problem", "catalogue", "listed", "from_linen", "from_nnx"},
    "problems.networks": {
        "CNN", "MLP", "RNN", "Conv", "describe", "cnn_classifier", "rnn_classifier", "rnn_regressor", "mlp_regressor",
        "regressor",
    },
    "problems.datasets": {
        "FASHION_MNIST", "MNIST", "Dataset", "DatasetError", "IdxArchive", "IdxFile", "load_idx", "mnist",
        "fashion_mnist", "read_idx",
    },
    "problems.planar": {"all_problems"},
    "training": {"TrainingInterrupted", "Trajectory", "batch_indices"},
    "dynamics": {"Accounting", "PreconditionedSharpness", "Preconditioner", "Stability"},
    "sweeps": {
        "Ablation", "Choice", "Choices", "Comparison", "ComparisonInterrupted", "Conditional", "Contribution",
        "Dimension", "Integers", "Journal", "JournalError", "LogUniform", "OptunaSampler", "Report", "Search",
        "SearchInterrupted", "Uniform", "use_cpu_cores",
    },
}  # fmt: skip


def public_calls(stage: str) -> dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]]:
    """Return every public function of a stage with the arguments of a valid call.

    Raises:
        LookupError: If a public function has neither a call nor a reason not to be called.
    """
    module: Any = {
        "transforms": transforms, "optimizers": optimizers, "problems": problems, "training": training,
        "problems.networks": problems.networks, "problems.datasets": problems.datasets,
        "problems.planar": problems.planar, "curvature": curvature, "dynamics": dynamics, "sweeps": sweeps,
        "records": records,
    }[stage]  # fmt: skip
    names = getattr(module, "__all__", None) or [
        name.partition(".")[2] for name in CALLS if name.rpartition(".")[0] == stage
    ]
    found = {}
    for name in names:
        function = getattr(module, name)
        if name in NOT_CALLED.get(stage, ()) or inspect.ismodule(function):
            continue
        arguments = CALLS.get(f"{stage}.{name}")
        if arguments is None:
            if inspect.isclass(function):
                continue  # a result
            needed = [
                p.name for p in inspect.signature(function).parameters.values()
                if p.default is p.empty and p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}
            ]  # fmt: skip
            missing = [p for p in needed if p not in _SMALL]
            if missing:
                raise LookupError(
                    f"{stage}.{name} has no valid call in tests/abuse/valid_calls.py; it needs {missing}."
                )
            arguments = lambda needed=needed: {p: _SMALL[p] for p in needed}
        found[name] = (function, arguments)
    return found
