"""Spaces of hyperparameters: ranges, choices, conditions."""
