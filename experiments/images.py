"""Images on which networks are trained: embedded digits for a smoke run, MNIST for the paper preset."""

from pathlib import Path
from typing import Any, Literal

from jaxopt_study.problems import datasets

Images = Literal["digits", "mnist"]

TITLES = {"mnist": "MNIST", "digits": "scikit-learn's digits"}  # of figures


def load(images: Images, data_dir: Path | None, **sizes: Any) -> datasets.Dataset:
    """Load the digits, or MNIST from a folder; sizes are those of `datasets.digits` and `datasets.mnist`."""
    return datasets.digits(**sizes) if images == "digits" else datasets.mnist(data_dir, **sizes)
