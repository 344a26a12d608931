"""Operators: the Hessian, the Gauss–Newton matrix, the Fisher, what is made of them, and batches of data."""
