"""Krylov methods on pytrees: vectors, bases, solver loops, quadrature; it knows no loss and no optimizer."""
