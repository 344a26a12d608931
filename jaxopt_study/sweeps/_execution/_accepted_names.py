"""Names of the hyperparameters that an optimizer, a problem or `train` accepts."""

import inspect
from typing import Any

from jaxopt_study.transforms import Transform

TRAIN_OPTIONS = ("batch_size", "order")


def accepts(maker: Any, name: str) -> bool:
    """Return whether a constructor, or a `Transform`, takes a hyperparameter of this name."""
    if isinstance(maker, Transform):  # paths may be shortened, or be patterns
        return "*" in name or any(f".{path}".endswith(f".{name}") for path in maker.hyperparams)
    kinds = {parameter.kind for parameter in inspect.signature(maker).parameters.values()}
    return name in accepted_names(maker) or (inspect.Parameter.VAR_KEYWORD in kinds and name not in TRAIN_OPTIONS)


def accepted_names(maker: Any) -> list[str]:
    """Return the names of the hyperparameters that a constructor, or a `Transform`, takes."""
    if isinstance(maker, Transform):
        return list(maker.hyperparams)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in inspect.signature(maker).parameters.items() if parameter.kind in by_name]
