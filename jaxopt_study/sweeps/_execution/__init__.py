"""Execution of many trials in one compiled program. A lane is one run: one trial with one seed."""
