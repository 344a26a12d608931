"""Conventions: whose form of an optimizer is meant where the paper, the libraries and Saito (2016) differ."""

from typing import Literal

Convention = Literal["paper", "torch", "optax", "saito2016"]
