"""Operators: Hessian, Gauss–Newton matrix, empirical Fisher matrix, their algebra, and batches of data."""
