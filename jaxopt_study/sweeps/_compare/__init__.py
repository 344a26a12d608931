"""Comparison and ablation, with equal tuning budgets and separate seeds for tuning and reporting."""

__all__: list[str] = []  # public names are those of `jaxopt_study.sweeps`
