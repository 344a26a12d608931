"""Search spaces: ranges, choices and conditions of hyperparameters."""

__all__: list[str] = []  # public names are those of `jaxopt_study.sweeps`
