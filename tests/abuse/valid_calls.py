"""One valid call of every public function: small, quick, and complete in its arguments."""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxopt_study
from jaxopt_study import (
    curvature,
    dynamics,
    figures,
    optimizers,
    problems,
    records,
    sweeps,
    training,
    transforms,
)
from tests.transforms.cases import EXAMPLES, needed_arguments

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


def identity_of_batches(key: Any, batch: Any) -> Any:
    """Return a batch unchanged: an augmentation."""
    return batch


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


@cache
def sequences() -> Any:
    """Return a set of short sequences with a number to predict, and one with a class."""
    examples = {"x": LABELLED["x"][..., None], "y": LABELLED["x"][:, :1]}
    return problems.datasets.Dataset("numbers", examples), problems.datasets.Dataset(
        "classes", {"x": examples["x"], "y": LABELLED["y"]}, num_classes=2
    )


@cache
def images() -> Any:
    """Return a set of small images."""
    x = np.linspace(0.0, 1.0, 8 * 16, dtype=np.float32).reshape(8, 4, 4, 1)
    return problems.datasets.Dataset("images", {"x": x, "y": LABELLED["y"]}, num_classes=2)


@cache
def tokens() -> Any:
    """Return a set of sequences of tokens."""
    return problems.datasets.copy(num_symbols=4, length=2, num_train=4, num_validation=2, num_test=2)


@cache
def text_file() -> Path:
    """Return a file with a text."""
    path = scratch() / "text.txt"
    path.write_text("a short text of some forty characters or so")
    return path


@cache
def archive_folder() -> Path:
    """Return a folder with an archive of six tiny images in IDX files, of which nobody knows the hashes."""
    folder = scratch() / "mnist"
    folder.mkdir()
    for (name, file), count in zip(problems.datasets.MNIST.files.items(), (4, 4, 2, 2), strict=True):
        shape = (count, 2, 2) if file.kind == "images" else (count,)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        (folder / name).write_bytes(header + np.arange(np.prod(shape), dtype=np.uint8).tobytes())
    return folder.parent


@cache
def study() -> Any:
    """Return a search."""
    return sweeps.search(**CALLS["sweeps.search"]())


@cache
def contest() -> Any:
    """Return a comparison."""
    return sweeps.compare(**CALLS["sweeps.compare"]())


@cache
def ablation() -> Any:
    """Return an ablation."""
    return sweeps.ablate(**CALLS["sweeps.ablate"]())


# The arguments of a valid call, by stage and function. A function that is not listed is called with its defaults and
# with its first example of `tests/transforms/cases.py`, or a small value for each argument that needs one (_SMALL).
RATES = {"learning_rate": sweeps.log_uniform(1e-3, 1e-1)}
_TWO = {"a": optimizers.sgd(0.1), "b": optimizers.sgd(0.2), "params": PARAMS, "num_steps": 2}
FILES: Mapping[str, Any] = {"data_dir": archive_folder(), "verify": False, "num_train": 2, "num_validation": 1}
RUN: Mapping[str, Any] = {"num_steps": 2, "key": KEY, "batch_size": 2}

STEP: Mapping[str, Any] = {"optimizer": optimizers.momentum(0.01), "loss": loss, "params": PARAMS, "data": BATCH}

# What figures draw.
YLABEL = {"ylabel": "loss"}
CURVES = {"a": np.ones((2, 2))}
EYE = np.eye(2)
INTERVAL = (0.2, 0.1, 0.3)
PATHS = {"a": [[-7.0, 2.0], [0.0, 0.0]]}
SIDE = ({"a": [2.0, 2.2]}, {"a": (2.1, 1.5, 2.5)})
TRIALS = {
    "values": {"rate": [0.1, 1.0]}, "scores": [1.0, 0.9], "chosen": 1, "maybe_best": [False, True], "log": ["rate"],
    "ranges": {"rate": (0.1, 1.0)}, "edges": {"rate": "high"},
}  # fmt: skip
PROBED = {
    "step": [0, 5], "limit": 2.0, "eigenvalues": [[[3.0], [4.0]]], "gain_sharpness": [[1.5, 2.0]],
    "linear": [[-1.0, -0.5]], "quadratic": [[0.5, 0.0]], "realised": [[-0.5, -0.5]],
}  # fmt: skip

CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    # transforms
    "transforms.chain": lambda: {"parts": transforms.ema(0.9)},
    "transforms.merge": lambda: {"fn": transforms.divide_by_root(), "branches": transforms.ema(0.9)},
    "transforms.elementwise": lambda: {"fn": jnp.sign},
    "transforms.add_gradient_noise": lambda: {"eta": 0.1, "gamma": 0.55, "key": KEY},
    "transforms.ema": lambda: {"decay": 0.9, "of": jnp.square, "initial": 0.0, "dtype": jnp.float32, "lagged": False},
    "transforms.total": lambda: {"of": jnp.square, "initial": 0.0, "dtype": jnp.float32},
    "transforms.running_max": lambda: {"decay": 0.9, "of": jnp.abs, "initial": 0.0, "dtype": jnp.float32},
    "optimizers.explain_difference": lambda: _TWO,
    "transforms.from_json": lambda: {"text": transforms.ema(0.9).to_json()},
    "transforms.gradient_point": lambda: {"params": PARAMS, "state": opt_state()},
    "transforms.evaluation_params": lambda: {"params": PARAMS, "state": opt_state()},
    "transforms.from_optax": lambda: {"constructor": transforms.from_optax},
    "transforms.named_function": lambda: {"function": jnp.sign},
    "transforms.read_taps": lambda: {"state": transforms.tap("t").init(PARAMS)},
    "transforms.tap": lambda: {"name": "t", "inner": transforms.ema(0.9), "enabled": True},
    "transforms.project_to_max_norm": lambda: {"max_norm": 1.0, "axis": 0},
    "transforms.add_decayed_weights": lambda: {"weight_decay": 0.1, "mask": {"w": True}, "flip_sign": False},
    # problems
    "problems.from_pytree": lambda: {"params": PARAMS, "loss": loss, "data": BATCH, "name": "x"},
    "problems.least_squares": lambda: {"inputs": BATCH["x"], "targets": BATCH["y"], "start": np.zeros(3)},
    "problems.linear_network": lambda: {"singular_values": (2.0, 1.0), "sizes": (2, 3), "hidden": 2, "key": KEY},
    "problems.CriticalPoint": lambda: {"params": PARAMS, "value": 0.0, "kind": "minimum", "index": 0, "label": "a"},
    "problems.Metric": lambda: {"fn": loss, "mode": "min", "is_proportion": False},
    "problems.Problem": lambda: {
        "name": "x",
        "init": lambda key: PARAMS,
        "loss": loss,
        "data": BATCH,
        "validation": BATCH,
        "test": BATCH,
    },
    "problems.from_linen": lambda: {
        "module": problems.networks.MLP(1, widths=(2,)),
        "loss": lambda out, batch: jnp.mean(out**2),
        "data": BATCH,
        "inputs": lambda batch: batch["x"],
    },
    "problems.from_nnx": lambda: {
        "model": lambda rngs: nnx.Linear(3, 1, rngs=rngs),
        "loss": lambda m, batch: jnp.mean(m(batch["x"]) ** 2),
        "data": BATCH,
    },
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
    "problems.networks.cnn_classifier": lambda: {
        "dataset": images(),
        "channels": (2,),
        "widths": (2,),
        "kernel_size": (3, 3),
        "pool": 2,
        "dropout": 0.1,
        "activation": "relu",
        "initialiser": "he",
        "normalisation": "group",
        "num_groups": 1,
    },
    "problems.networks.mlp_regressor": lambda: {"dataset": sequences()[0], "widths": (2,)},
    "problems.networks.regressor": lambda: {
        "model": problems.networks.MLP(1, widths=(2,)),
        "dataset": sequences()[0],
        "name": "r",
    },
    "problems.networks.rnn_classifier": lambda: {
        "dataset": sequences()[1],
        "cell": "elman",
        "widths": (2,),
        "dropout": 0.1,
        "normalisation": "layer",
        "recurrent_initialiser": "orthogonal",
    },
    "problems.networks.rnn_regressor": lambda: {
        "dataset": sequences()[0],
        "cell": "lstm",
        "widths": (2,),
        "forget_bias": 1.0,
    },
    "problems.networks.describe": lambda: {"model": problems.networks.MLP(1, widths=(2,))},
    "problems.networks.initialisers.resolve": lambda: {"initialiser": "he"},
    "problems.networks.initialisers.glorot": lambda: {"gain": 1.0},
    "problems.networks.initialisers.he": lambda: {"gain": 1.0},
    "problems.networks.initialisers.xavier": lambda: {"gain": 1.0},
    "problems.networks.initialisers.orthogonal": lambda: {"gain": 1.0},
    "problems.networks.initialisers.normal": lambda: {"std": 1.0},
    "problems.networks.gpt": lambda: {
        "dataset": tokens(),
        "context": 4,
        "depth": 1,
        "width": 4,
        "heads": 2,
        "mlp_ratio": 1,
        "tied": True,
        "positions": "rotary",
        "normalisation": "rms",
        "activation": "relu",
        "initialiser": "he",
        "dropout": 0.1,
        "remat": False,
        "scan": True,
    },
    "problems.networks.vision_transformer": lambda: {
        "dataset": images(),
        "patch_size": 2,
        "depth": 1,
        "width": 4,
        "heads": 2,
        "mlp_ratio": 1,
        "normalisation": "rms",
        "activation": "relu",
        "initialiser": "he",
        "dropout": 0.1,
        "remat": True,
        "scan": False,
    },
    "problems.networks.language_model": lambda: {
        "model": problems.networks.GPT(5, 4, depth=1, width=4),
        "dataset": tokens(),
        "name": "m",
    },
    "problems.networks.token_cross_entropy": lambda: {
        "logits": jnp.zeros((2, 3, 4)),
        "targets": jnp.array([[0, 1, -1], [2, 3, 0]]),
        "label_smoothing": 0.1,
    },
    "problems.networks.token_accuracy": lambda: {
        "logits": jnp.zeros((2, 3, 4)),
        "targets": jnp.array([[0, 1, -1], [2, 3, 0]]),
    },
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
    "problems.datasets.Dataset": lambda: {
        "name": "eight",
        "train": LABELLED,
        "validation": LABELLED,
        "test": LABELLED,
        "num_classes": 2,
        "source": "s",
        "details": {"a": 1},
    },
    "problems.datasets.IdxArchive": lambda: {
        "name": "a",
        "title": "A",
        "mirrors": (),
        "files": problems.datasets.MNIST.files,
        "folders": (),
    },
    "problems.datasets.read_idx": lambda: {
        "path": archive_folder() / "mnist" / "t10k-images-idx3-ubyte",
        "kind": "images",
    },
    "problems.datasets.load_idx": lambda: {"archive": problems.datasets.MNIST, **FILES},
    "problems.datasets.mnist": lambda: FILES,
    "problems.datasets.fashion_mnist": lambda: {
        **FILES,
        "data_dir": archive_folder() / "mnist",
    },
    "problems.datasets.adding": lambda: {"num_steps": 3, "num_train": 4, "num_validation": 2, "num_test": 2},
    "problems.datasets.temporal_order": lambda: {"num_steps": 11, "num_train": 4, "num_validation": 2, "num_test": 2},
    "problems.datasets.damped_cosine": lambda: {"num_train": 4, "num_validation": 2, "num_test": 2, "noise": 0.1},
    "problems.datasets.bootstrap": lambda: {"dataset": dataset(), "seed": 0},
    "problems.datasets.k_folds": lambda: {"dataset": dataset(), "num_folds": 2, "seed": 0},
    "problems.datasets.corrupt_labels": lambda: {"dataset": dataset(), "fraction": 0.5, "seed": 0},
    "problems.datasets.copy": lambda: {
        "num_symbols": 4,
        "length": 2,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "seed": 0,
    },
    "problems.datasets.induction": lambda: {
        "num_symbols": 4,
        "length": 4,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "seed": 0,
    },
    "problems.datasets.modular_addition": lambda: {
        "modulus": 5,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "seed": 0,
    },
    "problems.datasets.heavy_tailed_classes": lambda: {
        "num_classes": 3,
        "num_features": 2,
        "exponent": 1.0,
        "separation": 1.0,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "seed": 0,
    },
    "problems.datasets.heavy_tailed_tokens": lambda: {
        "vocabulary_size": 3,
        "exponent": 1.0,
        "repetition": 0.5,
        "length": 4,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "seed": 0,
    },
    "problems.datasets.text": lambda: {
        "path": text_file(),
        "tokens": "bytes",
        "context": 4,
        "pattern": "*",
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
        "split": "first",
        "seed": 0,
    },
    "problems.datasets.digits": lambda: {"num_train": 10, "num_validation": 10, "num_test": 10},
    "problems.datasets.sparse_features": lambda: {
        "num_features": 3,
        "exponent": 1.0,
        "num_train": 4,
        "num_validation": 2,
        "num_test": 2,
    },
    "problems.augmentations.augmented": lambda: {"problem": problem(), "augmentations": identity_of_batches},
    "problems.augmentations.compose": lambda: {"augmentations": identity_of_batches},
    "problems.augmentations.input_noise": lambda: {"std": 0.1},
    "problems.augmentations.shift": lambda: {"max_pixels": 2},
    "problems.augmentations.rotation": lambda: {"max_degrees": 10.0},
    "problems.augmentations.weight_noise": lambda: {"problem": problem(), "std": 0.1},
    "problems.augmentations.cutout": lambda: {"size": 2, "inside": True},
    "problems.augmentations.mixup": lambda: {"alpha": 1.0, "num_classes": 2},
    "problems.augmentations.cutmix": lambda: {"alpha": 1.0, "num_classes": 2},
    # training
    "training.diagnose": lambda: {"run": np.linspace(2.0, 1.0, 30), "validation_losses": np.linspace(2.0, 1.0, 6)},
    "training.train": lambda: {"problem": problem(), "optimizer": optimizer(), **RUN, "evaluate_every": 1},
    "training.evaluate": lambda: {"problem": problem(), "params": PARAMS, "on": "train", "batch_size": 2},
    "training.linear_curriculum": lambda: {"difficulty": np.arange(4.0), "start": 0.5, "num_steps": 4},
    "training.shuffle": lambda: {"position": 1, "num_examples": 4, "key": KEY, "epoch": 0},
    "training.batch_indices": lambda: {
        "order": "reshuffle",
        "state": training.batch_order("reshuffle").init(KEY, 4),
        "step": 0,
        "batch_size": 2,
        "num_examples": 4,
    },
    "training.batch_order": lambda: {"order": "reshuffle"},
    "training.EarlyStopping": lambda: {"patience": 2, "min_delta": 0.0, "mode": "min"},
    "training.CurvatureProbe": lambda: {"every": 1, "num_eigenvalues": 1, "batch_size": 2, "tol": 0.01, "seed": 0},
    "training.LinearPace": lambda: {"start": 0.5, "num_steps": 4},
    "training.Curriculum": lambda: {"difficulty": np.arange(4.0), "pace": training.LinearPace(0.5, 4)},
    "training.Probe": lambda: {"fn": lambda *a, **k: jnp.zeros(()), "every": 1},
    # examination
    "examination.examine": lambda: {"loss": loss, "params": PARAMS, "data": BATCH, "batch_size": 2, "seed": 0},
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
    "curvature.SoftmaxCrossEntropy": lambda: {"targets": lambda batch: batch["y"]},
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
    "curvature.cross_check": lambda: {
        "op": operator(),
        "density": curvature.spectral_density(operator(), key=KEY, num_probes=2, num_steps=3),
        "num_steps": 3,
    },
    "curvature.blocks": lambda: {"op": operator(), "key": KEY, "k": 1, "num_probes": 2, "num_steps": 2},
    "curvature.path": lambda: {"loss": loss, "params": PARAMS, "direction": GRADS, "data": BATCH, "steps": [0.0, 1.0]},
    "curvature.plane": lambda: {
        "loss": loss,
        "params": PARAMS,
        "directions": (GRADS, PARAMS),
        "data": BATCH,
        "x": [0.0, 1.0],
        "y": [0.5],
    },
    "curvature.random_direction": lambda: {"params": PARAMS, "key": KEY},
    "curvature.principal_axes": lambda: {"snapshots": {"w": np.arange(6.0, dtype=np.float32).reshape(3, 2)}, "k": 1},
    "curvature.split": lambda: {
        "model": linear_model,
        "output_loss": squared_error,
        "params": PARAMS,
        "data": BATCH,
        "key": KEY,
        "batch_size": 2,
        "num_probes": 2,
        "num_steps": 2,
    },
    "curvature.noise_floor": lambda: {"op": operator()},
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
    "dynamics.directional_sharpness": lambda: {**STEP, "opt_state": opt_state(), "batch_size": 2},
    "dynamics.critical_sharpness": lambda: {**STEP, "opt_state": opt_state(), "batch_size": 2},
    "dynamics.learning_rate_range": lambda: {
        "make_optimizer": optimizers.sgd,
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
        "key": KEY,
        "batch_size": 2,
        "num_rates": 2,
        "num_steps": 2,
    },
    "dynamics.stochastic_stability": lambda: {
        **STEP,
        "opt_state": opt_state(),
        "key": KEY,
        "batch_size": 2,
        "num_populations": 2,
        "num_particles": 2,
        "num_steps": 4,
        "exact": False,
    },
    "dynamics.batch_sharpness": lambda: {
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
        "batch_size": 2,
        "key": KEY,
        "num_batches": 2,
    },
    "dynamics.preconditioned_density": lambda: {
        **STEP,
        "opt_state": opt_state(),
        "key": KEY,
        "num_probes": 2,
        "num_steps": 2,
    },
    "dynamics.gradient_noise": lambda: {
        "loss": loss,
        "params": PARAMS,
        "data": BATCH,
        "batch_size": 2,
        "num_batches": 4,
        "confidence": 0.9,
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
    "sweeps.Choices": lambda: {"options": (0.1, 0.2), "static": False},
    "sweeps.Conditional": lambda: {"dimension": sweeps.uniform(0.0, 1.0), "on": "name", "equals": 1},
    "sweeps.Integers": lambda: {"low": 1, "high": 4, "log": True, "static": True},
    "sweeps.LogUniform": lambda: {"low": 0.1, "high": 1.0, "static": False},
    "sweeps.Uniform": lambda: {"low": 0.1, "high": 1.0, "static": False},
    "sweeps.OptunaSampler": lambda: {"storage": None, "study_name": "a", "direction": "minimize", "heartbeat": 15.0},
    "sweeps.choices": lambda: {"options": 0.1, "static": False},
    "sweeps.conditional": lambda: {"dimension": sweeps.uniform(0.0, 1.0), "on": "name", "equals": 1},
    "sweeps.integers": lambda: {"low": 1, "high": 4, "log": True, "static": True},
    "sweeps.log_uniform": lambda: {"low": 0.1, "high": 1.0},
    "sweeps.uniform": lambda: {"low": 0.1, "high": 1.0},
    "sweeps.search_keys": lambda: {"key": KEY, "num_seeds": 2},
    "sweeps.best_of_k": lambda: {
        "scores": [0.3, 0.1, 0.2],
        "k": [1, 2],
        "mode": "min",
        "average": "mean",
        "level": 0.9,
        "seed": 0,
    },
    "sweeps.chosen_of_k": lambda: {
        "selection": [0.3, 0.1, 0.2],
        "report": [0.4, 0.2, 0.1],
        "k": [1, 2],
        "mode": "min",
        "report_mode": "max",
        "average": "mean",
        "level": 0.9,
        "seed": 0,
    },
    "sweeps.mean_interval": lambda: {"values": [0.3, 0.1, 0.2, 0.5, 0.4], "level": 0.9, "seed": 0},
    "sweeps.median_interval": lambda: {"values": [0.3, 0.1, 0.2, 0.5, 0.4], "level": 0.9},
    "sweeps.penalised": lambda: {"scores": [0.3, 0.1], "mode": "min"},
    "sweeps.wilson": lambda: {"successes": [1, 2], "num_trials": 3, "level": 0.9},
    "sweeps.report_keys": lambda: {"key": KEY, "number": 0, "num_seeds": 2},
    # figures
    "figures.Panel": lambda: {"title": "loss", "curves": CURVES},
    "figures.ablation": lambda: {"names": ["a"], "contributions": [INTERVAL], "xlabel": "change", "level": 0.9},
    "figures.appearances": lambda: {"names": ["a", "b"]},
    "figures.budget_curves": lambda: {"k": [1, 2], "curves": {"a": ([2.0, 1.0], [1.0, 0.5], [3.0, 2.0])}, **YLABEL},
    "figures.comparison": lambda: {"default": SIDE, "tuned": SIDE, "xlabel": "loss", "headings": ("before", "after")},
    "figures.curvature_along_runs": lambda: {"measured": {"a": PROBED}},
    "figures.difference_matrix": lambda: {
        "names": ["a", "b"],
        "estimate": EYE,
        "lower": EYE - 1,
        "upper": EYE + 1,
        "better": 0 * EYE,
        "unit": "loss",
    },
    "figures.hyperparameter_scatter": lambda: {**TRIALS, **YLABEL, "intervals": ([0.5, 0.4], [1.5, 1.4]), "columns": 1},
    "figures.learning_curves": lambda: {"steps": [0, 1], "curves": CURVES, **YLABEL},
    "figures.loss_landscape": lambda: {"measured": curvature.path(**CALLS["curvature.path"]())},
    "figures.new_figure": lambda: {"width": 2.0, "height": 2.0},
    "figures.pairs": lambda: {
        "samples": {"a": ([2.0, 2.2], [1.0])},
        "settings": ("before", "after"),
        "labels": {"a": ("1", "2")},
        "xlabel": "loss",
    },
    "figures.panels": lambda: {"steps": [0, 1], "shown": [figures.Panel("loss", CURVES)], "columns": 1},
    "figures.parallel_coordinates": lambda: {**TRIALS, "score_label": "loss"},
    "figures.performance_profiles": lambda: {"tau": [1.0, 2.0], "shares": {"a": [0.3, 1.0]}, "num_problems": 3},
    "figures.plot": lambda: {"result": curvature.path(**CALLS["curvature.path"]()), "ax": None},
    "figures.race_animation": lambda: {
        "problem": problems.planar.bowl(),
        "paths": PATHS,
        "seconds": 1.0,
        "dpi": 20,
    },
    "figures.render": lambda: {"figure": figures.new_figure(1, 1), "format": "png", "dpi": 20},
    "figures.response": lambda: {
        "x": [1, 2],
        "curves": {"a": [3.0, 4.0]},
        "xlabel": "rate",
        "marks": {"a": (1, 3.0)},
        **YLABEL,
    },
    "figures.spectrum": lambda: {
        "results": {"eigenpairs": {"values": [-1.0, 4.0], "residuals": [0.1, 0.2], "converged": [True, True]}},
        "edge": 2.0,
    },
    "figures.top_curves": lambda: {
        "steps": [0, 1],
        "train": np.ones((1, 2, 2)),
        "validation": np.ones((1, 2, 2)),
        "titles": ["1"],
        **YLABEL,
    },
    "figures.trajectories": lambda: {
        "problem": problems.planar.bowl(),
        "paths": PATHS,
        "rates": {"a": 0.1},
        "columns": 1,
    },
    # records
    "records.save": lambda: {"record": records.Record("k", "n", {"a": 1}, {"b": 2.0}), "path": scratch() / "r.json"},
    "records.load": lambda: {"path": records.save(records.Record("k", "n", {}, {}), scratch() / "l.json")},
    "records.content_hash": lambda: {"value": {"a": 1}},
    "records.plain": lambda: {"value": {"a": 1}, "where": "value"},
    "records.write_atomically": lambda: {"path": scratch() / "a.txt", "content": "text", "durable": False},
    "records.write_csv": lambda: {"path": scratch() / "a.csv", "rows": [{"a": 1}], "columns": ["a"]},
    "records.Record": lambda: {"kind": "k", "name": "n", "config": {"a": 1}, "results": {"b": 2.0}},
}

# The same of methods, with what makes the object.
METHODS: dict[str, tuple[Callable[[], Callable[..., Any]], Callable[[], dict[str, Any]]]] = {
    "curvature.Operator.matvec": (lambda: operator().matvec, lambda: {"v": jnp.ones(3)}),
    "curvature.Operator.matmat": (lambda: operator().matmat, lambda: {"block": jnp.ones((2, 3))}),
    "curvature.Operator.precondition": (lambda: operator().precondition, lambda: {"preconditioner": jnp.ones(3)}),
    "curvature.Operator.restrict": (
        lambda: curvature.hessian(loss, PARAMS, BATCH).restrict, lambda: {"selection": lambda path: True},
    ),
    "curvature.Operator.to_dense": (lambda: operator().to_dense, lambda: {"max_size": 3}),
    "problems.Problem.mode_of": (lambda: problem().mode_of, lambda: {"metric": "loss"}),
    "problems.Problem.replace": (
        lambda: problem().replace,
        lambda: {"name": "a", "loss": loss, "data": BATCH, "metrics": {}, "init": lambda key: PARAMS},
    ),
    "sweeps.Ablation.contributions": (lambda: ablation().contributions, lambda: {"settings": "default"}),
    "sweeps.Ablation.to_pandas": (lambda: ablation().to_pandas, lambda: {"settings": "default"}),
    "sweeps.Comparison.budget_curves": (lambda: contest().budget_curves, lambda: {"problem": None}),
    "sweeps.Comparison.differences": (lambda: contest().differences, lambda: {"settings": "default", "level": 0.9}),
    "sweeps.Comparison.median": (lambda: contest().median, lambda: {"settings": "default"}),
    "sweeps.Comparison.of": (lambda: contest().of, lambda: {"settings": "default"}),
    "sweeps.Comparison.profile": (lambda: contest().profile, lambda: {"settings": "default"}),
    "sweeps.Comparison.ranking": (lambda: contest().ranking, lambda: {"settings": "default"}),
    "sweeps.Comparison.steps_to_target": (
        lambda: contest().steps_to_target, lambda: {"target": 1.0, "settings": "default"},
    ),
    "sweeps.Comparison.table": (lambda: contest().table, lambda: {"problem": None}),
    "sweeps.Comparison.target": (lambda: contest().target, lambda: {"settings": "default"}),
    "sweeps.Comparison.verdict": (lambda: contest().verdict, lambda: {"settings": "default", "level": 0.9}),
    "sweeps.Report.replay": (lambda: contest().reports[0].replay, lambda: {"seed": 0}),
    "sweeps.Search.best_of_k": (lambda: study().best_of_k, lambda: {"k": [1, 2]}),
    "sweeps.Search.indistinguishable": (lambda: study().indistinguishable, lambda: {"level": 0.9}),
    "sweeps.Search.replay": (lambda: study().replay, lambda: {"trial": 0, "seed": 0}),
    "sweeps.Space.active": (lambda: sweeps.Space(RATES).active, lambda: {"name": "learning_rate", "config": {}}),
    "sweeps.Space.at": (lambda: sweeps.Space(RATES).at, lambda: {"points": np.array([[0.5]])}),
    "sweeps.Space.unit": (lambda: sweeps.Space(RATES).unit, lambda: {"configs": [{"learning_rate": 0.01}]}),
    "transforms.Transform.replace": (lambda: transforms.ema(0.9).replace, lambda: {"decay": 0.8}),
    "transforms.Transform.to_json": (lambda: transforms.ema(0.9).to_json, lambda: {"indent": 1}),
}  # fmt: skip

_SMALL: dict[str, Any] = {
    "learning_rate": 0.1, "schedule": 0.5, "rate": 0.1, "strength": 0.1, "first": 0.1, "second": 0.2, "weight": 0.5,
    "decay": 0.9,
}  # fmt: skip

# Not called: results, errors, modules' own decorators, what takes no argument or sets up a process.
NOT_CALLED = {
    "transforms": {"Function", "TapMetrics", "Transform", "atom", "composite"},
    "optimizers": {"Difference", "Convention", "named", "network_optimizers", "plane_optimizers"},
    "problems": {"catalogue", "listed"},
    "problems.networks": {"CNN", "GPT", "GRU", "LSTM", "MLP", "RNN", "Conv", "VisionTransformer"},  # by their problems
    "problems.datasets": {"FASHION_MNIST", "MNIST", "IdxFile", "DatasetError"},
    "problems.planar": {"all_problems"},
    "problems.augmentations": {"Augmentation"},
    "training": {"TrainingInterrupted", "Trajectory"},
    "sweeps": {"ComparisonInterrupted", "Journal", "JournalError", "SearchInterrupted", "use_cpu_cores"},
    "records": {"environment"},
}


Calls = dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]]


def public_calls(stage: str) -> Calls:
    """Return every public function of a stage, and methods of its results, with the arguments of a valid call."""
    methods = {name: call for name, call in METHODS.items() if name.rsplit(".", 2)[0] == stage}
    return public_functions(stage) | {
        name.removeprefix(f"{stage}."): (make(), arguments) for name, (make, arguments) in methods.items()
    }


def public_functions(stage: str) -> Calls:
    """Return every public function of a stage with the arguments of a valid call.

    Raises:
        LookupError: If a public function has neither a call nor a reason not to be called.
    """
    module: Any = {
        "transforms": transforms, "optimizers": optimizers, "problems": problems, "training": training,
        "problems.networks": problems.networks, "problems.datasets": problems.datasets,
        "problems.planar": problems.planar, "problems.augmentations": problems.augmentations,
        "curvature": curvature, "dynamics": dynamics, "sweeps": sweeps,
        "records": records, "figures": figures, "examination": jaxopt_study,
        "problems.networks.initialisers": problems.networks.initialisers,
    }[stage]  # fmt: skip
    found = {}
    for name in module.__all__:
        function = getattr(module, name)
        if name in NOT_CALLED.get(stage, ()) or inspect.ismodule(function):
            continue
        arguments = CALLS.get(f"{stage}.{name}")
        if arguments is None:
            if inspect.isclass(function):
                continue  # a result
            if f"{stage}.{name}" in EXAMPLES:
                found[name] = (function, partial(needed_arguments, f"{stage}.{name}", function))
                continue
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
