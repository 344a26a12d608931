"""Write torch_trajectories.json: what `torch.optim` does on the gradient stream, in float64 on the CPU.

The project does not depend on PyTorch; the stored file is the oracle and this program is its provenance. To make it
again, from the root of the repository:

    python3 -m venv torchenv
    torchenv/bin/pip install torch==2.13.0 numpy
    PYTHONPATH=. torchenv/bin/python tests/oracles/torch_trajectories.py

It stores the gradients and the start too, so a reader needs neither PyTorch nor NumPy's generator.
"""

import json
from pathlib import Path
from typing import NamedTuple

STORED = Path(__file__).with_suffix(".json")
COMMAND = "PYTHONPATH=. torchenv/bin/python tests/oracles/torch_trajectories.py"
SEED = 0
NUM_STEPS = 210


class Case(NamedTuple):
    """What is run: a class of `torch.optim` with arguments."""

    class_name: str
    arguments: dict
    scheduled: bool = False  # whether `gradients.staircase` sets the learning rate
    num_steps: int = 120  # up to there the stream has bursts, zero stretches and both drops of the staircase
    shape: tuple[int, ...] | None = None  # of the parameter; None for the seven columns of the stream


CASES = {
    "sgd": Case("SGD", {"lr": 0.1}, num_steps=NUM_STEPS),
    "sgd_momentum": Case("SGD", {"lr": 0.1, "momentum": 0.9}, num_steps=NUM_STEPS),
    "sgd_momentum_scheduled": Case("SGD", {"lr": 0.1, "momentum": 0.9}, True, NUM_STEPS),
    "sgd_dampening": Case("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, num_steps=NUM_STEPS),
    "sgd_nesterov": Case("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, num_steps=NUM_STEPS),
    "sgd_nesterov_scheduled": Case("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, True, NUM_STEPS),
    "adagrad": Case("Adagrad", {"lr": 0.1}, num_steps=NUM_STEPS),
    "adadelta": Case("Adadelta", {"lr": 1.0}, num_steps=NUM_STEPS),
    "adadelta_lr": Case("Adadelta", {"lr": 0.3, "rho": 0.95}, num_steps=NUM_STEPS),
    "rmsprop": Case("RMSprop", {"lr": 0.01}, num_steps=NUM_STEPS),
    "rmsprop_momentum": Case("RMSprop", {"lr": 0.01, "momentum": 0.9}, num_steps=NUM_STEPS),
    "rmsprop_momentum_scheduled": Case("RMSprop", {"lr": 0.01, "momentum": 0.9}, True, NUM_STEPS),
    "rmsprop_centered": Case("RMSprop", {"lr": 0.01, "centered": True}, num_steps=NUM_STEPS),
    "adam": Case("Adam", {"lr": 0.01}, num_steps=NUM_STEPS),
    "adam_amsgrad": Case("Adam", {"lr": 0.01, "amsgrad": True}, num_steps=NUM_STEPS),
    "adamax": Case("Adamax", {"lr": 0.01}, num_steps=NUM_STEPS),
    "nadam": Case("NAdam", {"lr": 0.01}, num_steps=NUM_STEPS),
    "radam": Case("RAdam", {"lr": 0.01}, num_steps=NUM_STEPS),
    "adamw": Case("AdamW", {"lr": 0.01, "weight_decay": 0.1}, num_steps=NUM_STEPS),
    "adamw_scheduled": Case("AdamW", {"lr": 0.01, "weight_decay": 0.1}, True, NUM_STEPS),
    # Weight decay, in both places, and ascent. Where both are given, it shows that the gradient's sign is turned first.
    "sgd_dampening_scheduled": Case("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, True),
    "sgd_decay": Case("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "sgd_decay_ascent": Case("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    "sgd_nesterov_decay_ascent": Case(
        "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True}, True
    ),
    "adagrad_lr_decay": Case("Adagrad", {"lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.2}),
    "adagrad_decay_ascent": Case(
        "Adagrad", {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.1, "maximize": True}, True
    ),
    "adadelta_decay_ascent": Case("Adadelta", {"lr": 1.0, "weight_decay": 0.1, "maximize": True}, True),
    "rmsprop_decay_ascent": Case("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "maximize": True}),
    "adam_decay_ascent": Case("Adam", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    "adam_decoupled": Case("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adam_amsgrad_decay": Case("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "adamw_amsgrad": Case("AdamW", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True}, True),
    "adamax_decay_ascent": Case("Adamax", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    "nadam_decay_ascent": Case("NAdam", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    "nadam_decoupled": Case("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}, True),
    "radam_decay_ascent": Case("RAdam", {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    "radam_decoupled": Case("RAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}, True),
    # Their averages are stored, too.
    "asgd": Case("ASGD", {"lr": 0.1}),
    "asgd_averaged": Case("ASGD", {"lr": 0.1, "lambd": 0.05, "alpha": 0.6, "t0": 20, "weight_decay": 0.1}),
    "asgd_scheduled_ascent": Case("ASGD", {"lr": 0.1, "lambd": 0.05, "t0": 0, "maximize": True}, True),
    "rprop": Case("Rprop", {"lr": 0.01}),
    "rprop_ascent": Case(
        "Rprop", {"lr": 1e-4, "etas": (0.3, 1.5), "step_sizes": (1e-3, 0.3), "maximize": True}
    ),
    "adafactor": Case("Adafactor", {"lr": 0.01}),
    "adafactor_matrix": Case("Adafactor", {"lr": 0.01}, shape=(2, 3)),
    "adafactor_tensor": Case("Adafactor", {"lr": 0.2, "weight_decay": 0.1}, True, shape=(2, 3, 2)),
    "adafactor_ascent": Case(
        "Adafactor",
        {"lr": 0.3, "beta2_decay": -0.5, "eps": (1e-3, 0.5), "d": 1.1, "weight_decay": 0.1, "maximize": True},
        shape=(3, 2),
    ),
}  # fmt: skip


def inputs(stored: dict, name: str) -> tuple:
    """Return the gradients that a case was fed, and its start.

    Args:
        stored: What `load` returned.
        name: The case.
    """
    case = stored["cases"][name]
    of = stored["shapes"][_label(CASES[name].shape)] if CASES[name].shape else stored
    return of["grads"][: len(case["params"])], of["start"]


def _label(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def load() -> dict:
    """Read the stored trajectories as NumPy arrays: `grads`, `start`, and `params` of each case after every step."""
    import numpy as np

    stored = json.loads(STORED.read_text())
    stored["grads"] = np.array(stored["grads"])
    stored["start"] = np.array(stored["start"])
    for case in stored["cases"].values():
        case["params"] = np.array(case["params"])
        if "average" in case:
            case["average"] = np.array(case["average"])
    for of_shape in stored["shapes"].values():
        of_shape["grads"], of_shape["start"] = np.array(of_shape["grads"]), np.array(of_shape["start"])
    return stored


def main() -> None:
    import numpy as np
    import torch

    from tests.oracles import gradients

    torch.set_default_dtype(torch.float64)  # NAdam keeps Πμ in the default dtype, whatever the parameters' is
    grads = gradients.stream(SEED)[:NUM_STEPS]
    start = gradients.start(SEED)
    shapes = {}
    for case in CASES.values():
        if case.shape:
            shapes[_label(case.shape)] = {
                "grads": gradients.shaped_stream(case.shape, SEED)[: case.num_steps].tolist(),
                "start": gradients.shaped_start(case.shape, SEED).tolist(),
            }
    stored = {"cases": {name: {"params": range(case.num_steps)} for name, case in CASES.items()}, "shapes": shapes}
    stored |= {"grads": grads.tolist(), "start": start.tolist()}
    cases = {}
    for name, case in CASES.items():
        stream, begin = inputs(stored, name)
        params = torch.nn.Parameter(torch.tensor(begin, dtype=torch.float64))
        optimizer = getattr(torch.optim, case.class_name)([params], **case.arguments)
        trajectory, averages = [], []
        for count, grad in enumerate(stream):
            if case.scheduled:
                optimizer.param_groups[0]["lr"] = gradients.staircase(count)
            params.grad = torch.tensor(grad, dtype=torch.float64)
            optimizer.step()
            trajectory.append(params.detach().tolist())
            if "ax" in optimizer.state[params]:
                averages.append(optimizer.state[params]["ax"].tolist())
        cases[name] = {
            "class": case.class_name,
            "arguments": case.arguments,
            "scheduled": case.scheduled,
            "params": trajectory,
            **({"average": averages} if averages else {}),
        }
    header = {
        "command": COMMAND,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "seed": SEED,
        "dtype": "float64",
        "device": "cpu",
        "grads": grads.tolist(),
        "start": start.tolist(),
        "shapes": shapes,
        "cases": cases,
    }
    text = json.dumps(header, indent=1)
    STORED.write_text(_one_row_per_line(text) + "\n")


def _one_row_per_line(text: str) -> str:
    import re

    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)


if __name__ == "__main__":
    main()
