"""Krylov methods on pytrees: vectors, bases, solver loops and quadrature, independent of losses and optimizers."""
