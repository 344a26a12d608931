"""Hyperparameter search: samplers, successive halving, and the result."""
