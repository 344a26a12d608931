"""Spectra: extreme eigenvalues, densities, traces, determinants and condition numbers, each with its error."""
