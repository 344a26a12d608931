"""Batches and order: noise of the gradient, batch size, shuffling, curricula."""
