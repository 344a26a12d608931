"""Comparison and ablation: candidates, equal budgets, tuning apart from reporting."""
