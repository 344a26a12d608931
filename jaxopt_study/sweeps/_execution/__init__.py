"""Execution of many trials in one compiled program. A lane is one run: one trial with one seed."""

__all__: list[str] = []  # public names are those of `jaxopt_study.sweeps`
