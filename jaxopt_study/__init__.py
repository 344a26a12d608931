"""Compose optimizers from textbook atoms, train them in one compiled program, and see why they differ.

Import the subpackages: `from jaxopt_study import optimizers, problems, training, transforms`.
"""
