"""Batches and order: the noise of the mini-batch gradient, its size, and the order of the examples."""
