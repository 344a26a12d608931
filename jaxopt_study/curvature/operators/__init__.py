"""Operators: Hessian, Gauss–Newton matrix, empirical Fisher matrix, their algebra, and batches of data."""

__all__: list[str] = []  # public names are those of `jaxopt_study.curvature`
