"""Whose optimizer is meant, where they differ."""

from typing import Literal

Convention = Literal["paper", "torch", "optax", "book"]
