"""Names of the conventions in which the paper, the libraries and Saito (2016) define an optimizer."""

from typing import Literal

Convention = Literal["paper", "torch", "optax", "saito2016"]
