"""Generalisation: regularisation, noise, early stopping, model selection, ensembles, sharpness."""
