"""Hyperparameter search: samplers, successive halving, and the result."""

__all__: list[str] = []  # public names are those of `jaxopt_study.sweeps`
