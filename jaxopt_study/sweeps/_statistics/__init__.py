"""Statistics of scores: intervals, paired tests, the best of k trials, performance profiles."""

__all__: list[str] = []  # public names are those of `jaxopt_study.sweeps`
