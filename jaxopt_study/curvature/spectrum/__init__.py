"""Spectra: extreme eigenvalues, densities, traces, determinants and condition numbers, each with an error."""

__all__: list[str] = []  # public names are those of `jaxopt_study.curvature`
