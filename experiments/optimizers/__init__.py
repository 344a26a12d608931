"""Optimizers: rates, accumulators, second-order steps."""
