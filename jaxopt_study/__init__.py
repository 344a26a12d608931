"""Compose optimizers from textbook atoms, train them in one compiled program, and see why they differ.

Import the subpackages: `from jaxopt_study import optimizers, problems, training, transforms`.
"""

__all__: list[str] = []  # no subpackage is imported here, so that the help of the command line waits for none
