"""Comparison and ablation, with equal tuning budgets and separate seeds for tuning and reporting."""
