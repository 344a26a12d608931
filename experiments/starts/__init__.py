"""Starts and normalisation: scales of the initial weights, and layers that make them matter less."""
