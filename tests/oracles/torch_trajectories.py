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

STORED = Path(__file__).with_suffix(".json")
COMMAND = "PYTHONPATH=. torchenv/bin/python tests/oracles/torch_trajectories.py"
SEED = 0
NUM_STEPS = 210

# name: (class, arguments, whether `gradients.staircase` sets the learning rate)
CASES = {
    "sgd": ("SGD", {"lr": 0.1}, False),
    "sgd_momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}, False),
    "sgd_momentum_scheduled": ("SGD", {"lr": 0.1, "momentum": 0.9}, True),
    "sgd_dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, False),
    "sgd_nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, False),
    "sgd_nesterov_scheduled": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, True),
    "adagrad": ("Adagrad", {"lr": 0.1}, False),
    "adadelta": ("Adadelta", {"lr": 1.0}, False),
    "adadelta_lr": ("Adadelta", {"lr": 0.3, "rho": 0.95}, False),
    "rmsprop": ("RMSprop", {"lr": 0.01}, False),
    "rmsprop_momentum": ("RMSprop", {"lr": 0.01, "momentum": 0.9}, False),
    "rmsprop_momentum_scheduled": ("RMSprop", {"lr": 0.01, "momentum": 0.9}, True),
    "rmsprop_centered": ("RMSprop", {"lr": 0.01, "centered": True}, False),
    "adam": ("Adam", {"lr": 0.01}, False),
    "adam_amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}, False),
    "adamax": ("Adamax", {"lr": 0.01}, False),
    "nadam": ("NAdam", {"lr": 0.01}, False),
    "radam": ("RAdam", {"lr": 0.01}, False),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}, False),
    "adamw_scheduled": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}, True),
}


def load() -> dict:
    """Read the stored trajectories as NumPy arrays: `grads`, `start`, and `params` of each case after every step."""
    import numpy as np

    stored = json.loads(STORED.read_text())
    stored["grads"] = np.array(stored["grads"])
    stored["start"] = np.array(stored["start"])
    for case in stored["cases"].values():
        case["params"] = np.array(case["params"])
    return stored


def main() -> None:
    import numpy as np
    import torch

    from tests.oracles import gradients

    torch.set_default_dtype(torch.float64)  # NAdam keeps Πμ in the default dtype, whatever the parameters' is
    grads = gradients.stream(SEED)[:NUM_STEPS]
    start = gradients.start(SEED)
    cases = {}
    for name, (class_name, arguments, scheduled) in CASES.items():
        params = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
        optimizer = getattr(torch.optim, class_name)([params], **arguments)
        trajectory = []
        for count, grad in enumerate(grads):
            if scheduled:
                optimizer.param_groups[0]["lr"] = gradients.staircase(count)
            params.grad = torch.tensor(grad, dtype=torch.float64)
            optimizer.step()
            trajectory.append(params.detach().tolist())
        cases[name] = {"class": class_name, "arguments": arguments, "scheduled": scheduled, "params": trajectory}
    header = {
        "command": COMMAND,
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "seed": SEED,
        "dtype": "float64",
        "device": "cpu",
        "grads": grads.tolist(),
        "start": start.tolist(),
        "cases": cases,
    }
    text = json.dumps(header, indent=1)
    STORED.write_text(_one_row_per_line(text) + "\n")


def _one_row_per_line(text: str) -> str:
    import re

    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)


if __name__ == "__main__":
    main()
