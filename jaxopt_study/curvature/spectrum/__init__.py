"""Spectra: extreme eigenvalues, densities, traces, determinants and condition numbers, each with an error."""
